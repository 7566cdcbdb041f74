"""The checker the import hook of ``conftest.py`` puts on every function of ``urt_jax``."""

from beartype import BeartypeConf, beartype

# As for mypy, an int is good where a float is asked for.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))

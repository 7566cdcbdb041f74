"""Reading and writing record files: ``.json`` lists, ``.jsonl`` and the original's mixture ``.yaml``."""

from urt_jax.data.sources.reading import Pool, read_examples, read_pool
from urt_jax.data.sources.writing import write_examples

__all__ = ["Pool", "read_examples", "read_pool", "write_examples"]

"""Record files in, examples out, and back: ``.json`` lists, ``.jsonl`` and the mixture ``.yaml`` of the original."""

from urt_jax.data.sources.reading import Pool, read_examples, read_pool
from urt_jax.data.sources.writing import write_examples

__all__ = ["Pool", "read_examples", "read_pool", "write_examples"]

"""The dtype of sums."""

import jax.numpy as jnp
from jax.typing import DTypeLike


def wide(dtype: DTypeLike) -> jnp.dtype:
    """Return the dtype for sums over numbers of ``dtype``: float32, or float64 for float64 (exactness tests)."""
    return jnp.promote_types(dtype, jnp.float32)

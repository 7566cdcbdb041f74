"""Means over masks that may be empty, and the causal mask of packed sequences."""

import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Shaped

from urt_jax.types import Array


def masked_sum(x: Shaped[Array, "*shape"], mask: Bool[Array, "*shape"]) -> Float[Array, ""]:
    """Return the float32 sum of ``x`` where ``mask`` is True; masked values and gradients may be NaN."""
    return jnp.sum(jnp.where(mask, jnp.asarray(x, jnp.float32), 0.0))


def masked_mean(
    x: Shaped[Array, "*shape"], mask: Bool[Array, "*shape"], axis: int | None = None
) -> Float[Array, "*rest"]:
    """Return the float32 mean of ``x`` where ``mask`` is True; an empty mask yields 0 with gradient 0."""
    total = jnp.sum(jnp.where(mask, jnp.asarray(x, jnp.float32), 0.0), axis=axis)
    return total / jnp.maximum(jnp.sum(mask, axis=axis, dtype=jnp.float32), 1.0)


def segment_mask(
    query_segments: Int[Array, "*rows T"],
    key_segments: Int[Array, "*rows S"],
    query_index: Int[Array, "... T"],
    key_index: Int[Array, "... S"],
) -> Bool[Array, "*rows T S"]:
    """Return the causal mask of packed rows: keys of the query's own sequence, none later in the row, no padding.

    Segments number the packed sequences of a row from 1, 0 is padding; indices count tokens of the row. A row that
    packs a sequence of three tokens, one of two, and one padding token::

                      key segment  1 1 1 2 2 0
        query segment  1           x . . . . .
                       1           x x . . . .
                       1           x x x . . .
                       2           . . . x . .
                       2           . . . x x .
                       0           . . . . . .      (sees nothing; its output is never used)
    """
    queries, keys = jnp.asarray(query_segments)[..., :, None], jnp.asarray(key_segments)[..., None, :]
    same = (queries == keys) & (keys != 0)
    causal = jnp.asarray(query_index)[..., :, None] >= jnp.asarray(key_index)[..., None, :]
    return same & jnp.broadcast_to(causal, same.shape)

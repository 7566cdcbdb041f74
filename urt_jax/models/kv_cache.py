"""Caches of a grouped decode: one record per layer kind, layers stacked on the first axis."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


class PromptCache(NamedTuple):
    """Keys and values of Q prompts, stored once and read by all responses to a question."""

    key_LQKSH: Float[Array, "L Q K S H"]
    value_LQKSH: Float[Array, "L Q K S H"]


class ResponseCache(NamedTuple):
    """Keys and values of the tokens generated so far, one row per response."""

    key_LBKUH: Float[Array, "L B K U H"]
    value_LBKUH: Float[Array, "L B K U H"]


def init_response_cache(
    *, layers: int, rows: int, kv_heads: int, slots: int, head_width: int, dtype: jnp.dtype | type
) -> ResponseCache:
    """Allocate an empty cache of ``slots`` tokens a row."""
    shape = (layers, rows, kv_heads, slots, head_width)
    return ResponseCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


def write_token(cache: ResponseCache, new: ResponseCache, slot: Array) -> ResponseCache:
    """Write the keys and values of one token per row (``U = 1``) at ``slot``, the same for every row."""
    start = (0, 0, 0, slot, 0)
    return ResponseCache(
        jax.lax.dynamic_update_slice(cache.key_LBKUH, new.key_LBKUH, start),
        jax.lax.dynamic_update_slice(cache.value_LBKUH, new.value_LBKUH, start),
    )

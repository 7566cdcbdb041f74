"""Caches of a grouped decode: one record per layer kind, layers stacked on the first axis."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int


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


def ring_mask(used_B: Int[Array, " B"], step: Int[Array, ""], slots: int) -> Bool[Array, "B U"]:
    """Return which slots hold a row's own past when all rows write slot ``step % slots`` at every step.

    A row that has used ``u`` tokens wrote the last ``u`` slots before this step's; what is older is of the response
    that had the row before. A response is never longer than the ring::

        slots 4, step 5 (slot 1 is next)      used 2:  x . . x      used 4:  x x x x  (slot 1 is overwritten next)
    """
    age_U = (step - 1 - jnp.arange(slots)) % slots
    return age_U[None] < used_B[:, None]

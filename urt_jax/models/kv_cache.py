"""Key-value caches of decoding with shared prompts: layers stacked on the first axis, or one record per layer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from urt_jax.sharding.activations import pinned
from urt_jax.types import Array


class KeyValues(NamedTuple):
    """Keys and values of S slots per row; keys are stored transposed, so that scores need no transpose.

    The rows of a prompt cache are questions, stored once and read by all their responses. The axis ``L`` exists only
    if the layers are stacked.
    """

    key: Float[jax.Array, "*L B K H S"]
    value: Float[jax.Array, "*L B K S H"]


Cache = KeyValues | tuple[KeyValues, ...]  # all layers stacked, or one record each


def map_layers(call: Any, cache: Cache) -> Cache:
    """Apply ``call`` to the stacked record, or to each layer's record."""
    return call(cache) if isinstance(cache, KeyValues) else tuple(call(layer) for layer in cache)


def split_cache(cache: KeyValues, slots: str | None = None) -> KeyValues:
    """Constrain a record's sharding by the table of rules: rows and key heads, and the axis ``slots`` if named."""
    stacked = (None,) * (cache.key.ndim - 4)
    return KeyValues(
        pinned(cache.key, *stacked, "rows", "heads", None, slots), pinned(cache.value, *stacked, "rows", "heads", slots)
    )


def init_cache(
    *, layers: int, rows: int, kv_heads: int, slots: int, head_width: int, dtype: jnp.dtype | type, stacked: bool = True
) -> Cache:
    """Allocate an empty cache of ``slots`` tokens per row, split over a mesh by rows and heads."""

    def empty(*leading: int) -> KeyValues:
        shape = (*leading, rows, kv_heads)
        zeros = (jnp.zeros((*shape, head_width, slots), dtype), jnp.zeros((*shape, slots, head_width), dtype))
        return split_cache(KeyValues(*zeros))

    return empty(layers) if stacked else tuple(empty() for _ in range(layers))


def join_slots(first: Cache, second: Cache) -> Cache:
    """Return the slots of both, the first's before the second's; both have their layers laid alike."""
    if isinstance(first, KeyValues) and isinstance(second, KeyValues):
        key = jnp.concatenate([first.key, second.key], axis=-1)
        return KeyValues(key, jnp.concatenate([first.value, second.value], axis=-2))
    assert not isinstance(first, KeyValues)
    assert not isinstance(second, KeyValues)
    return tuple(join_slots(a, b) for a, b in zip(first, second, strict=True))  # type: ignore[misc]


def write_token(cache: KeyValues, new: KeyValues, slot: Array, layer: Array | None = None) -> KeyValues:
    """Write the key and value of one token per row (``S = 1``) at ``slot``, the same for every row.

    ``layer`` is their layer in a stacked ``cache``.
    """
    if layer is not None:
        new = KeyValues(*(part[None] for part in new))
    leading = () if layer is None else (layer,)
    return KeyValues(
        jax.lax.dynamic_update_slice(cache.key, new.key, (*leading, 0, 0, 0, slot)),
        jax.lax.dynamic_update_slice(cache.value, new.value, (*leading, 0, 0, slot, 0)),
    )


def ring_mask(used_B: Int[Array, " B"], step: Int[Array, ""], slots: int) -> Bool[Array, "B U"]:
    """Return the mask of a row's own tokens when all rows write slot ``step % slots`` at every step.

    A row that has used ``u`` tokens wrote the last ``u`` slots before this step's; older slots belong to the response
    that the row held before. A response is never longer than the ring::

        slots 4, step 5 (slot 1 is next)      used 2:  x . . x      used 4:  x x x x  (slot 1 is overwritten next)
    """
    age_U = (step - 1 - jnp.arange(slots)) % slots
    return age_U[None] < jnp.asarray(used_B)[:, None]

"""The key-value cache of prompts as an immutable value: prefill, extend, fork, drop.

Any number of rows may read a ``PromptCache`` while they decode. Each operation returns a new one::

    prefill(chats)            Q prompts
    extend(prompts, tokens)   the same prompts, each followed by text
    prompts.take([0, 0, 2])   the first prompt forked, the second dropped
    branch(decoding, rows)    new prompts: the rows' prompts and their responses so far
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from urt_jax.generation.schedule import Rows, Schedule
from urt_jax.generation.state import DecodeState
from urt_jax.models.kv_cache import Cache, KeyValues, join_slots, map_layers, ring_mask
from urt_jax.models.stacked import stacked, unstacked
from urt_jax.models.vlm import VisionLanguageModel, run
from urt_jax.types import Array, Batch, VisionFeatures


class PromptCache(NamedTuple):
    """Keys and values of Q prompts, left-padded to S slots, and the hidden states that choose their next tokens."""

    cache: Cache
    mask_QS: Bool[Array, "Q S"]
    hidden_QD: Float[Array, "Q D"]  # of the last prompt token
    position_Q: Int[Array, " Q"]  # of the first new token
    seen_QV: Bool[Array, "Q V"] | None  # ids of the prompt; None if no row is penalised

    def take(self, index: Int[Array, " some"]) -> "PromptCache":
        """Return the prompts of these indices: a repeated one is forked, one left out is dropped."""
        return self._map(lambda x, axis: jnp.take(x, index, axis=axis))

    def part(self, first: Int[Array, ""], count: int) -> "PromptCache":
        """Return ``count`` consecutive prompts from ``first`` on."""
        return self._map(lambda x, axis: jax.lax.dynamic_slice_in_dim(x, first, count, axis))

    def _map(self, change: Any) -> "PromptCache":
        """Return the cache with ``change(array, axis of the prompts)`` applied to every array."""
        return PromptCache(
            _map_rows(self.cache, change),
            change(jnp.asarray(self.mask_QS), 0),
            change(jnp.asarray(self.hidden_QD), 0),
            change(jnp.asarray(self.position_Q), 0),
            None if self.seen_QV is None else change(jnp.asarray(self.seen_QV), 0),
        )

    def of_groups(self, rows: Rows, plan: Schedule) -> tuple[Cache, Bool[Array, "groups S"]]:
        """Return the prompt caches and masks that the groups of all parts read; a part reads only its own prompts."""
        index_PG = jnp.minimum(rows.question_PG, plan.questions - 1)

        def of_parts(x: Array, axis: int) -> jax.Array:
            apart = x.reshape(*x.shape[:axis], plan.parts, plan.questions, *x.shape[axis + 1 :])
            take = jax.vmap(lambda part, index: jnp.take(part, index, axis=axis), in_axes=(axis, 0), out_axes=axis)
            taken = jnp.asarray(take(apart, index_PG))
            return taken.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])

        return _map_rows(self.cache, of_parts), of_parts(self.mask_QS, 0)

    def seen(self, question: Int[Array, " rows"]) -> Bool[Array, "rows V"] | None:
        """Return a mask of the token ids in each row's prompt, or None if no row is penalised."""
        return None if self.seen_QV is None else self.seen_QV[question]


def _map_rows(cache: Cache, change: Any) -> Cache:
    return map_layers(lambda layers: KeyValues(*(change(x, x.ndim - 4) for x in layers)), cache)


def apart(model: VisionLanguageModel) -> bool:
    """Return whether decoding holds weights and caches layer by layer instead of stacked, which copies the weights.

    It pays off if the model unrolls its layers: they are then split once, not at every token.
    """
    return model.unroll >= model.config.decoder.layers


def prefill(
    model: VisionLanguageModel, params: Any, prompts: Batch, next_position_Q: Int[Array, " Q"], *, penalised: bool
) -> tuple[PromptCache, VisionFeatures | None]:
    """Run Q left-padded prompts; return their cache and the features of their frames.

    With ``penalised`` the cache keeps the prompts' ids, which a repetition penalty needs.
    """
    features = run(model, params, prompts.vision, method="features")
    hidden_QD, cache = run(model, params, prompts, features, method="prefill")
    real_QS = jnp.asarray(prompts.segments_BT) > 0
    cached = PromptCache(
        cache=_laid(model, cache),
        mask_QS=real_QS,
        hidden_QD=hidden_QD,
        position_Q=jnp.asarray(next_position_Q),
        seen_QV=_ids_of(prompts.tokens_BT, real_QS, model.config.decoder.vocab_size) if penalised else None,
    )
    return cached, features


def extend(
    model: VisionLanguageModel,
    params: Any,
    prompts: PromptCache,
    tokens_QU: Int[Array, "Q U"],
    mask_QU: Bool[Array, "Q U"],
) -> PromptCache:
    """Return the prompts, each followed by text tokens, U slots wider; ``tokens_QU`` are left-padded.

    The result equals a prefill of each prompt joined with its tokens. Each row needs at least one token.
    """
    tokens, mask = jnp.asarray(tokens_QU), jnp.asarray(mask_QU)
    place_QU = jnp.cumsum(mask, axis=1) - 1  # of each token among the row's new ones
    position_QU = jnp.asarray(prompts.position_Q)[:, None] + jnp.maximum(place_QU, 0)
    cache = prompts.cache if isinstance(prompts.cache, KeyValues) else stacked(prompts.cache)
    hidden_QD, new = run(model, params, tokens, position_QU, cache, prompts.mask_QS, mask, method="extend")
    seen_QV = prompts.seen_QV
    if seen_QV is not None:
        seen_QV = seen_QV | _ids_of(tokens, mask, seen_QV.shape[1])
    return PromptCache(
        cache=_laid(model, join_slots(cache, new)),
        mask_QS=jnp.concatenate([prompts.mask_QS, mask], axis=1),
        hidden_QD=hidden_QD,
        position_Q=position_QU[:, -1] + 1,
        seen_QV=seen_QV,
    )


def branch(state: DecodeState, rows: Int[Array, " some"], *, group: int) -> PromptCache:
    """Return new prompts from rows of a decoding batch: each row's prompt and its response so far.

    They have the slots of both. ``group`` is the number of consecutive rows that share a prompt. A response's slots may
    be in any order: its keys are already rotated, and the mask marks the slots in use.

    Raises:
        ValueError: responses of the batch wait for rows.
    """
    if state.position_B is None:
        raise ValueError("rows branch only from a batch of `empty`; in this one, responses wait for rows")
    used_B, groups = state.rows.used[rows], rows // group
    ring = ring_mask(used_B, state.step, state.tokens_XU.shape[1])
    prompt = _map_rows(state.prompt, lambda x, axis: jnp.take(x, groups, axis=axis))
    past = _map_rows(state.past, lambda x, axis: jnp.take(x, rows, axis=axis))
    return PromptCache(
        cache=join_slots(prompt, past),
        mask_QS=jnp.concatenate([jnp.asarray(state.prompt_mask_GS)[groups], ring], axis=1),
        hidden_QD=jnp.asarray(state.hidden_BD)[rows],
        position_Q=jnp.asarray(state.position_B)[rows] + used_B,
        seen_QV=None if state.seen_BV is None else jnp.asarray(state.seen_BV)[rows],
    )


def _laid(model: VisionLanguageModel, cache: Cache) -> Cache:
    """Return a cache of stacked layers in the layout that decoding reads."""
    return unstacked(cache, model.config.decoder.layers) if apart(model) else cache


def _ids_of(tokens_QT: Int[Array, "Q T"], real_QT: Bool[Array, "Q T"], vocab_size: int) -> Bool[Array, "Q V"]:
    """Return a mask of the token ids in each row, without padding."""
    tokens = jnp.asarray(tokens_QT)
    row = jnp.arange(len(tokens))[:, None]
    return jnp.zeros((len(tokens), vocab_size), bool).at[row, tokens].max(jnp.asarray(real_QT))

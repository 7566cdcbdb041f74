"""Rows that join and leave a batch while others decode.

A batch is created once with a fixed number of groups of rows. A group reads one prompt; a request takes a free group::

    decoding = empty(...)                                   3 groups of 2 rows, all free
    decoding = join(decoding, 0, prompts, 4, ...)           group 0 reads prompt 4, and both its rows start
    decoding = advance(decoding, until=16)                  16 tokens for every active row
    decoding = join(decoding, 1, others, 0, ...)            group 1 starts, group 0 is at its 17th token
    decoding = leave(decoding, row=1)                       the response of row 1 is cancelled
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from urt_jax.generation.prompt_cache import PromptCache, apart
from urt_jax.generation.schedule import Schedule, first_rows
from urt_jax.generation.state import DecodeState, Decoding, RowSettings, Vocabulary
from urt_jax.models.kv_cache import Cache, KeyValues, init_cache
from urt_jax.models.vlm import VisionLanguageModel
from urt_jax.types import Array


def empty(
    model: VisionLanguageModel, plan: Schedule, vocabulary: Vocabulary, *, prompt_slots: int, slots: int,
    penalised: bool = False,
) -> Decoding:  # fmt: skip
    """Return a batch in which every row is free, for prompts of at most ``prompt_slots`` slots.

    ``plan`` has one row per response, and its questions are the groups. ``slots`` is the longest response.
    With ``penalised``, rows may have a repetition penalty.
    """
    cfg, rows, groups = model.config.decoder, plan.all_rows, plan.parts * plan.groups

    def cache(count: int, width: int) -> Cache:
        return init_cache(
            layers=cfg.layers, rows=count, kv_heads=cfg.kv_heads, slots=width, head_width=cfg.head_width,
            dtype=model.dtype, stacked=not apart(model),
        )  # fmt: skip

    begun = first_rows(plan)
    state = DecodeState(
        step=jnp.int32(0),
        rows=begun._replace(live_PB=jnp.zeros_like(begun.live_PB)),
        hidden_BD=jnp.zeros((rows, cfg.width), model.dtype),
        position_B=jnp.zeros(rows, jnp.int32),
        stop_B=jnp.zeros(rows, jnp.int32),
        seen_BV=jnp.zeros((rows, cfg.vocab_size), bool) if penalised else None,
        prompt=cache(groups, prompt_slots),
        prompt_mask_GS=jnp.zeros((groups, prompt_slots), bool),
        past=cache(rows, slots),
        tokens_XU=jnp.full((rows, slots), vocabulary.pad_id, jnp.int32),
        length_X=jnp.zeros(rows, jnp.int32),
        logp_XU=jnp.zeros((rows, slots), jnp.float32),
        ended_X=jnp.zeros(rows, bool),
    )
    none, zeros = jnp.zeros(rows, jnp.int32), jnp.zeros(rows, jnp.float32)
    settings = RowSettings(zeros, none, zeros + 1, zeros, zeros + 1, none, none)
    return Decoding(jnp.zeros((rows, slots), jnp.float32), settings, state)


def join(
    decoding: Decoding,
    group: Int[Array, ""],
    prompts: PromptCache,
    question: Int[Array, ""],
    draws_RU: Float[Array, "R U"],
    settings: RowSettings,
    wanted_R: Bool[Array, " R"],
    vocabulary: Vocabulary,
) -> Decoding:
    """Return the batch with a prompt assigned to a group; the group's ``wanted_R`` rows start, its others are free.

    The group's former responses are discarded. ``settings`` are those of its R rows.

    Raises:
        ValueError: the prompts have more slots than the batch holds; only one of the two has penalties; or
            responses of the batch wait for rows.
    """
    state = decoding.state
    size, room = len(wanted_R), state.prompt_mask_GS.shape[1] - prompts.mask_QS.shape[1]
    if room < 0:
        raise ValueError(f"prompts of {prompts.mask_QS.shape[1]} slots do not fit a batch that holds {-room} fewer")
    if (state.seen_BV is None) != (prompts.seen_QV is None):
        raise ValueError("prompts and batch must both be made with `penalised`, or both without it")
    if state.position_B is None:
        raise ValueError("rows join only a batch from `empty`; in this one, responses wait for rows")
    one = prompts.take(jnp.asarray(question)[None])
    first = jnp.asarray(group) * size

    def put(whole: Array, part: Array, place: Array = first, axis: int = 0) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(jnp.asarray(whole), jnp.asarray(part), place, axis)

    def repeated(part_1X: Array) -> jax.Array:
        return jnp.repeat(jnp.asarray(part_1X), size, axis=0)

    rows = state.rows
    live = put(rows.live_PB.reshape(-1), wanted_R).reshape(rows.live_PB.shape)
    used = put(rows.used_PB.reshape(-1), jnp.zeros(size, rows.used_PB.dtype)).reshape(rows.used_PB.shape)
    slots = state.tokens_XU.shape[1]
    begun = state._replace(
        rows=rows._replace(live_PB=live, used_PB=used),
        hidden_BD=put(state.hidden_BD, repeated(one.hidden_QD)),
        position_B=put(state.position_B, repeated(one.position_Q)),
        stop_B=put(state.stop_B, settings.stop_B),
        seen_BV=None if state.seen_BV is None else put(state.seen_BV, repeated(one.seen_QV)),  # type: ignore[arg-type]
        prompt=_with_prompt(state.prompt, one.cache, jnp.asarray(group), room),
        prompt_mask_GS=put(state.prompt_mask_GS, jnp.pad(one.mask_QS, ((0, 0), (room, 0))), jnp.asarray(group)),
        tokens_XU=put(state.tokens_XU, jnp.full((size, slots), vocabulary.pad_id, jnp.int32)),
        length_X=put(state.length_X, jnp.zeros(size, jnp.int32)),
        logp_XU=put(state.logp_XU, jnp.zeros((size, slots), jnp.float32)),
        ended_X=put(state.ended_X, jnp.zeros(size, bool)),
    )
    put_settings = RowSettings(*(put(whole, part) for whole, part in zip(decoding.settings, settings, strict=True)))
    return Decoding(put(decoding.draws_XU, draws_RU), put_settings, begun)


def leave(decoding: Decoding, row: Int[Array, ""]) -> Decoding:
    """Return the batch with a row freed: its response keeps the tokens so far and gets no more."""
    rows = decoding.state.rows
    live = jnp.asarray(rows.live_PB).reshape(-1).at[row].set(False).reshape(rows.live_PB.shape)
    return decoding._replace(state=decoding.state._replace(rows=rows._replace(live_PB=live)))


def _with_prompt(held: Cache, one: Cache, group: Array, room: int) -> Cache:
    """Return the prompt cache with a group's prompt replaced; the new one is left-padded by ``room`` slots."""
    if not isinstance(held, KeyValues):
        assert not isinstance(one, KeyValues)
        return tuple(_with_prompt(a, b, group, room) for a, b in zip(held, one, strict=True))  # type: ignore[misc]

    def put(whole: jax.Array, part: jax.Array, slot_axis: int) -> jax.Array:
        widths = [(0, 0)] * part.ndim
        widths[slot_axis] = (room, 0)
        return jax.lax.dynamic_update_slice_in_dim(whole, jnp.pad(part, widths), group, whole.ndim - 4)

    assert isinstance(one, KeyValues)
    return KeyValues(put(held.key, one.key, -1), put(held.value, one.value, -2))

"""The decoding loop on the device, over prompts prefilled once; no row is idle while a response waits.

1. ``start`` assigns the first responses to rows, which are grouped by question;
2. ``advance`` decodes: each row chooses a token and runs it through the model. A row whose response has ended takes the
   question's next response; a group whose question has none left takes the next question.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Integer, Key

from urt_jax.generation.prompt_cache import PromptCache, apart
from urt_jax.generation.schedule import Schedule, first_rows, refill
from urt_jax.generation.state import Completions, DecodeState, RowSettings, Vocabulary
from urt_jax.models.kv_cache import init_cache, ring_mask
from urt_jax.models.vlm import VisionLanguageModel, run, unstack_layers
from urt_jax.ops.logprobs import temper_logits
from urt_jax.ops.token_choice import choose_token, filter_logits, penalise_repetition
from urt_jax.types import Array


def row_keys(
    seed_B: Integer[Array, " B"],
    step: Int[Array, ""],
    question_B: Integer[Array, " B"],
    response_B: Integer[Array, " B"],
) -> Key[jax.Array, " B"]:
    """Return one key per row, from (seed, step, question id, response index) alone.

    A row therefore draws the same numbers whatever the other rows of the batch are.
    """
    fold = jax.vmap(jax.random.fold_in)
    per_step_B = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), step))(seed_B)
    return fold(fold(per_step_B, question_B), response_B)


def token_draws(keys_B: Key[jax.Array, " B"], tokens: int) -> Float[Array, "B U"]:
    """Return one uniform number in (0, 1] per row and token, by which the row chooses the token."""
    each = jax.vmap(lambda key: jax.vmap(lambda token: jax.random.fold_in(key, token))(jnp.arange(tokens)))
    return 1.0 - jax.vmap(jax.vmap(jax.random.uniform))(each(keys_B))


def start(
    model: VisionLanguageModel,
    prompts: PromptCache,
    plan: Schedule,
    settings: RowSettings,
    vocabulary: Vocabulary,
    *,
    slots: int,
) -> DecodeState:
    """Return the state before every row chooses the first token of its first response."""
    rows, cfg, total = first_rows(plan), model.config.decoder, plan.all_responses
    question_B = rows.questions(plan)
    past = init_cache(
        layers=cfg.layers, rows=plan.all_rows, kv_heads=cfg.kv_heads, slots=slots, head_width=cfg.head_width,
        dtype=model.dtype, stacked=not apart(model),
    )  # fmt: skip
    prompt, prompt_mask = (prompts.cache, prompts.mask_QS) if plan.all_at_once else prompts.of_groups(rows, plan)
    return DecodeState(
        step=jnp.int32(0),
        rows=rows,
        hidden_BD=prompts.hidden_QD[question_B],
        position_B=prompts.position_Q[question_B] if plan.all_at_once else None,
        stop_B=jnp.asarray(settings.stop_B)[rows.places(plan)],
        seen_BV=prompts.seen(question_B),
        prompt=prompt,
        prompt_mask_GS=prompt_mask,
        past=past,
        tokens_XU=jnp.full((total, slots), vocabulary.pad_id, jnp.int32),
        length_X=jnp.zeros(total, jnp.int32),
        logp_XU=jnp.zeros((total, slots), jnp.float32),
        ended_X=jnp.zeros(total, bool),
    )


def advance(
    model: VisionLanguageModel,
    params: Any,
    prompts: PromptCache | None,
    plan: Schedule,
    draws_XU: Float[Array, "X U"],
    settings: RowSettings,
    vocabulary: Vocabulary,
    state: DecodeState,
    until: Int[Array, ""],
) -> DecodeState:
    """Decode until all responses have ended, or ``state.step`` is ``until``.

    The sampled tokens depend neither on the number of rows nor on ``until``. ``prompts`` are needed if responses wait
    for rows; None if every response has a row.
    """
    params = unstack_layers(model.config, params) if apart(model) else params
    total, slots = draws_XU.shape

    def unfinished(state: DecodeState) -> Array:
        return (jnp.asarray(state.step) < until) & jnp.asarray(state.rows.live_PB).any()

    def one_token(state: DecodeState) -> DecodeState:
        rows, live_B, used_B = state.rows, state.rows.live, state.rows.used
        place_B = rows.places(plan)  # index of each row's response among all, past the end for idle rows
        mine_B = jnp.minimum(place_B, total - 1)
        own = settings.of_rows(mine_B)
        token_B, logp_B = _choose(
            run(model, params, state.hidden_BD, method="logits"),
            state,
            draws_XU[mine_B, jnp.minimum(used_B, slots - 1)],
            own,
            vocabulary,
        )
        token_B = jnp.where(live_B, token_B, vocabulary.pad_id)
        first_B = state.position_B if prompts is None or plan.all_at_once else prompts.position_Q[rows.questions(plan)]
        position_B = jnp.asarray(first_B) + used_B
        positions = jnp.broadcast_to(position_B[None], (3, plan.all_rows))
        caches = (state.prompt, state.past, jnp.asarray(state.step) % slots)
        masks = (state.prompt_mask_GS, ring_mask(used_B + 1, state.step + 1, slots))
        hidden_BD, past = run(model, params, token_B, positions, *caches, *masks, method="decode")
        stop_B, at_end_B = _at_end(vocabulary, state.stop_B, token_B)
        done_B = live_B & (at_end_B | (used_B + 1 >= own.max_new_tokens_B))
        state = _recorded(state, place_B, token_B, logp_B, at_end_B)._replace(
            step=state.step + 1,
            rows=rows.after_token(done_B),
            hidden_BD=hidden_BD,
            stop_B=stop_B,
            past=past,
        )
        if prompts is None or plan.all_at_once:
            return state
        return _refilled(state, prompts, plan, settings, jnp.asarray(done_B).any())

    return jax.lax.while_loop(unfinished, one_token, state)


def _at_end(
    vocabulary: Vocabulary, stop_B: Int[Array, " B"], token_B: Int[Array, " B"]
) -> tuple[Int[Array, " B"], Bool[Array, " B"]]:
    """Return each row's state of the stop automaton after its token, and whether that token ends its response."""
    stop_B = jnp.asarray(vocabulary.stops.next_SV)[stop_B, token_B].astype(jnp.int32)
    at_end_B = (token_B[:, None] == vocabulary.end_ids[None]).any(axis=1)
    return stop_B, at_end_B | jnp.asarray(vocabulary.stops.found_S)[stop_B]


def _recorded(
    state: DecodeState,
    place_B: Int[Array, " B"],
    token_B: Int[Array, " B"],
    logp_B: Float[Array, " B"],
    at_end_B: Bool[Array, " B"],
) -> DecodeState:
    """Return the state with each row's token added to its response; the ``place_B`` of an idle row is past the end."""
    used_B = state.rows.used

    def put(written: Array, new: Any, *place: Array) -> Array:
        return jnp.asarray(written).at[place_B, *place].set(new, mode="drop")

    seen_BV = state.seen_BV
    if seen_BV is not None:
        seen_BV = jnp.asarray(seen_BV).at[jnp.arange(len(token_B)), token_B].max(state.rows.live)
    return state._replace(
        seen_BV=seen_BV,
        tokens_XU=put(state.tokens_XU, token_B, used_B),
        length_X=put(state.length_X, used_B + 1),
        logp_XU=put(state.logp_XU, logp_B, used_B),
        ended_X=put(state.ended_X, at_end_B),
    )


def _refilled(
    state: DecodeState, prompts: PromptCache, plan: Schedule, settings: RowSettings, some: Bool[Array, ""]
) -> DecodeState:
    """If ``some`` rows are free, assign their next responses, and the next questions to groups that have finished."""

    def turned() -> DecodeState:
        rows, fresh_B = refill(state.rows, plan)
        question_B = rows.questions(plan)
        seen_BV, of_prompt = state.seen_BV, prompts.seen(question_B)
        stop_B = jnp.asarray(settings.stop_B)[jnp.minimum(rows.places(plan), plan.all_responses - 1)]
        if seen_BV is not None and of_prompt is not None:
            seen_BV = jnp.where(fresh_B[:, None], of_prompt, seen_BV)
        moved = (rows.question_PG != state.rows.question_PG).any()
        prompt, prompt_mask = jax.lax.cond(
            moved, lambda: prompts.of_groups(rows, plan), lambda: (state.prompt, state.prompt_mask_GS)
        )
        return state._replace(
            rows=rows,
            hidden_BD=jnp.where(fresh_B[:, None], prompts.hidden_QD[question_B], state.hidden_BD),
            stop_B=jnp.where(fresh_B, stop_B, state.stop_B),
            seen_BV=seen_BV,
            prompt=prompt,
            prompt_mask_GS=prompt_mask,
        )

    return jax.lax.cond(some, turned, lambda: state)


def _choose(
    logits_BV: Float[Array, "B V"],
    state: DecodeState,
    draw_B: Float[Array, " B"],
    settings: RowSettings,
    vocabulary: Vocabulary,
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """Choose the next token of each row and return its log-probability before any truncating filter."""
    if state.seen_BV is not None:
        logits_BV = penalise_repetition(logits_BV, state.seen_BV, settings.repetition_penalty_B)
    tempered_BV = temper_logits(logits_BV, settings.temperature_B, vocabulary.suppressed_V)
    filtered_BV = filter_logits(
        logits_BV,
        temperature_B=settings.temperature_B,
        top_k_B=settings.top_k_B,
        top_p_B=settings.top_p_B,
        min_p_B=settings.min_p_B,
        suppress_V=vocabulary.suppressed_V,
    )
    return choose_token(draw_B, filtered_BV, tempered_BV)


def completions_of(state: DecodeState) -> Completions:
    """Return the responses sampled so far."""
    mask_XU = jnp.arange(state.tokens_XU.shape[1])[None] < state.length_X[:, None]
    return Completions(state.tokens_XU, mask_XU, state.logp_XU, state.ended_X, state.step)

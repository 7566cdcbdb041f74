"""The sampling program: prefill every question once, then decode its responses on the device, rows never left idle.

1. ``prefill`` encodes the frames and runs the Q prompts; their keys and values are stored once per question;
2. a number of rows decodes, in groups of one question; each chooses a token, writes it, runs it through the model;
3. a row whose response ended takes the question's next response, a group without any takes the next question.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Integer, Key

from urt_jax.generation.schedule import Schedule, first_rows, refill
from urt_jax.generation.state import Completions, DecodeState, SamplingSettings, Vocabulary
from urt_jax.models.kv_cache import PromptCache, init_response_cache, ring_mask, write_token
from urt_jax.models.vlm import VisionLanguageModel, run
from urt_jax.ops.logprobs import temper_logits
from urt_jax.ops.token_choice import choose_token, filter_logits, penalise_repetition
from urt_jax.types import Array, Batch


def row_keys(
    rng: Key[jax.Array, ""], step: Int[Array, ""], question_B: Integer[Array, " B"], response_B: Integer[Array, " B"]
) -> Key[jax.Array, " B"]:
    """Return one key per row from (seed, step, question id, response index) and nothing else.

    A row therefore draws the same numbers whatever stands beside it in the batch.
    """
    per_step = jax.random.fold_in(rng, step)
    fold = jax.vmap(jax.random.fold_in)
    return fold(jax.vmap(lambda question: jax.random.fold_in(per_step, question))(question_B), response_B)


def sample_responses(
    model: VisionLanguageModel,
    params: Any,
    prompts: Batch,
    next_position_Q: Int[Array, " Q"],
    keys_B: Key[jax.Array, " B"],
    settings: SamplingSettings,
    vocabulary: Vocabulary,
    *,
    slots: int,
    penalised: bool = False,
    rows: int | None = None,
) -> Completions:
    """Sample ``B / Q`` responses to each of Q left-padded prompts, at most ``slots`` tokens each.

    At most ``rows`` responses (by default all) are decoded at a time; what is sampled does not depend on it.
    ``penalised`` says that the settings' repetition penalty is to be applied, for which ids are kept track of.
    """
    hidden, cache = run(model, params, prompts, keep_cache=True, method="hidden")
    questions, total = hidden.shape[0], keys_B.shape[0]
    plan = Schedule.of(questions=questions, responses=total // questions, rows=total if rows is None else rows)
    asked = _Asked(
        cache=cache,
        mask_QS=jnp.asarray(prompts.segments_BT) > 0,
        hidden_QD=hidden[:, -1],
        position_Q=jnp.asarray(next_position_Q),
        seen_QV=_ids_of(prompts, model.config.decoder.vocab_size) if penalised else None,
    )
    return _decode(model, params, asked, plan, keys_B, settings, vocabulary, slots=slots)


class _Asked(NamedTuple):
    """What is known of all questions after the prefill."""

    cache: PromptCache
    mask_QS: Array
    hidden_QD: Array
    position_Q: Array
    seen_QV: Array | None

    def of_groups(self, question_G: Int[Array, " G"]) -> tuple[PromptCache, Array]:
        """Return the prompt caches and masks that the groups read."""
        cache = PromptCache(self.cache.key_LQKSH[:, question_G], self.cache.value_LQKSH[:, question_G])
        return cache, self.mask_QS[question_G]

    def seen(self, question_B: Int[Array, " B"]) -> Array | None:
        """Return which ids the prompts of these rows hold."""
        return None if self.seen_QV is None else self.seen_QV[question_B]


def _ids_of(prompts: Batch, vocab_size: int) -> Bool[Array, "Q V"]:
    """Return which ids each prompt holds, padding apart."""
    tokens = jnp.asarray(prompts.tokens_BT)
    row = jnp.arange(len(tokens))[:, None]
    return jnp.zeros((len(tokens), vocab_size), bool).at[row, tokens].max(jnp.asarray(prompts.segments_BT) > 0)


def _start(
    model: VisionLanguageModel, asked: _Asked, plan: Schedule, vocabulary: Vocabulary, *, slots: int
) -> DecodeState:
    rows, cfg, total = first_rows(plan), model.config.decoder, plan.questions * plan.responses
    cache = init_response_cache(
        layers=cfg.layers, rows=plan.rows, kv_heads=cfg.kv_heads, slots=slots, head_width=cfg.head_width,
        dtype=model.dtype,
    )  # fmt: skip
    prompt, prompt_mask = (asked.cache, asked.mask_QS) if plan.all_at_once else asked.of_groups(rows.question_G)
    return DecodeState(
        step=jnp.int32(0),
        rows=rows,
        hidden_BD=asked.hidden_QD[rows.question_B(plan)],
        stop_B=jnp.zeros(plan.rows, jnp.int32),
        seen_BV=asked.seen(rows.question_B(plan)),
        prompt=prompt,
        prompt_mask_GS=prompt_mask,
        cache=cache,
        tokens_XU=jnp.full((total, slots), vocabulary.pad_id, jnp.int32),
        mask_XU=jnp.zeros((total, slots), bool),
        logp_XU=jnp.zeros((total, slots), jnp.float32),
    )


def _decode(
    model: VisionLanguageModel,
    params: Any,
    asked: _Asked,
    plan: Schedule,
    keys_X: Key[jax.Array, " X"],
    settings: SamplingSettings,
    vocabulary: Vocabulary,
    *,
    slots: int,
) -> Completions:
    def unfinished(state: DecodeState) -> Array:
        return jnp.asarray(state.rows.live_B).any()

    def one_token(state: DecodeState) -> DecodeState:
        rows = state.rows
        place_B = rows.place_B(plan)  # of each row's response among all, past the end for idle rows
        mine_B = jnp.minimum(place_B, len(keys_X) - 1)
        chosen = SamplingSettings(*(part[mine_B] if part.ndim else part for part in map(jnp.asarray, settings)))
        logits_BV = run(model, params, state.hidden_BD, method="logits")
        token_B, logp_B = _choose(logits_BV, state, keys_X[mine_B], chosen, vocabulary)
        token_B = jnp.where(rows.live_B, token_B, vocabulary.pad_id)
        position_B = asked.position_Q[rows.question_B(plan)] + rows.used_B
        hidden_BD, new = run(
            model,
            params,
            token_B,
            jnp.broadcast_to(position_B[None], (3, plan.rows)),
            state.prompt,
            state.cache,
            state.prompt_mask_GS,
            ring_mask(jnp.asarray(rows.used_B), jnp.asarray(state.step), slots),
            method="decode",
        )
        stop_B = jnp.asarray(vocabulary.stops.next_SV)[state.stop_B, token_B].astype(jnp.int32)
        at_end_B = (token_B[:, None] == vocabulary.end_ids[None]).any(axis=1)
        at_end_B = at_end_B | jnp.asarray(vocabulary.stops.found_S)[stop_B]
        ended_B = jnp.asarray(rows.live_B) & (at_end_B | (rows.used_B + 1 >= settings.max_new_tokens))

        def put(written_XU: Array, new: Any) -> Array:
            return jnp.asarray(written_XU).at[place_B, rows.used_B].set(new, mode="drop")

        seen_BV = state.seen_BV
        if seen_BV is not None:
            seen_BV = jnp.asarray(seen_BV).at[jnp.arange(plan.rows), token_B].max(rows.live_B)
        state = state._replace(
            step=state.step + 1,
            rows=rows.after_token(ended_B),
            hidden_BD=hidden_BD,
            stop_B=stop_B,
            seen_BV=seen_BV,
            cache=write_token(state.cache, new, jnp.asarray(state.step) % slots),
            tokens_XU=put(state.tokens_XU, token_B),
            mask_XU=put(state.mask_XU, True),
            logp_XU=put(state.logp_XU, logp_B),
        )
        if plan.all_at_once:
            return state
        return jax.lax.cond(ended_B.any(), lambda: _refilled(state, asked, plan), lambda: state)

    end = jax.lax.while_loop(unfinished, one_token, _start(model, asked, plan, vocabulary, slots=slots))
    return Completions(end.tokens_XU, end.mask_XU, end.logp_XU, end.step)


def _refilled(state: DecodeState, asked: _Asked, plan: Schedule) -> DecodeState:
    """Give free rows their next response and groups that are through their next question."""
    rows, fresh_B = refill(state.rows, plan)
    question_B = rows.question_B(plan)
    seen_BV, of_prompt = state.seen_BV, asked.seen(question_B)
    if seen_BV is not None and of_prompt is not None:
        seen_BV = jnp.where(fresh_B[:, None], of_prompt, seen_BV)

    def turned() -> tuple[PromptCache, Array]:
        return asked.of_groups(jnp.minimum(rows.question_G, plan.questions - 1))

    moved = (rows.question_G != state.rows.question_G).any()
    prompt, prompt_mask = jax.lax.cond(moved, turned, lambda: (state.prompt, state.prompt_mask_GS))
    return state._replace(
        rows=rows,
        hidden_BD=jnp.where(fresh_B[:, None], asked.hidden_QD[question_B], state.hidden_BD),
        stop_B=jnp.where(fresh_B, 0, state.stop_B),
        seen_BV=seen_BV,
        prompt=prompt,
        prompt_mask_GS=prompt_mask,
    )


def _choose(
    logits_BV: Float[Array, "B V"],
    state: DecodeState,
    keys_B: Key[jax.Array, " B"],
    settings: SamplingSettings,
    vocabulary: Vocabulary,
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """Choose the next token of each row and return its log-probability before any truncating filter."""
    keys_B = jax.vmap(jax.random.fold_in)(keys_B, state.rows.used_B)
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
    return choose_token(keys_B, filtered_BV, tempered_BV)

"""The sampling program: prefill every question once, then decode its responses together on the device.

1. ``prefill`` encodes the frames and runs the Q prompts; their keys and values are stored once per question;
2. ``decode`` chooses a token from the last hidden state, writes it, runs it through the model, until every row ended.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Integer, Key

from urt_jax.generation.state import Completions, DecodeState, SamplingSettings, Vocabulary
from urt_jax.models.kv_cache import PromptCache, init_response_cache, write_token
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
) -> Completions:
    """Sample ``B / Q`` responses to each of Q left-padded prompts, at most ``slots`` tokens each.

    ``penalised`` says that the settings' repetition penalty is to be applied, for which ids are kept track of.
    """
    hidden, prompt_cache = run(model, params, prompts, keep_cache=True, method="hidden")
    responses = keys_B.shape[0] // hidden.shape[0]
    last_BD = jnp.repeat(hidden[:, -1], responses, axis=0)
    seen_BV = jnp.repeat(_ids_of(prompts, model.config.decoder.vocab_size), responses, axis=0) if penalised else None
    return _decode(
        model,
        params,
        prompt_cache,
        prompts.segments_BT > 0,
        jnp.repeat(next_position_Q, responses),
        last_BD,
        keys_B,
        settings,
        vocabulary,
        seen_BV,
        slots=slots,
    )


def _ids_of(prompts: Batch, vocab_size: int) -> Bool[Array, "Q V"]:
    """Return which ids each prompt holds, padding apart."""
    tokens = jnp.asarray(prompts.tokens_BT)
    row = jnp.arange(len(tokens))[:, None]
    return jnp.zeros((len(tokens), vocab_size), bool).at[row, tokens].max(jnp.asarray(prompts.segments_BT) > 0)


def _decode(
    model: VisionLanguageModel,
    params: Any,
    prompt: PromptCache,
    prompt_mask_QS: Array,
    next_position_B: Int[Array, " B"],
    hidden_BD: Float[Array, "B D"],
    keys_B: Key[jax.Array, " B"],
    settings: SamplingSettings,
    vocabulary: Vocabulary,
    seen_BV: Array | None,
    *,
    slots: int,
) -> Completions:
    rows, cfg = hidden_BD.shape[0], model.config.decoder
    cache = init_response_cache(
        layers=cfg.layers, rows=rows, kv_heads=cfg.kv_heads, slots=slots, head_width=cfg.head_width, dtype=model.dtype
    )
    state = DecodeState(
        step=jnp.int32(0),
        hidden_BD=hidden_BD,
        done_B=jnp.zeros(rows, bool),
        cache=cache,
        tokens_BU=jnp.full((rows, slots), vocabulary.pad_id, jnp.int32),
        mask_BU=jnp.zeros((rows, slots), bool),
        logp_BU=jnp.zeros((rows, slots), jnp.float32),
        keys_B=keys_B,
        stop_B=jnp.zeros(rows, jnp.int32),
        seen_BV=seen_BV,
    )

    def unfinished(state: DecodeState) -> Array:
        return (state.step < settings.max_new_tokens) & ~state.done_B.all()

    def one_token(state: DecodeState) -> DecodeState:
        logits_BV = run(model, params, state.hidden_BD, method="logits")
        token_B, logp_B = _choose(logits_BV, state, settings, vocabulary)
        live_B = ~state.done_B
        token_B = jnp.where(live_B, token_B, vocabulary.pad_id)
        hidden_BD, new = run(
            model,
            params,
            token_B,
            jnp.broadcast_to((next_position_B + state.step)[None], (3, rows)),
            prompt,
            state.cache,
            prompt_mask_QS,
            jnp.arange(slots) < state.step,
            method="decode",
        )
        stop_B = jnp.asarray(vocabulary.stops.next_SV)[state.stop_B, token_B].astype(jnp.int32)
        ended_B = (token_B[:, None] == vocabulary.end_ids[None]).any(axis=1)
        ended_B = ended_B | jnp.asarray(vocabulary.stops.found_S)[stop_B]
        seen_BV = state.seen_BV
        if seen_BV is not None:
            seen_BV = jnp.asarray(seen_BV).at[jnp.arange(rows), token_B].max(live_B)
        return DecodeState(
            step=state.step + 1,
            hidden_BD=hidden_BD,
            done_B=state.done_B | ended_B,
            cache=write_token(state.cache, new, jnp.asarray(state.step)),
            tokens_BU=jax.lax.dynamic_update_index_in_dim(state.tokens_BU, token_B, state.step, 1),
            mask_BU=jax.lax.dynamic_update_index_in_dim(state.mask_BU, live_B, state.step, 1),
            logp_BU=jax.lax.dynamic_update_index_in_dim(state.logp_BU, jnp.where(live_B, logp_B, 0.0), state.step, 1),
            keys_B=state.keys_B,
            stop_B=jnp.where(live_B, stop_B, state.stop_B),
            seen_BV=seen_BV,
        )

    end = jax.lax.while_loop(unfinished, one_token, state)
    return Completions(end.tokens_BU, end.mask_BU, end.logp_BU)


def _choose(
    logits_BV: Float[Array, "B V"], state: DecodeState, settings: SamplingSettings, vocabulary: Vocabulary
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """Choose the next token of each row and return its log-probability before any truncating filter."""
    keys_B = jax.vmap(jax.random.fold_in, (0, None))(state.keys_B, state.step)
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

"""The saving by a shared prompt: the gradient of the policy loss of one question, by its number of responses.

The ordinary gradient repeats the prompt in the row of every response; the shared one runs the prompt once. Both encode
the pictures once, so the comparison is of the decoder's work. The case checks that the losses are equal.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from urt_jax.data.collate import collate_prompts, join_completions, length_of, need_of
from urt_jax.families.processor import padding_of
from urt_jax.losses.policy import PolicyLoss
from urt_jax.models.vlm import VisionLanguageModel, run
from urt_jax.ops.logprobs import chosen_logps
from urt_jax.planning.cases import Seconds, Setting, open_training
from urt_jax.planning.roofline import BACKWARD, causal_pairs, decoder_flops, head_weights, picture_flops, update_work
from urt_jax.planning.workloads import Workload, blank_processor, encode, random_ids, random_pictures
from urt_jax.training.rollout import make_grpo_batch
from urt_jax.training.state import Params, merge_params
from urt_jax.training.steps import (
    CHUNK,
    CompletionScores,
    GrpoBatch,
    score_completions,
    scored_policy_loss,
)
from urt_jax.types import Batch, Rollout

RESPONSES = (1, 2, 4, 8, 16)
LOSS = PolicyLoss(kl_coef=0.0)


def prefix_flops(work: Workload, responses: int) -> tuple[float, float]:
    """Return the operations of the shared and the ordinary gradient for one question; both encode its pictures once."""
    rows, decoder = replace(work.rows, questions=1, responses=responses), work.config.decoder
    length = rows.prompt_tokens + rows.new_tokens
    row = decoder_flops(decoder, tokens=length, pairs=causal_pairs(length))
    row += 2 * rows.new_tokens * head_weights(decoder)
    ordinary = (1 + BACKWARD) * responses * row + picture_flops(work)
    return update_work(replace(work, rows=rows), itemsize=4).flops + picture_flops(work), ordinary


class PrefixCase:
    """Both gradients for each number of responses, in turn; phases are ``shared R`` and ``ordinary R``."""

    def __init__(self, setting: Setting) -> None:
        loaded, self._state, _ = open_training(setting)
        self._model = loaded.module(dtype=setting.dtype, remat=setting.remat)
        self._suppressed = np.zeros(setting.work.config.decoder.vocab_size, bool)
        self._shared, self._ordinary = (jax.jit(jax.value_and_grad(fn)) for fn in (self._of_groups, self._of_rows))
        self._inputs = {count: _inputs(setting, count) for count in RESPONSES}

    def repeat(self) -> Seconds:
        """Compute every gradient once.

        Raises:
            AssertionError: the two losses differ.
        """
        seconds: Seconds = {}
        began, cpu = time.perf_counter(), time.process_time()
        for count, (batch, joined) in self._inputs.items():
            shared, seconds[f"shared {count}"] = self._timed(self._shared, batch)
            ordinary, seconds[f"ordinary {count}"] = self._timed(self._ordinary, batch, joined)
            np.testing.assert_allclose(shared, ordinary, rtol=1e-3)
        return {**seconds, "wall": time.perf_counter() - began, "cpu": time.process_time() - cpu}

    def _timed(self, gradient: Callable[..., Any], *inputs: Any) -> tuple[float, float]:
        then = time.perf_counter()
        loss, _ = jax.block_until_ready(gradient(self._state.trainable, *inputs))
        return float(loss), time.perf_counter() - then

    def _of_groups(self, trainable: Params, batch: GrpoBatch) -> jax.Array:
        params = merge_params(trainable, self._state.frozen)
        scores = score_completions(self._model, params, batch.rows, batch.temperature, self._suppressed)
        return _loss(scores, batch)

    def _of_rows(self, trainable: Params, batch: GrpoBatch, joined: Batch) -> jax.Array:
        params = merge_params(trainable, self._state.frozen)
        return _loss(_ordinary_scores(self._model, params, batch, joined, self._suppressed), batch)


def _loss(scores: CompletionScores, batch: GrpoBatch) -> jax.Array:
    """Return the policy loss of a second update, whose value is informative: in the first every ratio is 1."""
    total, denominator, _ = scored_policy_loss(scores, batch, LOSS, first_update=False)
    return jnp.asarray(total / denominator)


def _ordinary_scores(
    model: VisionLanguageModel, params: Params, batch: GrpoBatch, joined: Batch, suppressed_V: np.ndarray
) -> CompletionScores:
    """Score responses in rows that each repeat their prompt."""
    hidden = run(model, params, joined, method="hidden")
    width = batch.rows.tokens_BU.shape[1]
    head = run(model, params, method="head_weight").astype(model.dtype)
    before, targets = hidden[:, -width - 1 : -1], jnp.asarray(batch.rows.tokens_BU)
    return CompletionScores(
        *chosen_logps(before, head, targets, temperature=batch.temperature, chunk=CHUNK, suppress_V=suppressed_V)
    )


def _inputs(setting: Setting, responses: int) -> tuple[GrpoBatch, Batch]:
    """Return one question with random responses, and the same as rows that repeat the prompt."""
    work, rng = setting.work, np.random.default_rng(setting.seed)
    words = random_ids(work, rng, (1, work.text_tokens()))
    chats = [encode(work, w, p, name="random") for w, p in zip(words, random_pictures(work, rng, 1))]
    tokens = random_ids(work, rng, (responses, work.rows.new_tokens)).astype(np.int32)
    bucket = need_of([length_of(chat) for chat in chats], rows=1)
    prompts = collate_prompts(chats, bucket=bucket, **padding_of(blank_processor(work.config)))
    position, mask = np.array([chat.next_position for chat in chats], np.int32), np.ones(tokens.shape, bool)
    old = np.full(tokens.shape, -np.log(work.config.decoder.vocab_size), np.float32)
    rollout = Rollout(prompts, position, tokens, mask, old, np.ones(responses, bool), ("",) * responses)
    batch = make_grpo_batch(rollout, rng.normal(size=responses).astype(np.float32), temperature=1.0)
    return batch._replace(old_logp_BU=old), join_completions(prompts, position, tokens, mask)

"""A step in pieces is the step of the whole batch: value, metrics, and how far every parameter moves."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from tests.tiny import MODEL, as_jnp, tiny_params
from tests.training.tiny_training import (
    GRPO,
    PLAIN,
    RESPONSES,
    SUPPRESSED,
    TEMPERATURE,
    TRAINED,
    assert_close,
    grpo_batch,
    one_device,
    sft_batch,
)
from urt_jax.losses.grpo import OBJECTIVES
from urt_jax.losses.policy import PolicyLoss
from urt_jax.models.tuning import CPU
from urt_jax.sharding.mesh import make_mesh
from urt_jax.sharding.placement import place_rows, place_state
from urt_jax.training.compile import compile_grpo_step, compile_score_step, compile_sft_step
from urt_jax.training.pieces import default_pieces, piece_of
from urt_jax.training.state import TrainState, init_state
from urt_jax.training.steps import CompletionScores, GrpoBatch, scored_policy_loss

PAIRS = 2  # of questions, so 4 groups
WHOLE = (*TRAINED, r"^vision/")
EVERY_TERM = {"kl_coef": 0.1, "kl_kind": "k2", "importance_cap": 1.1, "entropy_coef": 0.3}
LONGEST = 9  # response allowed


def fresh(trained: tuple[str, ...], mesh: Mesh) -> TrainState:
    return place_state(mesh, init_state(as_jnp(tiny_params()), PLAIN, trained))


@cache
def uneven_batch() -> GrpoBatch:
    """Return a rollout whose old, reference and sampler's log-probabilities are all off, of groups of all lengths."""
    rng = np.random.default_rng(2)
    batch = grpo_batch(rng.normal(size=16), PAIRS)
    off = (0.2 * rng.normal(size=(3, *batch.old_logp_BU.shape))).astype(np.float32)
    mask = np.array(batch.rows.mask_BU)
    mask[5] = False  # a row without any token
    return batch._replace(
        rows=batch.rows._replace(mask_BU=mask),
        sampler_logp_BU=np.asarray(batch.sampler_logp_BU) + off[0],
        ref_logp_BU=np.asarray(batch.ref_logp_BU) + off[1],
        old_logp_BU=np.asarray(batch.old_logp_BU) + off[2],
    )


def grpo_in(pieces: int, loss: PolicyLoss, trained: tuple[str, ...] = TRAINED, mesh: Mesh | None = None) -> Any:
    """Return the parameters and figures after one later update."""
    mesh = mesh or one_device()
    state = fresh(trained, mesh)
    step = compile_grpo_step(
        MODEL, PLAIN, state, mesh, loss, first_update=False, max_tokens=LONGEST, micro_batches=pieces
    )
    return jax.device_get(step(state, place_rows(mesh, uneven_batch()), SUPPRESSED))


def sft_in(pieces: int, trained: tuple[str, ...] = TRAINED, mesh: Mesh | None = None) -> Any:
    mesh = mesh or one_device()
    state = fresh(trained, mesh)
    step = compile_sft_step(MODEL, PLAIN, state, mesh, micro_batches=pieces)
    return jax.device_get(step(state, place_rows(mesh, sft_batch())))


@pytest.mark.parametrize("kind", sorted(OBJECTIVES))
def test_sums_and_gradients_of_every_loss_add_up(kind: str) -> None:
    """Of one question at a time, on scores that need no model."""
    batch, loss = uneven_batch(), replace(GRPO, loss=kind, **EVERY_TERM)
    rng = np.random.default_rng(4)
    logp = np.asarray(batch.old_logp_BU) + 0.3 * rng.normal(size=batch.old_logp_BU.shape).astype(np.float32)
    scores = CompletionScores(logp, rng.uniform(1, 3, logp.shape).astype(np.float32))

    def total(scores: CompletionScores, batch: GrpoBatch, whole: GrpoBatch | None) -> Any:
        return scored_policy_loss(scores, batch, loss, first_update=False, max_tokens=LONGEST, whole=whole)[0]

    value, gradient = jax.value_and_grad(total)(scores, batch, None)
    parts = []
    for number in range(4):
        mine = slice(number * RESPONSES, (number + 1) * RESPONSES)
        piece = piece_of(batch, jnp.int32(number), 4)
        np.testing.assert_array_equal(piece.advantage_B, batch.advantage_B[mine])
        parts.append(jax.value_and_grad(total)(CompletionScores(*(x[mine] for x in scores)), piece, batch))
    np.testing.assert_allclose(sum(part for part, _ in parts), value, rtol=1e-5)
    for found, wanted in zip(zip(*(part for _, part in parts)), gradient):
        np.testing.assert_allclose(np.concatenate(found), wanted, atol=1e-6)


def test_a_policy_step_in_pieces() -> None:
    """With every term, the tower trained too."""
    loss = replace(GRPO, loss="dapo", **EVERY_TERM)
    whole = grpo_in(1, loss, WHOLE)
    assert_close(grpo_in(2, loss, WHOLE), whole, atol=5e-6)
    start = jax.device_get(fresh(WHOLE, one_device()).params["vision"])
    assert max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (whole[0].params["vision"], start)))) > 0
    assert_close(grpo_in(2, loss, WHOLE, make_mesh(1, 2, 4)), whole, atol=1e-5)


def test_a_supervised_step_in_pieces() -> None:
    """With a frozen tower, and with one that learns."""
    assert_close(sft_in(4), sft_in(1), atol=5e-6)
    assert_close(sft_in(8, WHOLE), sft_in(1, WHOLE), atol=5e-6)


def test_scores_come_back_in_their_order() -> None:
    rows, params = uneven_batch().rows, tiny_params()
    whole, parts = (
        compile_score_step(MODEL, micro_batches=pieces)(params, rows, np.float32(TEMPERATURE), SUPPRESSED)
        for pieces in (1, 4)
    )
    np.testing.assert_allclose(parts.logp_BU, whole.logp_BU, atol=1e-5)
    np.testing.assert_allclose(parts.entropy_BU, whole.entropy_BU, atol=1e-5)


def test_a_cpu_takes_pieces_of_many_places_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four questions of 12 tokens with 4 responses of 6 each: 144 places."""
    rows = uneven_batch().rows
    assert rows.places == 4 * (12 + 4 * 6)
    assert default_pieces(rows) == 1
    for least, pieces in ((73, 1), (72, 2), (36, 4), (1, 4)):
        monkeypatch.setattr("urt_jax.training.pieces.tuning", lambda least=least: replace(CPU, piece_places=least))
        assert default_pieces(rows) == pieces


def test_pieces_that_do_not_divide_the_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"micro_batches is 3, which does not divide 4 rows"):
        grpo_in(3, GRPO)
    with pytest.raises(ValueError, match=r"micro_batches is 3, which does not divide 8 rows"):
        sft_in(3)

"""The policy step with each objective: figures by hand, entropy bonus, truncated rows, several updates a rollout."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from tests.tiny import tiny_params
from tests.training.tiny_training import (
    GRPO,
    RESPONSES,
    TEMPERATURE,
    assert_close,
    assert_same,
    fresh_state,
    grpo_batch,
    rollout,
    run_grpo,
    score,
)
from urt_jax.losses.grpo import OBJECTIVES, policy_loss
from urt_jax.losses.policy import PolicyLoss
from urt_jax.sharding.mesh import make_mesh
from urt_jax.training.rollout import make_grpo_batch
from urt_jax.training.steps import CompletionScores, GrpoBatch, scored_policy_loss

ADVANTAGE = np.array([1.0, -1.0, 0.5, -0.5, 3.0, -1.0, -1.0, 0.0], np.float32)
LENGTHS = np.array([3, 6, 6, 4, 6, 5, 6, 2])
ENTROPY = 0.3
IN_LOSS = np.array([True, False, True, True, False, True, True, True])
BONUS = replace(GRPO, entropy_coef=ENTROPY)


def moved(state: Any) -> Any:
    """Return how far each parameter went in one plain gradient step."""
    return jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), state.trainable, fresh_state().trainable)


@pytest.mark.parametrize("kind", sorted(OBJECTIVES))
def test_the_step_gives_the_loss_all_its_constants(kind: str) -> None:
    """Against ``policy_loss`` called by hand, on scores that need no model."""
    rng = np.random.default_rng(0)
    batch = grpo_batch(ADVANTAGE)
    old = np.asarray(batch.old_logp_BU)
    batch = batch._replace(
        sampler_logp_BU=old + 0.3 * rng.normal(size=old.shape).astype(np.float32),
        ref_logp_BU=old + 0.3 * rng.normal(size=old.shape).astype(np.float32),
    )
    scores = CompletionScores(
        old + 0.5 * rng.normal(size=old.shape).astype(np.float32),
        rng.uniform(1, 3, old.shape).astype(np.float32),
    )
    bounds = {
        "clip_low": 0.1, "clip_high": 0.15, "delta": 1.5, "cispo_cap": 1.1, "kl_coef": 0.1, "kl_kind": "k2",
        "kl_bias_correction": True, "sapo_temperature_pos": 2.0, "sapo_temperature_neg": 2.5, "importance_cap": 1.2,
    }  # fmt: skip
    loss = PolicyLoss(kind, **bounds, entropy_coef=ENTROPY)  # type: ignore[arg-type]
    total, denominator, metrics = scored_policy_loss(scores, batch, loss, first_update=False)
    mask = np.asarray(batch.rows.mask_BU)
    arrays = {
        "logp_BT": scores.logp_BU, "old_logp_BT": batch.old_logp_BU, "ref_logp_BT": batch.ref_logp_BU,
        "sampler_logp_BT": batch.sampler_logp_BU, "advantage_B": batch.advantage_B, "mask_BT": mask,
    }  # fmt: skip
    plain, count, figures = policy_loss(PolicyLoss(kind, **bounds), **arrays, max_tokens=6)  # type: ignore[arg-type]
    wanted = float(plain) / float(count) - ENTROPY * scores.entropy_BU[mask].mean()
    assert float(total) / float(denominator) == pytest.approx(wanted, rel=1e-5)
    assert metrics.keys() == figures.keys() | {"entropy"}
    assert [*map(float, metrics["policy_loss"])] == pytest.approx([float(plain), float(count)])


def test_the_entropy_bonus_is_a_token_mean_with_a_gradient_of_its_own() -> None:
    """Plain gradient steps add up: with advantage and bonus = with advantage + with the bonus alone."""
    both, figures = run_grpo(grpo_batch(ADVANTAGE), loss=BONUS)
    alone, alone_figures = run_grpo(grpo_batch(np.zeros(8)), loss=BONUS)
    neither, _ = run_grpo(grpo_batch(ADVANTAGE))
    assert_close(moved(both), jax.tree.map(np.add, moved(alone), moved(neither)))
    np.testing.assert_allclose(alone_figures["loss"], -ENTROPY * alone_figures["entropy"], rtol=1e-6)
    np.testing.assert_allclose(figures["loss"], figures["policy_loss"] - ENTROPY * figures["entropy"], rtol=1e-5)
    np.testing.assert_allclose(figures["policy_loss"], -ADVANTAGE.mean(), atol=1e-6)
    assert float(alone_figures["grad_norm"]) > 0
    _, later = run_grpo(grpo_batch(np.zeros(8)), loss=BONUS, state=alone)
    assert float(later["entropy"]) > float(alone_figures["entropy"])


def test_with_a_bonus_no_row_may_be_left_out() -> None:
    batch = grpo_batch(ADVANTAGE)
    kept = batch._replace(idle_mask_XU=np.asarray(batch.rows.mask_BU)[RESPONSES:])
    scores = CompletionScores(np.asarray(batch.old_logp_BU), np.ones((8, 6), np.float32))
    with pytest.raises(ValueError, match=r"entropy_coef is 0.3 but 4 rows were left out .* keep them all"):
        scored_policy_loss(scores, kept, BONUS, first_update=True)


def truncated_batch(advantage: np.ndarray, in_loss: np.ndarray | None) -> GrpoBatch:
    batch = make_grpo_batch(rollout(), advantage, temperature=TEMPERATURE, in_loss_B=in_loss)
    return batch._replace(sampler_logp_BU=np.asarray(grpo_batch(advantage).sampler_logp_BU))


@pytest.mark.parametrize("kind", ["grpo", "dapo", "dr_grpo"])
def test_masked_rows_leave_the_loss_and_its_counts_of_tokens(kind: str) -> None:
    """At ratio 1: minus the sum of advantages over sequences, of A x length over kept tokens or over 8 x 6 slots."""
    batch = truncated_batch(ADVANTAGE, IN_LOSS)
    scores = CompletionScores(np.asarray(batch.sampler_logp_BU), np.ones((8, 6), np.float32))
    total, denominator, _ = scored_policy_loss(scores, batch, replace(GRPO, loss=kind), first_update=True)
    advantage, lengths = ADVANTAGE[IN_LOSS], LENGTHS[IN_LOSS]
    wanted = {
        "grpo": (-advantage.sum(), 8),
        "dapo": (-(advantage * lengths).sum(), lengths.sum()),
        "dr_grpo": (-(advantage * lengths).sum(), 8 * 6),
    }[kind]
    assert (float(total), float(denominator)) == pytest.approx(wanted)


def test_a_masked_row_moves_the_policy_like_one_without_advantage() -> None:
    masked, figures = run_grpo(truncated_batch(ADVANTAGE, IN_LOSS))
    silent, _ = run_grpo(truncated_batch(np.where(IN_LOSS, ADVANTAGE, 0), None))
    assert_close(masked.params, silent.params)
    np.testing.assert_allclose(figures["loss"], -ADVANTAGE[IN_LOSS].sum() / 8, atol=1e-6)


def test_a_rollout_of_truncated_rows_alone_changes_nothing() -> None:
    state, figures = run_grpo(truncated_batch(ADVANTAGE, np.zeros(8, bool)))
    assert_same(state.params, fresh_state().params)
    assert float(figures["loss"]) == float(figures["grad_norm"]) == float(figures["entropy"]) == 0.0


def test_masked_rows_that_are_left_out_count_as_masked() -> None:
    in_loss = np.array([True] * 4 + [False, True, False, True])
    batch = make_grpo_batch(
        rollout(), ADVANTAGE, temperature=TEMPERATURE, trained=np.arange(RESPONSES), in_loss_B=in_loss
    )
    assert batch.idle_mask_XU.sum(axis=1).tolist() == [0, 5, 0, 2]


@pytest.mark.parametrize("kind", ["grpo", "gspo"])
def test_a_second_update_is_measured_from_before_the_first(kind: str) -> None:
    """Its old log-probabilities are those of the fresh policy, its ratio is that of the moved policy to it."""
    loss = replace(GRPO, loss=kind, clip_low=0.01, clip_high=0.01)
    batch = grpo_batch(ADVANTAGE)  # old log-probabilities scored with the fresh parameters
    mask, old = np.asarray(batch.rows.mask_BU), np.asarray(batch.old_logp_BU)
    np.testing.assert_array_equal(old, score(tiny_params(), batch.rows))
    state, first = run_grpo(batch, loss=loss)
    now = score(state.params, batch.rows)
    assert np.abs(now - old)[mask].max() > 0.05
    _, second = run_grpo(batch, loss=loss, first_update=False, state=state)
    total, denominator, metrics = policy_loss(
        loss,
        logp_BT=now,
        old_logp_BT=old,
        ref_logp_BT=None,
        sampler_logp_BT=np.asarray(batch.sampler_logp_BU),
        advantage_B=ADVANTAGE,
        mask_BT=mask,
        max_tokens=6,
    )
    np.testing.assert_allclose(second["loss"], total / denominator, rtol=1e-4)
    assert abs(float(second["loss"]) - float(first["loss"])) > 1e-3
    clipped = metrics["clip_ratio/region_mean"]
    np.testing.assert_allclose(second["clip_ratio/region_mean"], clipped[0] / clipped[1], atol=1e-6)
    assert float(first["clip_ratio/region_mean"]) == 0.0 < float(second["clip_ratio/region_mean"])
    np.testing.assert_allclose(second["sampling/sampling_logp_difference/max"], 0, atol=1e-5)


def test_on_eight_devices_as_on_one() -> None:
    loss = replace(GRPO, loss="gspo", importance_cap=2.0, kl_coef=0.1, kl_kind="k2", entropy_coef=ENTROPY)
    batch = grpo_batch(ADVANTAGE)
    rng = np.random.default_rng(1)
    off = (0.2 * rng.normal(size=(2, 8, 6))).astype(np.float32)
    batch = batch._replace(
        sampler_logp_BU=np.asarray(batch.sampler_logp_BU) + off[0],
        ref_logp_BU=np.asarray(batch.ref_logp_BU) + off[1],
        old_logp_BU=np.asarray(batch.old_logp_BU) - off[1],
    )
    one, figures = run_grpo(batch, loss=loss, first_update=False)
    many, others = run_grpo(batch, make_mesh(2, 2, 2), loss=loss, first_update=False)
    assert_close(jax.device_get(many.params), jax.device_get(one.params))
    assert_close(jax.device_get(others), jax.device_get(figures), atol=1e-5)

"""The training steps: hand values, what moves and what does not. ``tests/sharding`` has them on meshes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.tiny import MODEL, as_jnp, first_groups, jitted, tiny_params
from tests.training.tiny_training import (
    GRPO,
    PLAIN,
    QUESTIONS,
    RESPONSES,
    SUPPRESSED,
    assert_close,
    assert_same,
    fresh_state,
    grpo_batch,
    learnt_places,
    one_device,
    run_grpo,
    run_sft,
    score,
    sft_batch,
)
from urt_jax.losses.advantages import group_advantages
from urt_jax.losses.policy import PolicyLoss
from urt_jax.sharding.mesh import make_mesh
from urt_jax.training import steps
from urt_jax.training.compile import compile_grpo_step
from urt_jax.training.state import TrainState, init_state
from urt_jax.training.steps import GrpoBatch

ADVANTAGE = np.array([1.0, -1.0, 0.5, -0.5, 2.0, -1.0, -1.0, 0.0], np.float32)


@pytest.fixture(scope="module")
def sft_plain() -> tuple[Any, dict[str, Any]]:
    return run_sft(sft_batch())


@pytest.fixture(scope="module")
def grpo_plain() -> tuple[Any, dict[str, Any]]:
    return run_grpo(grpo_batch(ADVANTAGE))


def test_sft_loss_is_the_mean_over_all_trained_tokens(sft_plain: tuple[Any, dict[str, Any]]) -> None:
    batch = sft_batch()
    logp = np.asarray(jax.nn.log_softmax(jitted()(tiny_params(), batch), axis=-1))[:, :-1]
    chosen = np.take_along_axis(logp, batch.tokens_BT[:, 1:, None], axis=-1)[..., 0]
    mask = learnt_places(batch)[:, :-1]
    figures = sft_plain[1]
    np.testing.assert_allclose(figures["loss"], -chosen[mask].mean(), rtol=1e-5)
    np.testing.assert_allclose(figures["token_probability"], np.exp(chosen[mask]).mean(), rtol=1e-5)


def test_sft_learns_the_targets_while_it_reads_the_tokens() -> None:
    batch = sft_batch()
    logp = np.asarray(jax.nn.log_softmax(jitted()(tiny_params(), batch), axis=-1))[:, :-1, 25]
    others = batch.targets._replace(token_BZJ=np.full_like(batch.targets.token_BZJ, 25))
    _, figures = run_sft(batch._replace(targets=others))
    np.testing.assert_allclose(figures["loss"], -logp[learnt_places(batch)[:, :-1]].mean(), rtol=1e-5)


def test_an_sft_step_needs_targets() -> None:
    with pytest.raises(ValueError, match="the batch has no targets; give one"):
        run_sft(sft_batch()._replace(targets=None))
    with pytest.raises(ValueError, match="targets split a row into 2 parts, the mesh into 1"):
        run_sft(sft_batch(parts=2))


def test_sft_updates_the_trained_and_leaves_the_frozen(sft_plain: tuple[Any, dict[str, Any]]) -> None:
    before, (after, figures) = fresh_state(), sft_plain
    assert int(after.step) == 1
    assert_same(after.frozen, before.frozen)
    assert set(after.frozen) == {"vision"}
    squares = 0.0
    for path, leaf in jax.tree_util.tree_leaves_with_path(after.trainable):
        start = dict(jax.tree_util.tree_leaves_with_path(before.trainable))[path]
        moved = np.asarray(leaf) - np.asarray(start)
        assert np.abs(moved).max() > 0, jax.tree_util.keystr(path)
        squares += float(((moved.astype(np.float64) / 0.1) ** 2).sum())
    np.testing.assert_allclose(figures["grad_norm"], np.sqrt(squares), rtol=1e-3)


def test_packed_and_unpacked_rows_have_the_same_loss_and_gradient(sft_plain: tuple[Any, dict[str, Any]]) -> None:
    packed = run_sft(sft_batch([[0, 7, 2], [1, 5], [3, 4], [6]], rows=4, tokens=40))
    np.testing.assert_allclose(packed[1]["loss"], sft_plain[1]["loss"], rtol=1e-6)
    assert_close(packed[0].trainable, sft_plain[0].trainable)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_an_update_that_is_not_finite_changes_nothing_but_the_step(bad: str, sizes: tuple[int, int, int]) -> None:
    """A loss of NaN, and a finite loss whose gradient is not: the square root of 0 has an infinite slope."""
    mesh = make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])
    optimizer = optax.adamw(0.1)

    def value(trainable: Any) -> Any:
        weight = jax.tree.leaves(trainable)[0]
        return jnp.log(weight - weight - 1).sum() if bad == "loss" else jnp.sqrt(weight - weight).sum()

    def step(state: TrainState) -> Any:
        total, gradients = jax.value_and_grad(value)(state.trainable)
        parts = total, jnp.float32(1), {"more": (total, jnp.float32(1))}
        return steps._update(state, gradients, parts, optimizer)

    state = fresh_state(optimizer, mesh)
    after, figures = jax.jit(step)(state)
    assert float(figures["skipped_updates"]) == 1
    assert bool(jnp.isfinite(figures["loss"])) == (bad == "gradient")
    assert int(after.step) == 1
    assert_same((after.trainable, after.opt_state), (state.trainable, state.opt_state))


def test_a_sound_update_is_not_counted(sft_plain: tuple[Any, dict[str, Any]]) -> None:
    assert float(sft_plain[1]["skipped_updates"]) == 0


def test_grpo_figures_of_a_first_update(grpo_plain: tuple[Any, dict[str, Any]]) -> None:
    """The ratio is 1, so the loss is minus the mean advantage; the sampler agrees; nothing is clipped."""
    figures = grpo_plain[1]
    np.testing.assert_allclose(figures["loss"], -ADVANTAGE.mean(), atol=1e-6)
    assert float(figures["sampling/sampling_logp_difference/mean"]) < 1e-5
    assert float(figures["sampling/sampling_logp_difference/max"]) < 1e-5
    assert float(figures["clip_ratio/region_mean"]) == 0
    assert 0 < float(figures["entropy"]) < np.log(33)
    assert float(figures["grad_norm"]) > 0


@pytest.mark.parametrize("first_update", [True, False])
def test_without_advantage_not_a_bit_changes(first_update: bool) -> None:
    constant = group_advantages(np.full((QUESTIONS, RESPONSES), 0.7, np.float32)).reshape(-1)
    state, figures = run_grpo(grpo_batch(constant), first_update=first_update)
    assert_same(state.params, fresh_state().params)
    assert float(figures["grad_norm"]) == 0
    assert int(state.step) == 1


def test_a_constant_group_adds_nothing_to_the_others() -> None:
    """Equal rewards for question 2: whatever its responses were, the update is the same bit for bit."""
    rewards = np.array([[1, 0, 0, 1], [0.3, 0.3, 0.3, 0.3]], np.float32)
    batch = grpo_batch(np.asarray(group_advantages(rewards)).reshape(-1))
    tokens = batch.rows.tokens_BU.copy()
    tokens[RESPONSES:] = 20
    other = batch._replace(rows=batch.rows._replace(tokens_BU=tokens))
    assert_same(run_grpo(other)[0].params, run_grpo(batch)[0].params)


def test_a_constant_group_may_be_left_out() -> None:
    """Its rows are not computed, the update and the loss are those of the whole rollout."""
    rewards = np.array([[1, 0, 0, 1], [0.3, 0.3, 0.3, 0.3]], np.float32)
    batch = grpo_batch(np.asarray(group_advantages(rewards)).reshape(-1))
    kept = np.arange(RESPONSES)
    less = GrpoBatch(
        first_groups(batch.rows, 1),
        *(part[kept] for part in batch[1:5]),
        idle_mask_XU=np.asarray(batch.rows.mask_BU)[RESPONSES:],
        temperature=batch.temperature,
    )
    whole, part = run_grpo(batch), run_grpo(less)
    assert_close(part[0].params, whole[0].params)
    for name in ("loss", "policy_loss", "grad_norm"):
        np.testing.assert_allclose(part[1][name], whole[1][name], atol=1e-6)


def test_rewarded_responses_become_more_likely_and_punished_ones_less() -> None:
    advantage = np.array([1, 0, 0, 0, 0, 0, -1, 0], np.float32)
    rows = grpo_batch(advantage).rows
    mask = np.asarray(rows.mask_BU)
    before = np.where(mask, score(tiny_params(), rows), 0).sum(axis=1)
    state, _ = run_grpo(grpo_batch(advantage))
    after = np.where(mask, score(state.params, rows), 0).sum(axis=1)
    assert after[0] > before[0] + 0.1
    assert after[6] < before[6] - 0.1


def test_the_first_update_is_the_general_one_with_old_log_probabilities(
    grpo_plain: tuple[Any, dict[str, Any]],
) -> None:
    state, figures = run_grpo(grpo_batch(ADVANTAGE), first_update=False)
    assert_close(state.trainable, grpo_plain[0].trainable)
    np.testing.assert_allclose(figures["loss"], grpo_plain[1]["loss"], atol=1e-6)


def test_the_kl_term_pulls_only_where_the_policy_left_the_reference() -> None:
    """At the reference its value and gradient are 0, so nothing moves without an advantage."""
    loss = PolicyLoss("grpo", clip_low=0.2, clip_high=0.2, kl_coef=0.5)
    state, figures = run_grpo(grpo_batch(np.zeros(8)), loss=loss)
    np.testing.assert_allclose(figures["kl"], 0, atol=1e-9)
    assert_close(state.trainable, fresh_state().trainable, atol=1e-5)


def test_masked_completion_tokens_carry_no_gradient(grpo_plain: tuple[Any, dict[str, Any]]) -> None:
    """What stands after the end token changes nothing."""
    batch = grpo_batch(ADVANTAGE)
    tokens = np.where(batch.rows.mask_BU, batch.rows.tokens_BU, 20)
    changed, _ = run_grpo(batch._replace(rows=batch.rows._replace(tokens_BU=tokens)))
    assert (tokens != batch.rows.tokens_BU).any()
    assert_close(changed.trainable, grpo_plain[0].trainable)


def encoded(batch: GrpoBatch) -> GrpoBatch:
    """Return the batch with what the tower makes of its pictures in their place."""
    prompts = batch.rows.prompts
    features = jitted("features")(tiny_params(), prompts.vision)
    return batch._replace(rows=batch.rows._replace(prompts=prompts._replace(vision=features)))


def test_pictures_that_are_encoded_already_take_the_same_step(grpo_plain: tuple[Any, dict[str, Any]]) -> None:
    batch = grpo_batch(ADVANTAGE)
    assert_close(run_grpo(encoded(batch)), grpo_plain)
    np.testing.assert_allclose(score(tiny_params(), encoded(batch).rows), score(tiny_params(), batch.rows), atol=1e-5)


def test_a_tower_that_is_trained_refuses_them() -> None:
    state = init_state(as_jnp(tiny_params()), PLAIN, ("",))
    step = compile_grpo_step(MODEL, PLAIN, state, one_device(), GRPO, first_update=True)
    with pytest.raises(ValueError, match="tower is trained, but the batch holds encoded frames"):
        step(state, encoded(grpo_batch(ADVANTAGE)), SUPPRESSED)

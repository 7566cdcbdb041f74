"""The optimizer: schedules by hand, decay on matrices only, clipping by the global norm."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from urt_jax.training.optimizer import Schedule, make_optimizer, make_schedule


@pytest.mark.parametrize(
    ("kind", "warmup", "expected"),
    [
        ("constant", 0, {0: 2.0, 5: 2.0, 12: 2.0}),
        ("constant", 4, {0: 0.0, 1: 0.5, 4: 2.0, 12: 2.0}),
        ("linear", 0, {0: 2.0, 6: 1.0, 12: 0.0}),
        ("linear", 4, {0: 0.0, 2: 1.0, 4: 2.0, 8: 1.0, 12: 0.0, 20: 0.0}),
        ("cosine", 4, {0: 0.0, 4: 2.0, 6: 2.0 * (1 + np.cos(np.pi / 4)) / 2, 8: 1.0, 12: 0.0}),
        ("cosine", 12, {6: 1.0, 11: 2.0 * 11 / 12}),
    ],
)
def test_schedules_by_hand(kind: Schedule, warmup: int, expected: dict[int, float]) -> None:
    schedule = make_schedule(kind, peak=2.0, steps=12, warmup_steps=warmup)
    for step, rate in expected.items():
        np.testing.assert_allclose(schedule(step), rate, atol=1e-6, err_msg=f"step {step}")


def optimizer(weight_decay: float = 0.5, clip_norm: float = 1e9) -> optax.GradientTransformation:
    return make_optimizer(optax.constant_schedule(0.1), weight_decay=weight_decay, b1=0.9, b2=0.98, clip_norm=clip_norm)


def test_only_kernels_are_decayed() -> None:
    params = {
        "layer": {"kernel": jnp.full((2, 2), 4.0), "bias": jnp.full(2, 4.0), "scale": jnp.full(2, 4.0)},
        "embedding": jnp.full((2, 2), 4.0),
    }
    chosen = optimizer()
    updates, _ = chosen.update(jax.tree.map(jnp.zeros_like, params), chosen.init(params), params)
    np.testing.assert_allclose(updates["layer"]["kernel"], -0.1 * 0.5 * 4.0, rtol=1e-6)
    for rest in (updates["layer"]["bias"], updates["layer"]["scale"], updates["embedding"]):
        np.testing.assert_array_equal(rest, 0.0)


def test_adapters_are_decayed_as_kernels_are() -> None:
    params = {"q": {name: jnp.full((2, 2), 4.0) for name in ("lora_a", "lora_b", "lora_scale")}}
    chosen = optimizer()
    updates, _ = chosen.update(jax.tree.map(jnp.zeros_like, params), chosen.init(params), params)
    for name, wanted in (("lora_a", -0.2), ("lora_b", -0.2), ("lora_scale", 0.0)):
        np.testing.assert_allclose(updates["q"][name], wanted, rtol=1e-6, err_msg=name)


def test_the_first_step_is_one_learning_rate_against_the_gradient() -> None:
    params = {"kernel": jnp.array([[1.0, -2.0]])}
    chosen = optimizer(weight_decay=0.0)
    updates, _ = chosen.update({"kernel": jnp.array([[3.0, -0.2]])}, chosen.init(params), params)
    np.testing.assert_allclose(updates["kernel"], [[-0.1, 0.1]], rtol=1e-5)


def test_gradients_are_clipped_by_their_global_norm() -> None:
    """The moments see (3, 4) brought down from norm 5 to norm 1."""
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    chosen = optimizer(clip_norm=1.0)
    _, state = chosen.update({"a": jnp.array([3.0]), "b": jnp.array([4.0])}, chosen.init(params), params)
    moments = {
        jax.tree_util.keystr(path): float(leaf[0])
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
        if ".mu" in jax.tree_util.keystr(path)
    }
    np.testing.assert_allclose(sorted(moments.values()), [0.1 * 0.6, 0.1 * 0.8], rtol=1e-5)


def test_a_gradient_of_zero_changes_nothing() -> None:
    params = {"kernel": jnp.ones((2, 2))}
    chosen = optimizer(weight_decay=0.0, clip_norm=1.0)
    updates, _ = chosen.update({"kernel": jnp.zeros((2, 2))}, chosen.init(params), params)
    np.testing.assert_array_equal(updates["kernel"], 0.0)

"""The optimizer: schedules by hand, decay on matrices only, clipping by the global norm."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from urt_jax.training.optimizer import make_optimizer, make_schedule
from urt_jax.training.settings import OptimizerSettings


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
def test_schedules_by_hand(kind: Any, warmup: int, expected: dict[int, float]) -> None:
    schedule = make_schedule(OptimizerSettings(schedule=kind, learning_rate=2.0, warmup_steps=warmup), steps=12)
    for step, rate in expected.items():
        np.testing.assert_allclose(schedule(step), rate, atol=1e-6, err_msg=f"step {step}")


def optimizer(weight_decay: float = 0.5, clip_norm: float = 1e9, kind: Any = "adamw") -> optax.GradientTransformation:
    settings = OptimizerSettings(kind=kind, weight_decay=weight_decay, clip_norm=clip_norm)
    return make_optimizer(settings, optax.constant_schedule(0.1))


KINDS = ("adamw", "muon")


@pytest.mark.parametrize("kind", KINDS)
def test_only_kernels_are_decayed(kind: str) -> None:
    params = {
        "layer": {"kernel": jnp.full((2, 2), 4.0), "bias": jnp.full(2, 4.0), "scale": jnp.full(2, 4.0)},
        "embedding": jnp.full((2, 2), 4.0),
    }
    chosen = optimizer(kind=kind)
    updates, _ = chosen.update(jax.tree.map(jnp.zeros_like, params), chosen.init(params), params)
    np.testing.assert_allclose(updates["layer"]["kernel"], -0.1 * 0.5 * 4.0, rtol=1e-6)
    for rest in (updates["layer"]["bias"], updates["layer"]["scale"], updates["embedding"]):
        np.testing.assert_array_equal(rest, 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_are_decayed_as_kernels_are(kind: str) -> None:
    params = {"q": {name: jnp.full((2, 2), 4.0) for name in ("lora_a", "lora_b", "lora_scale")}}
    chosen = optimizer(kind=kind)
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


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_of_zero_changes_nothing(kind: str) -> None:
    params = {"kernel": jnp.ones((2, 2))}
    chosen = optimizer(weight_decay=0.0, clip_norm=1.0, kind=kind)
    updates, _ = chosen.update({"kernel": jnp.zeros((2, 2))}, chosen.init(params), params)
    np.testing.assert_array_equal(updates["kernel"], 0.0)


def test_muon_makes_the_gradient_of_each_layer_orthogonal() -> None:
    """The first update is the gradient with singular values near 1, of AdamW's size: 0.2 sqrt(larger side) each."""
    rng = np.random.default_rng(0)
    gradient = (
        rng.standard_normal((3, 8, 24)).astype(np.float32) * np.array([1e-3, 1.0, 50.0], np.float32)[:, None, None]
    )
    params = {"kernel": jnp.zeros((3, 8, 24))}
    chosen = optimizer(weight_decay=0.0, kind="muon")
    update = np.asarray(chosen.update({"kernel": jnp.asarray(gradient)}, chosen.init(params), params)[0]["kernel"])
    for found, given in zip(update, gradient, strict=True):
        values = np.linalg.svd(found, compute_uv=False)
        wanted_left, _, wanted_right = np.linalg.svd(given, full_matrices=False)
        size = 0.1 * 0.2 * np.sqrt(24)
        assert 0.6 * size < values.min() <= values.max() < 1.3 * size
        alignment = wanted_left.T @ found @ wanted_right.T / -size  # diagonal where the directions are the gradient's
        np.testing.assert_allclose(alignment - np.diag(np.diag(alignment)), 0.0, atol=1e-4)
        assert np.diag(alignment).min() > 0.6


def test_muon_leaves_what_is_no_kernel_to_adamw() -> None:
    rng = np.random.default_rng(1)
    shapes = {"kernel": (4, 6), "bias": (6,), "embedding": (5, 4), "lora_a": (4, 2), "scale": (4,)}
    params = {name: jnp.asarray(rng.standard_normal(shape), jnp.float32) for name, shape in shapes.items()}
    found = {}
    for kind in KINDS:
        chosen = optimizer(kind=kind)
        state, moved = chosen.init(params), params
        for step in range(3):
            gradient = jax.tree.map(lambda leaf, step=step: jnp.cos(leaf + step), params)
            updates, state = chosen.update(gradient, state, moved)
            moved = optax.apply_updates(moved, updates)
        found[kind] = moved
    for name in ("bias", "embedding", "lora_a", "scale"):
        np.testing.assert_array_equal(found["muon"][name], found["adamw"][name], err_msg=name)
    assert np.abs(found["muon"]["kernel"] - found["adamw"]["kernel"]).max() > 0.01

"""On every mesh an SFT step, a GRPO step and the sampler give what they give on one device, to float32 rounding."""

from typing import Any

import jax
import numpy as np
import optax
import pytest

from tests.sharding.meshed import MESHES, Stepped, grpo, mesh_of, samples, sft, sft_rows, some_slow
from tests.tiny import MODEL
from tests.training.tiny_training import fresh_state
from urt_jax.ops import fused_attention
from urt_jax.sharding.placement import place_rows
from urt_jax.training.compile import compile_sft_step
from urt_jax.training.optimizer import make_optimizer
from urt_jax.training.settings import OptimizerSettings
from urt_jax.types import Rollout


def assert_close(found: Any, wanted: Any) -> None:
    """Compare trees as ``tests/models/test_shared_prefix.py`` does: a leaf may be 0 but for rounding."""
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(wanted))
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(wanted), strict=True):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(one, other, atol=1e-6 * largest, rtol=1e-4, err_msg=name)


def assert_equal_steps(found: Stepped, alone: Stepped) -> None:
    assert float(alone.figures["grad_norm"]) > 0.1
    np.testing.assert_allclose(found.figures["loss"], alone.figures["loss"], rtol=2e-6)
    assert_close(found.gradient, alone.gradient)
    assert_close(found.params, alone.params)
    assert found.figures.keys() == alone.figures.keys()
    for name, figure in alone.figures.items():
        np.testing.assert_allclose(found.figures[name], figure, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", some_slow(MESHES))
def test_an_sft_step(name: str) -> None:
    assert_equal_steps(sft(name), sft("one device"))


def test_an_sft_step_of_muon() -> None:
    """Each matrix is made orthogonal as a whole, wherever its parts and its momentum lie."""
    muon = make_optimizer(OptimizerSettings(kind="muon", weight_decay=0.1), optax.constant_schedule(0.01))
    found = []
    for mesh in (mesh_of("data=2 fsdp=2 tensor=2"), mesh_of("one device")):
        state = fresh_state(muon, mesh)
        momentum = next(leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim == 3)
        assert momentum.addressable_shards[0].data.size * (4 if mesh.size == 8 else 1) == momentum.size
        state, _ = compile_sft_step(MODEL, muon, state, mesh)(state, place_rows(mesh, sft_rows()))
        found.append(jax.device_get(state.params))
    assert_close(*found)


def test_an_sft_step_of_rows_that_the_devices_do_not_divide() -> None:
    """Six rows, three for each of two parts: where rows are rolled in parts, the compiler loses a trained token."""
    assert_equal_steps(sft("data=2 sequence=4", count=6), sft("one device", count=6))


@pytest.mark.parametrize("name", some_slow(MESHES))
def test_a_grpo_step(name: str) -> None:
    assert_equal_steps(grpo(name), grpo("one device"))


@pytest.mark.slow
def test_a_grpo_step_of_questions_that_the_devices_do_not_divide() -> None:
    assert_equal_steps(grpo("data=2 sequence=4", count=6), grpo("one device", count=6))


@pytest.mark.parametrize("name", some_slow(MESHES))
def test_the_sampler(name: str) -> None:
    assert_equal_samples(samples(name), samples("one device"))


@pytest.mark.parametrize("name", some_slow([name for name in MESHES if "sequence" in name]))
def test_the_sampler_where_questions_do_not_divide_so_that_prompts_are_split(name: str) -> None:
    """Eight questions stand on all devices of these meshes; of two, each lies on several."""
    assert_equal_samples(samples(name, questions=2), samples("one device", questions=2))


def assert_equal_samples(found: Rollout, alone: Rollout) -> None:
    assert len(set(alone.texts)) > len(alone.texts) // 2
    np.testing.assert_array_equal(found.tokens_BU, alone.tokens_BU)
    np.testing.assert_array_equal(found.ended_B, alone.ended_B)
    np.testing.assert_allclose(found.logp_BU, alone.logp_BU, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one device", "data=2 fsdp=2 tensor=2"])
def test_with_the_splash_kernel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interpreted, in training forward and backward, with shared prompts, and in the sampler's prefill."""
    monkeypatch.setattr(fused_attention, "INTERPRETED", True)
    assert_equal_steps(sft(name, "splash"), sft("one device"))
    assert_equal_steps(grpo(name, "splash"), grpo("one device"))
    assert_equal_samples(samples(name, "splash"), samples("one device"))

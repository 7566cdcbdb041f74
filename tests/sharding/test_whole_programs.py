"""On every mesh an SFT step, a GRPO step and the sampler give what they give on one device, to float32 rounding."""

from typing import Any

import jax
import numpy as np
import pytest

from tests.sharding.meshed import MESHES, Stepped, grpo, samples, sft, some_slow
from urt_jax.generation.sampler import Samples


def assert_close(found: Any, wanted: Any) -> None:
    """Compare trees; a leaf may be 0 but for rounding, so each is measured by the largest of its tree too."""
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(wanted))
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(wanted), strict=True):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(one, other, atol=1e-6 * largest, rtol=1e-5, err_msg=name)


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


@pytest.mark.parametrize("name", some_slow(MESHES))
def test_a_grpo_step(name: str) -> None:
    assert_equal_steps(grpo(name), grpo("one device"))


@pytest.mark.parametrize("name", some_slow(MESHES))
def test_the_sampler(name: str) -> None:
    assert_equal_samples(samples(name), samples("one device"))


def assert_equal_samples(found: Samples, alone: Samples) -> None:
    assert len(set(alone.texts)) > 8
    np.testing.assert_array_equal(found.tokens_BU, alone.tokens_BU)
    np.testing.assert_array_equal(found.ended_B, alone.ended_B)
    np.testing.assert_allclose(found.logp_BU, alone.logp_BU, atol=1e-5, rtol=0)

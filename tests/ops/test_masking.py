"""Means over empty masks and the causal mask of packed rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from urt_jax.ops.masking import masked_mean, masked_sum, segment_mask


def test_masked_mean_and_sum_by_hand():
    x = np.array([[1.0, 2.0, 9.0], [4.0, 5.0, 6.0]], np.float32)
    mask = np.array([[True, True, False], [False, False, False]])
    assert float(masked_sum(x, mask)) == 3.0
    assert float(masked_mean(x, mask)) == 1.5
    np.testing.assert_array_equal(masked_mean(x, mask, axis=1), [1.5, 0.0])
    np.testing.assert_array_equal(masked_mean(x, mask, axis=0), [1.0, 2.0, 0.0])


def test_masked_nan_reaches_neither_value_nor_gradient():
    x = jnp.array([1.0, jnp.nan])
    value, gradient = jax.value_and_grad(masked_mean)(x, jnp.array([True, False]))
    assert float(value) == 1.0
    np.testing.assert_array_equal(gradient, [1.0, 0.0])


def test_empty_mask_yields_zero_and_zero_gradient():
    value, gradient = jax.jit(jax.value_and_grad(masked_mean))(jnp.array([1.0, 2.0]), jnp.array([False, False]))
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, [0.0, 0.0])


def test_mean_of_low_precision_is_taken_in_float32():
    x = jnp.full((4096,), 1.01, jnp.bfloat16)
    assert masked_mean(x, jnp.ones(4096, bool)).dtype == jnp.float32
    assert float(masked_mean(x, jnp.ones(4096, bool))) == pytest.approx(float(x[0]), rel=1e-6)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_segment_mask_is_the_drawn_one(transform):
    segments = jnp.array([[1, 1, 1, 2, 2, 0]])
    index = jnp.arange(6)
    drawn = ["x.....", "xx....", "xxx...", "...x..", "...xx.", "......"]
    expected = np.array([[[mark == "x" for mark in row] for row in drawn]])
    np.testing.assert_array_equal(transform(segment_mask)(segments, segments, index, index), expected)


def test_segment_mask_of_one_query_over_a_longer_cache():
    mask = segment_mask(jnp.array([[1], [1]]), jnp.array([[1, 1, 1], [0, 1, 1]]), jnp.array([1]), jnp.arange(3))
    np.testing.assert_array_equal(mask, [[[True, True, False]], [[False, True, False]]])

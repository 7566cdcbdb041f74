"""The supervised loss by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from urt_jax.losses.sft import sft_loss

LOGP = jnp.log(jnp.array([[0.5, 0.25, 0.1], [0.2, 1.0, 0.4]]))
MASK = jnp.array([[True, True, False], [False, False, True]])


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_sum_denominator_and_metrics(transform):
    total, tokens, metrics = transform(sft_loss)(LOGP, MASK)
    assert float(total) == pytest.approx(-np.log(0.5 * 0.25 * 0.4), rel=1e-6)
    assert float(tokens) == 3.0
    assert float(metrics["loss"][0] / metrics["loss"][1]) == pytest.approx(float(total) / 3)
    assert float(metrics["token_probability"][0]) == pytest.approx(1.15)


def test_micro_batches_add_up_to_the_whole():
    whole = sft_loss(LOGP, MASK)
    parts = [sft_loss(LOGP[row : row + 1], MASK[row : row + 1]) for row in range(2)]
    added = jax.tree.map(lambda a, b: a + b, *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), added, whole)


def test_gradient_is_minus_one_on_trained_tokens_and_finite_on_an_empty_mask():
    np.testing.assert_array_equal(jax.grad(lambda x: sft_loss(x, MASK)[0])(LOGP), -MASK.astype(jnp.float32))
    total, tokens, _ = sft_loss(LOGP, jnp.zeros_like(MASK))
    assert (float(total), float(tokens)) == (0.0, 0.0)
    np.testing.assert_array_equal(jax.grad(lambda x: sft_loss(x, jnp.zeros_like(MASK))[0])(LOGP), 0.0)


def test_masked_infinities_stay_out():
    total, _, metrics = sft_loss(LOGP.at[0, 2].set(-jnp.inf), MASK)
    assert np.isfinite(total)
    assert np.isfinite(metrics["token_probability"][0])

"""Surrogates by hand: values on both sides of each bound, gradients where a bound or a stop decides them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from urt_jax.losses.policy import PolicyLoss
from urt_jax.losses.surrogates import (
    cispo_surrogate,
    clipped_surrogate,
    sapo_surrogate,
    sequence_ratio,
    token_ratio,
)

WIDE = PolicyLoss(clip_low=0.2, clip_high=0.3)
SIGNS = jnp.array([[2.0], [-2.0]])
NONE = jnp.zeros((2, 3))


def clipped(ratio, bounds=WIDE):
    return clipped_surrogate(ratio, NONE, SIGNS, bounds)


def test_clipped_on_both_sides_of_each_bound():
    got = clipped(jnp.array([[0.5, 1.0, 1.5], [0.5, 1.0, 1.5]]))
    # A > 0: min(2 rho, 2 clip) = 1, 2, 2.6;  A < 0: min(-2 rho, -2 clip) = -1.6, -2, -3
    np.testing.assert_allclose(got, [[-1.0, -2.0, -2.6], [1.6, 2.0, 3.0]], rtol=1e-6)


def test_the_clip_stops_the_gradient_only_where_it_would_help():
    gradient = jax.grad(lambda ratio: jnp.sum(clipped(ratio)))(jnp.array([[0.5, 1.1, 1.5], [0.5, 0.9, 1.5]]))
    np.testing.assert_array_equal(gradient, [[-2.0, -2.0, 0.0], [0.0, 2.0, 2.0]])


def test_the_second_side_bounds_negative_advantages_alone():
    """A < 0: -min(-2 min(rho, 3), -2 clip) = 2 * 2.9 below delta and 2 * 3 beyond, where the gradient ends."""
    ratio = jnp.array([[2.9, 4.0, 9.0], [2.9, 4.0, 9.0]])
    two_sided = replace(WIDE, delta=3.0)
    np.testing.assert_allclose(clipped(ratio, two_sided), [[-2.6, -2.6, -2.6], [5.8, 6.0, 6.0]], rtol=1e-6)
    np.testing.assert_allclose(clipped(ratio), [[-2.6, -2.6, -2.6], [5.8, 8.0, 18.0]], rtol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(clipped(x, two_sided)))(ratio)
    np.testing.assert_array_equal(gradient, [[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])


def test_cispo_cuts_the_weight_and_never_the_gradient():
    logp = jnp.array([[-1.0, -2.0, -3.0], [-1.0, -2.0, -3.0]])
    ratio = jnp.array([[0.1, 1.0, 9.0], [0.1, 1.0, 9.0]])
    weight = np.array([0.1, 1.0, 5.0])

    def total(ratio, logp):
        return jnp.sum(cispo_surrogate(ratio, logp, SIGNS, WIDE))

    expected = -np.array([[2.0], [-2.0]]) * weight * np.asarray(logp)
    np.testing.assert_allclose(cispo_surrogate(ratio, logp, SIGNS, WIDE), expected, rtol=1e-6)
    through_ratio, through_logp = jax.grad(total, argnums=(0, 1))(ratio, logp)
    np.testing.assert_array_equal(through_ratio, 0.0)
    np.testing.assert_allclose(through_logp, -np.array([[2.0], [-2.0]]) * weight, rtol=1e-6)


def test_sapo_by_hand():
    """At rho = 1: value -2 A / tau and slope -A; at 2: sigmoid(tau) 4 / tau, with slope 4 s (1 - s)."""
    ratio = jnp.array([[1.0, 2.0, 0.0], [1.0, 2.0, 0.0]])
    got = sapo_surrogate(ratio, NONE, SIGNS, WIDE)
    gradient = jax.grad(lambda x: jnp.sum(sapo_surrogate(x, NONE, SIGNS, WIDE)))(ratio)
    for row, (advantage, tau) in enumerate([(2.0, 1.0), (-2.0, 1.05)]):
        gate = 1 / (1 + np.exp(-tau * (np.asarray(ratio[row], np.float64) - 1)))
        np.testing.assert_allclose(got[row], -advantage * 4 / tau * gate, rtol=1e-6)
        np.testing.assert_allclose(gradient[row], -advantage * 4 * gate * (1 - gate), rtol=1e-6)
    np.testing.assert_allclose(got[:, 0], [-4.0, 4 / 1.05], rtol=1e-6)
    np.testing.assert_allclose(gradient[:, 0], [-2.0, 2.0], rtol=1e-6)


def test_a_sapo_temperature_belongs_to_the_sign_and_zero_counts_as_negative():
    cold = PolicyLoss(sapo_temperature_pos=2.0, sapo_temperature_neg=4.0)
    ratio = jnp.ones((3, 1))
    got = sapo_surrogate(ratio, ratio, jnp.array([[1.0], [-1.0], [0.0]]), cold)
    np.testing.assert_allclose(got[:, 0], [-1.0, 0.5, 0.0], rtol=1e-6)


OLD = jnp.array([[-1.0, -2.0, -3.0], [-1.0, -1.0, -1.0], [-1.0, -1.0, -1.0]])
MASK = jnp.array([[True, True, True], [True, True, False], [False, False, False]])
LOGP = OLD + jnp.log(jnp.array([[2.0, 4.0, 1.0], [0.5, 2.0, 9.0], [9.0, 9.0, 9.0]]))


def test_ratios_by_hand():
    """Geometric means: (2 * 4 * 1)^(1/3) = 2, (0.5 * 2)^(1/2) = 1; masked tokens and rows have ratio 1."""
    np.testing.assert_allclose(token_ratio(LOGP, OLD, MASK), [[2, 4, 1], [0.5, 2, 1], [1, 1, 1]], rtol=1e-5)
    np.testing.assert_allclose(sequence_ratio(LOGP, OLD, MASK), [[2], [1], [1]], rtol=1e-5)


def test_the_gradient_of_a_sequence_ratio_is_shared_by_its_tokens():
    gradient = jax.grad(lambda logp: jnp.sum(sequence_ratio(logp, OLD, MASK)))(LOGP)
    np.testing.assert_allclose(gradient, [[2 / 3] * 3, [1 / 2, 1 / 2, 0], [0, 0, 0]], rtol=1e-5)


@pytest.mark.parametrize("ratio", [token_ratio, sequence_ratio])
def test_wild_log_ratios_stay_finite(ratio):
    wild = LOGP.at[0, 0].set(-1e30).at[1, 1].set(1e30).at[1, 2].set(jnp.nan)
    assert np.isfinite(ratio(wild, OLD, MASK)).all()
    assert np.isfinite(jax.grad(lambda logp: jnp.sum(ratio(logp, OLD, MASK)))(wild)).all()

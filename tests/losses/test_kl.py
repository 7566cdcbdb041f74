"""KL estimates by hand, and what their docstrings say of bias, by exact sums over a small vocabulary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses.calls import call
from urt_jax.losses.kl import KL_KINDS, k1_kl, k2_kl, k3_kl

KINDS = [k1_kl, k2_kl, k3_kl]


def test_values_by_hand():
    mask = jnp.array([[True, True, False]])
    logp, ref = jnp.array([[0.0, -1.0, 7.0]]), jnp.array([[0.0, -2.0, jnp.nan]])
    np.testing.assert_allclose(k1_kl(logp, ref, mask), [[0.0, 1.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(k2_kl(logp, ref, mask), [[0.0, 0.5, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(k3_kl(logp, ref, mask), [[0.0, np.exp(-1.0) + 1.0 - 1.0, 0.0]], rtol=1e-6)


def test_gradients_by_hand():
    """d/dlogp: 1, logp - ref, 1 - exp(ref - logp)."""
    mask, logp, ref = jnp.ones((1, 2), bool), jnp.array([[-1.0, -3.0]]), jnp.array([[-2.0, -1.0]])
    expected = [[1.0, 1.0], [1.0, -2.0], [1 - np.exp(-1.0), 1 - np.exp(2.0)]]
    for estimate, gradient in zip(KINDS, expected):
        got = jax.grad(lambda x, k=estimate: jnp.sum(k(x, ref, mask)))(logp)
        np.testing.assert_allclose(got, [gradient], rtol=1e-6)


@pytest.mark.parametrize("estimate", KINDS)
def test_wild_and_masked_values_stay_finite(estimate):
    mask = jnp.array([[True, True, True, False]])
    logp, ref = jnp.array([[0.0, -500.0, 500.0, jnp.nan]]), jnp.array([[0.0, 0.0, 0.0, jnp.nan]])
    assert np.isfinite(estimate(logp, ref, mask)).all()
    assert float(estimate(logp, ref, mask)[0, 3]) == 0.0
    assert np.isfinite(jax.grad(lambda x: jnp.sum(estimate(x, ref, mask)))(logp)).all()


def test_bias_of_values_and_gradients_is_as_told():
    """Expectations over all five tokens of a policy p beside a reference q, with respect to the policy's logits."""
    rng = np.random.default_rng(0)
    logits, ref_logits = jnp.asarray(rng.normal(size=(2, 5)), jnp.float32)
    q = jax.nn.log_softmax(ref_logits)

    def kl(x, y):
        return jnp.sum(jnp.exp(x) * (x - y))

    def expected_loss(logits, estimate):
        logp = jax.nn.log_softmax(logits)
        each = estimate(logp[None], q[None], jnp.ones((1, 5), bool))[0]
        return jnp.sum(jax.lax.stop_gradient(jnp.exp(logp)) * each)

    policy_to_ref = jax.grad(lambda x: kl(jax.nn.log_softmax(x), q))(logits)
    ref_to_policy = jax.grad(lambda x: kl(q, jax.nn.log_softmax(x)))(logits)
    gradients = [jax.grad(expected_loss)(logits, estimate) for estimate in KINDS]
    np.testing.assert_allclose(gradients[0], 0.0, atol=1e-6)
    np.testing.assert_allclose(gradients[1], policy_to_ref, atol=1e-6)
    np.testing.assert_allclose(gradients[2], ref_to_policy, atol=1e-6)
    assert np.abs(policy_to_ref - ref_to_policy).max() > 0.01
    exact = float(kl(jax.nn.log_softmax(logits), q))
    values = [float(expected_loss(logits, estimate)) for estimate in KINDS]
    assert values[0] == pytest.approx(exact, rel=1e-5)
    assert values[2] == pytest.approx(exact, rel=1e-5)
    assert abs(values[1] - exact) > 0.01


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_corrected_for_who_sampled_a_kl_is_that_of_the_policy_in_value_and_gradient(kind):
    """Expectations over all five tokens as another policy samples them, an older one, and as the policy itself does."""
    logits, old_logits, ref_logits = jnp.asarray(np.random.default_rng(1).normal(size=(3, 5)), jnp.float32)
    q = jax.nn.log_softmax(ref_logits)

    def exact(logits):
        logp = jax.nn.log_softmax(logits)
        return jnp.sum(jnp.exp(logp) * (logp - q))

    def of_token(logp, old, ref):
        """The loss of a sequence of one token without an advantage: its KL alone."""
        total, _, _ = call(
            "dapo",
            logp_BT=logp[None, None],
            old_logp_BT=old[None, None],
            ref_logp_BT=ref[None, None],
            sampler_logp_BT=None,
            advantage_B=jnp.zeros(1),
            mask_BT=jnp.ones((1, 1), bool),
            kl_kind=kind,
            kl_coef=1.0,
            kl_bias_correction=True,
        )
        return total

    def expected(logits, sampled_by):
        old = jax.nn.log_softmax(sampled_by)
        return jnp.sum(jnp.exp(old) * jax.vmap(of_token)(jax.nn.log_softmax(logits), old, q))

    value, gradient = jax.value_and_grad(exact)(logits)
    for sampled_by in (logits, old_logits):
        found, slope = jax.value_and_grad(expected)(logits, sampled_by)
        assert float(found) == pytest.approx(float(value), rel=1e-5)
        np.testing.assert_allclose(slope, gradient, atol=1e-6)


def test_the_table_has_every_kind():
    assert {"k1": k1_kl, "k2": k2_kl, "k3": k3_kl, "none": None} == KL_KINDS

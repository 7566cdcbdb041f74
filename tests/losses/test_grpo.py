"""Advantages, surrogate, KL and reductions by hand; micro-batches; errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from urt_jax.losses.grpo import (
    OBJECTIVES,
    clipped_surrogate,
    group_advantages,
    k3_kl,
    mean_of_sequence_means,
    mean_of_tokens,
    policy_loss,
    sum_over_fixed_length,
)

NAN = float("nan")


def advantages(rewards, **settings):
    return group_advantages(jnp.asarray(rewards, jnp.float32), **settings)


@pytest.mark.parametrize("jit", [False, True])
def test_group_scale_by_hand(jit):
    # [0, 0, 1, 2]: mean .75, sample variance (2 * .5625 + .0625 + 1.5625) / 3 = 2.75 / 3
    compute = jax.jit(group_advantages) if jit else group_advantages
    std = np.sqrt(2.75 / 3)
    got = compute(jnp.array([[0.0, 0.0, 1.0, 2.0], [1.0, 1.0, 1.0, 0.0]]))
    np.testing.assert_allclose(got[0], np.array([-0.75, -0.75, 0.25, 1.25]) / (std + 1e-4), rtol=1e-6)
    np.testing.assert_allclose(got[1], np.array([0.25, 0.25, 0.25, -0.75]) / (0.5 + 1e-4), rtol=1e-6)


def test_batch_scale_shares_one_deviation_and_keeps_group_means():
    rewards = np.array([[0.0, 2.0], [1.0, 1.0], [4.0, 5.0]])
    std = np.std(rewards, ddof=1)
    expected = np.array([[-1, 1], [0, 0], [-0.5, 0.5]]) / (std + 1e-4)
    np.testing.assert_allclose(advantages(rewards, scale="batch"), expected, rtol=1e-6)


def test_no_scale_takes_the_mean_off_only():
    np.testing.assert_array_equal(advantages([[0.0, 2.0, 4.0]], scale="none"), [[-2.0, 0.0, 2.0]])


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("constant", [0.0, 0.1, 0.9, 1.0, 1.1])
def test_equal_rewards_have_advantage_exactly_zero(scale, constant):
    got = advantages([[constant] * 8, [0.0, 1.0] * 4], scale=scale, eps=1e-9)
    np.testing.assert_array_equal(got[0], 0.0)
    assert float(jnp.abs(got[1]).min()) > 0.1


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_missing_rewards_leave_means_and_get_zero(scale):
    got = advantages([[1.0, NAN, 3.0, NAN], [NAN] * 4, [NAN, NAN, 2.0, NAN]], scale=scale)
    assert np.isfinite(got).all()
    std = {"group": np.sqrt(2) + 1e-4, "batch": 1 + 1e-4, "none": 1.0}[scale]  # batch: of [1, 3, 2]
    np.testing.assert_allclose(got[0], np.array([-1, 0, 1, 0]) / std, rtol=1e-6)
    np.testing.assert_array_equal(got[1:], 0.0)


def test_bad_scale_and_groups_of_one_are_refused():
    with pytest.raises(ValueError, match=r"scale is 'groups'; known are .* did you mean 'group'"):
        advantages([[0.0, 1.0]], scale="groups")
    with pytest.raises(ValueError, match=r"shape \(2, 1\): a group of 1 .* at least 2 responses"):
        advantages([[0.0], [1.0]])


def test_surrogate_on_both_sides_of_each_bound():
    ratio = jnp.array([[0.5, 1.0, 1.5], [0.5, 1.0, 1.5]])
    got = clipped_surrogate(ratio, jnp.array([2.0, -2.0]), clip_low=0.2, clip_high=0.3)
    # A > 0: min(2 rho, 2 clip) = 1, 2, 2.6;  A < 0: min(-2 rho, -2 clip) = -1.6, -2, -3
    np.testing.assert_allclose(got, [[-1.0, -2.0, -2.6], [1.6, 2.0, 3.0]], rtol=1e-6)


def test_surrogate_gradient_stops_outside_the_clip_only_where_it_would_help():
    def total(ratio):
        return jnp.sum(clipped_surrogate(ratio, jnp.array([2.0, -2.0]), clip_low=0.2, clip_high=0.3))

    gradient = jax.grad(total)(jnp.array([[0.5, 1.1, 1.5], [0.5, 0.9, 1.5]]))
    np.testing.assert_array_equal(gradient, [[-2.0, -2.0, 0.0], [0.0, 2.0, 2.0]])


def test_k3_by_hand_and_never_overflowing():
    mask = jnp.array([[True, True, True, False]])
    logp, ref = jnp.array([[0.0, -1.0, -500.0, -1e30]]), jnp.array([[0.0, -2.0, 0.0, 0.0]])
    got = k3_kl(logp, ref, mask)
    np.testing.assert_allclose(got[0, :2], [0.0, np.exp(-1.0) + 1.0 - 1.0], rtol=1e-6)
    assert np.isfinite(got).all()
    assert float(got[0, 3]) == 0.0
    assert np.isfinite(jax.grad(lambda x: jnp.sum(k3_kl(x, ref, mask)))(logp)).all()


LOSS = jnp.array([[1.0, 2.0, 3.0, 9.0], [4.0, 9.0, 9.0, 9.0], [9.0, 9.0, 9.0, 9.0]])
MASK = jnp.array([[True, True, True, False], [True, False, False, False], [False] * 4])


@pytest.mark.parametrize(
    ("reduction", "total", "denominator"),
    [(mean_of_sequence_means, 6.0, 3.0), (mean_of_tokens, 10.0, 4.0), (sum_over_fixed_length, 10.0, 24.0)],
)
def test_reductions_by_hand(reduction, total, denominator):
    got = reduction(LOSS, MASK, 8)
    assert (float(got[0]), float(got[1])) == (total, denominator)


# Two sequences of three and one tokens; log-ratios on both sides of each bound.
OLD = jnp.array([[-1.0, -2.0, -3.0], [-1.0, -1.0, -1.0]])
RATIO = np.array([[1.1, 1.5, 0.5], [0.5, 1.0, 1.0]], np.float32)
LOGP = OLD + jnp.log(RATIO)
REF = OLD - 0.5
TOKENS = jnp.array([[True, True, True], [True, False, False]])
ADVANTAGE = jnp.array([1.0, -2.0])
PER_TOKEN = np.array([[-1.1, -1.2, -0.5], [1.6, 0.0, 0.0]])
EXPECTED = {
    "grpo": (np.sum(PER_TOKEN[0]) / 3 + 1.6, 2.0),
    "dapo": (np.sum(PER_TOKEN), 4.0),
    "bnpo": (np.sum(PER_TOKEN), 4.0),
    "dr_grpo": (np.sum(PER_TOKEN), 2.0 * 5),
}


def loss(kind="grpo", rows=slice(None), logp=LOGP, **settings):
    given = {
        "old_logp_BT": OLD[rows],
        "ref_logp_BT": REF[rows],
        "sampler_logp_BT": OLD[rows] + 0.1,
        "advantage_B": ADVANTAGE[rows],
        "mask_BT": TOKENS[rows],
        "max_tokens": 5,
    }
    return policy_loss(kind, logp_BT=logp[rows], **given | settings)


def test_every_preset_has_a_hand_value():
    assert set(EXPECTED) == set(OBJECTIVES)


@pytest.mark.parametrize("kind", sorted(EXPECTED))
@pytest.mark.parametrize("jit", [False, True])
def test_policy_loss_by_hand(kind, jit):
    compute = jax.jit(lambda logp: loss(kind, logp=logp)) if jit else (lambda logp: loss(kind, logp=logp))
    total, denominator, metrics = compute(LOGP)
    assert (float(total), float(denominator)) == pytest.approx(EXPECTED[kind], rel=1e-5)
    assert float(metrics["policy_loss"][0]) == pytest.approx(EXPECTED[kind][0], rel=1e-5)


def test_metrics_by_hand():
    means = {name: float(total / count) for name, (total, count) in loss()[2].items()}
    delta = np.array([REF - LOGP])[0][np.asarray(TOKENS)]
    assert means == pytest.approx(
        {
            "clip_ratio/low_mean": 1 / 4,  # ratio .5 of the negative advantage; .5 of the positive one is not clipped
            "clip_ratio/high_mean": 1 / 4,
            "clip_ratio/region_mean": 2 / 4,
            "sampling/sampling_logp_difference/mean": 0.1,
            "sampling/importance_sampling_ratio/mean": np.exp(-0.1),
            "policy_loss": EXPECTED["grpo"][0] / 2,
            "kl": np.mean(np.exp(delta) - delta - 1),
        },
        rel=1e-5,
    )


def test_kl_is_added_with_its_coefficient_and_not_weighed_by_the_sampler_ratio():
    plain = loss("dapo")[0]
    kl_sum = loss("dapo")[2]["kl"][0]
    assert float(loss("dapo", kl_coef=0.04)[0]) == pytest.approx(float(plain + 0.04 * kl_sum), rel=1e-5)
    weighed = float(plain) * np.exp(-0.1)
    assert float(loss("dapo", sampler_ratio_cap=2.0)[0]) == pytest.approx(weighed, rel=1e-5)
    assert float(loss("dapo", sampler_ratio_cap=0.5)[0]) == pytest.approx(0.5 * float(plain), rel=1e-5)
    both = loss("dapo", sampler_ratio_cap=2.0, kl_coef=0.04)[0]
    assert float(both) == pytest.approx(weighed + 0.04 * float(kl_sum), rel=1e-5)


def test_without_old_logps_the_ratio_is_one_and_the_gradient_that_of_logp():
    def total(logp):
        return loss("dapo", logp=logp, old_logp_BT=None)[0]

    value, gradient = jax.value_and_grad(total)(LOGP)
    assert float(value) == pytest.approx(-(3 * 1.0 + 1 * -2.0))
    np.testing.assert_array_equal(gradient, -ADVANTAGE[:, None] * TOKENS.astype(jnp.float32))


def test_only_the_policy_carries_a_gradient():
    def total(others):
        old, ref, sampler, advantage = others
        arrays = {"old_logp_BT": old, "ref_logp_BT": ref, "sampler_logp_BT": sampler, "advantage_B": advantage}
        return loss(kl_coef=0.1, sampler_ratio_cap=2.0, **arrays)[0]

    for gradient in jax.grad(total)((OLD, REF, OLD, ADVANTAGE)):
        np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("kind", sorted(EXPECTED))
def test_micro_batches_add_up_to_the_whole(kind):
    whole = loss(kind, kl_coef=0.1)
    parts = [loss(kind, slice(row, row + 1), kl_coef=0.1) for row in range(2)]
    added = jax.tree.map(lambda a, b: a + b, *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), added, whole)


@pytest.mark.parametrize("kind", sorted(EXPECTED))
def test_rows_without_advantage_count_the_same_in_the_rows_or_left_out(kind):
    advantage = jnp.array([1.0, 0.0])
    whole = loss(kind, advantage_B=advantage, old_logp_BT=None)
    part = loss(kind, slice(0, 1), advantage_B=advantage[:1], old_logp_BT=None, idle_mask_XT=TOKENS[1:])
    assert (float(part[0]), float(part[1])) == pytest.approx((float(whole[0]), float(whole[1])))
    assert [*map(float, part[2]["policy_loss"])] == pytest.approx([*map(float, whole[2]["policy_loss"])])


@pytest.mark.parametrize("kind", sorted(EXPECTED))
def test_an_empty_mask_and_wild_values_stay_finite(kind):
    def total(logp, mask):
        return loss(kind, logp=logp, mask_BT=mask, kl_coef=0.1, sampler_ratio_cap=2.0)[0]

    wild = LOGP.at[0, 0].set(-1e30).at[1, 2].set(-jnp.inf)
    for mask in (TOKENS, jnp.zeros_like(TOKENS)):
        value, gradient = jax.value_and_grad(total)(wild, mask)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
    assert float(total(wild, jnp.zeros_like(TOKENS))) == 0.0


def test_reference_and_sampler_may_be_missing():
    metrics = loss(ref_logp_BT=None, sampler_logp_BT=None)[2]
    assert not any(name == "kl" or name.startswith("sampling/") for name in metrics)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "gpro"}, r"policy loss is 'gpro'; known are .* did you mean 'grpo'"),
        ({"ref_logp_BT": None, "kl_coef": 0.04}, r"kl_coef is 0.04 but ref_logp_BT is None: give the reference"),
        ({"sampler_logp_BT": None, "sampler_ratio_cap": 2.0}, r"sampler_ratio_cap is 2.0 but sampler_logp_BT is None"),
        ({"kind": "dr_grpo", "max_tokens": None}, r"give max_tokens"),
    ],
)
def test_errors_name_the_remedy(settings, message):
    with pytest.raises(ValueError, match=message):
        loss(**settings)

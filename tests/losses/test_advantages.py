"""Group advantages by hand: scales, missing rewards, equal rewards, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from urt_jax.losses.advantages import group_advantages

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
    with pytest.raises(ValueError, match=r"scale 'groups' is unknown; did you mean 'group'\? known: group, "):
        advantages([[0.0, 1.0]], scale="groups")
    with pytest.raises(ValueError, match=r"shape \(2, 1\): a group of 1 .* at least 2 responses"):
        advantages([[0.0], [1.0]])

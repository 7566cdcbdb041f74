"""Figures of an update by hand: what is clipped, per token and sequence, and how far the sampler is off."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses.calls import call

# Ratios of four rows; the last row is empty.
RATIO = np.array([[1.5, 1.0, 1.5], [0.5, 0.5, 1.0], [0.5, 1.5, 1.0], [9.0, 9.0, 9.0]])
ADVANTAGE = jnp.array([1.0, -1.0, -1.0, 1.0])
MASK = jnp.array([[True, True, True], [True, True, False], [True, True, True], [False] * 3])
OLD = jnp.full((4, 3), -1.0)
GAP = np.array([[0.1, -0.2, 0.0], [0.4, 0.0, 99.0], [0.0, 0.0, -0.3], [99.0, 99.0, 99.0]])  # old - sampler


def figures(kind="grpo", **settings):
    """Return every figure as a number: pairs divided."""
    given = {
        "logp_BT": OLD + jnp.log(RATIO),
        "old_logp_BT": OLD,
        "ref_logp_BT": OLD - 0.5,
        "sampler_logp_BT": OLD - GAP,
        "advantage_B": ADVANTAGE,
        "mask_BT": MASK,
        "max_tokens": 3,
    }
    metrics = call(kind, **given | settings)[2]
    return {name: float(x[0] / x[1]) if isinstance(x, tuple) else float(x) for name, x in metrics.items()}


CLIPPED = {
    "clip_ratio/low_mean": 3 / 8,  # 0.5 at negative advantages: two in the second row, one in the third
    "clip_ratio/low_min": 0.0,  # of the rows with tokens: 0, 1, 1/3
    "clip_ratio/high_mean": 2 / 8,  # 1.5 at the positive advantage
    "clip_ratio/high_max": 2 / 3,
    "clip_ratio/region_mean": 5 / 8,
}


@pytest.mark.parametrize("kind", ["grpo", "bnpo", "dr_grpo", "dapo"])
def test_shares_of_clipped_tokens(kind):
    found = figures(kind)
    assert {name: found[name] for name in found if "clip" in name} == pytest.approx(CLIPPED)


def test_the_least_share_is_over_sequences_with_tokens():
    found = figures(advantage_B=jnp.array([-1.0, -1.0, -1.0, 1.0]), logp_BT=OLD + jnp.log(jnp.full((4, 3), 0.5)))
    assert found["clip_ratio/low_min"] == 1.0


def test_rows_left_out_are_not_clipped():
    """Two idle rows, one of them with two tokens: they join every count, and the least share is 0."""
    idle = jnp.array([[True, True, False], [False] * 3])
    found = figures(
        advantage_B=jnp.array([-1.0, -1.0, -1.0, 1.0]),
        logp_BT=OLD + jnp.log(jnp.full((4, 3), 0.5)),
        idle_mask_XT=idle,
    )
    assert found["clip_ratio/low_mean"] == pytest.approx(8 / 10)
    assert found["clip_ratio/low_min"] == 0.0
    assert figures(idle_mask_XT=idle)["clip_ratio/high_max"] == pytest.approx(2 / 3)


def test_shares_of_clipped_sequences():
    """Geometric means: 2.25^(1/3) = 1.31 up, 0.25^(1/2) = 0.5 down, 0.75^(1/3) = 0.91 inside; the empty row is none."""
    found = figures("gspo")
    assert {name: found[name] for name in found if "clip" in name} == pytest.approx({
        "clip_ratio/low_mean": 1 / 3,
        "clip_ratio/low_min": 0.0,
        "clip_ratio/high_mean": 1 / 3,
        "clip_ratio/high_max": 1.0,
        "clip_ratio/region_mean": 2 / 3,
    })  # fmt: skip
    assert figures("gspo", idle_mask_XT=MASK[1:])["clip_ratio/high_mean"] == pytest.approx(1 / 5)


def test_cispo_counts_what_it_cuts_at_positive_advantages():
    found = figures("cispo", cispo_cap=1.4)
    assert {name: found[name] for name in found if "clip" in name} == pytest.approx({"cispo_clip_ratio": 2 / 8})


def test_sapo_clips_nothing():
    assert not any("clip" in name for name in figures("sapo"))


def test_figures_of_the_sampler():
    gaps = np.array([0.1, -0.2, 0.0, 0.4, 0.0, 0.0, 0.0, -0.3])
    found = figures()
    assert {name: found[name] for name in found if name.startswith(("sampling", "token", "gen"))} == pytest.approx(
        {
            "sampling/sampling_logp_difference/mean": 1.0 / 8,
            "sampling/sampling_logp_difference/max": 0.4,
            "sampling/importance_sampling_ratio/min": np.exp(-0.3),
            "sampling/importance_sampling_ratio/mean": np.exp(gaps).mean(),
            "sampling/importance_sampling_ratio/max": np.exp(0.4),
            "token_mult_prob_error": np.exp(np.abs(gaps)).mean(),
            "gen_kl_error": (np.exp(gaps) - gaps - 1).mean(),
        },
        rel=1e-5,
    )
    capped = figures(importance_cap=1.2)
    assert capped["sampling/importance_sampling_ratio/max"] == pytest.approx(1.2)
    assert capped["sampling/importance_sampling_ratio/mean"] == pytest.approx(np.minimum(np.exp(gaps), 1.2).mean())
    assert capped["sampling/sampling_logp_difference/max"] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("kind", "each"), [("k1", lambda d: -d), ("k2", lambda d: d**2 / 2), ("k3", lambda d: np.exp(d) - d - 1)]
)
def test_kl_is_the_mean_over_tokens_of_its_kind(kind, each):
    delta = (-0.5 - np.log(RATIO))[np.asarray(MASK)]  # ref - logp
    assert figures(kl_kind=kind)["kl"] == pytest.approx(each(delta).mean(), rel=1e-5)
    assert figures(kl_kind=kind, kl_coef=0.2)["kl"] == pytest.approx(each(delta).mean(), rel=1e-5)


def test_figures_without_reference_sampler_or_kind_are_missing():
    names = figures(ref_logp_BT=None, sampler_logp_BT=None)
    assert not any(name == "kl" or name.startswith(("sampling/", "token_", "gen_")) for name in names)
    assert "kl" not in figures(kl_kind="none")


def test_of_nothing_means_are_zero_over_zero_and_extremes_are_missing():
    metrics = call(
        "grpo",
        logp_BT=OLD,
        old_logp_BT=OLD,
        ref_logp_BT=OLD,
        sampler_logp_BT=OLD,
        advantage_B=ADVANTAGE,
        mask_BT=jnp.zeros_like(MASK),
    )[2]
    for name, value in metrics.items():
        if name.endswith(("min", "max")):
            assert np.isnan(value), name
        elif name != "policy_loss":
            assert [*map(float, value)] == [0.0, 0.0], name

"""The policy loss: every preset by hand and as TRL's formula, every split of the rows, what is masked, errors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses.calls import call
from tests.losses.trl_formulas import KINDS, LENGTH, Knobs, Rows, draw_rows, per_token, value_and_gradient
from urt_jax.losses.grpo import OBJECTIVES, entropy_bonus
from urt_jax.losses.policy import READ_BY

# Two sequences of three and one tokens; ratios on both sides of each bound.
OLD = jnp.array([[-1.0, -2.0, -3.0], [-1.0, -1.0, -1.0]])
RATIO = np.array([[1.1, 1.5, 0.5], [0.5, 1.0, 1.0]], np.float32)
LOGP = OLD + jnp.log(RATIO)
REF = OLD - 0.5
TOKENS = jnp.array([[True, True, True], [True, False, False]])
ADVANTAGE = jnp.array([1.0, -2.0])
CLIPPED = np.array([-1.1, -1.2, -0.5, 1.6])
# Geometric mean of 1.1, 1.5 and 0.5 is 0.825^(1/3) = 0.938, inside the clip; 0.5 is below it against A = -2.
SEQUENCE = np.array([-(0.825 ** (1 / 3)), 1.6])
# -min(rho, 1.2) A logp
CISPO = np.array(
    [-1.1 * (-1 + np.log(1.1)), -1.2 * (-2 + np.log(1.5)), -0.5 * (-3 + np.log(0.5)), 0.5 * 2 * (-1 + np.log(0.5))]
)
SAPO = np.array([-4 / (1 + np.exp(-x)) for x in (0.1, 0.5, -0.5)] + [2 * 4 / 1.05 / (1 + np.exp(1.05 * 0.5))])
EXPECTED = {
    "grpo": (CLIPPED[:3].mean() + CLIPPED[3], 2.0),
    "bnpo": (CLIPPED.sum(), 4.0),
    "dapo": (CLIPPED.sum(), 4.0),
    "dr_grpo": (CLIPPED.sum(), 2.0 * 5),
    "gspo": (SEQUENCE.sum(), 2.0),
    "cispo": (CISPO.sum(), 4.0),
    "sapo": (SAPO[:3].mean() + SAPO[3], 2.0),
}


def loss(kind="grpo", rows=slice(None), logp=LOGP, **settings):
    given = {
        "old_logp_BT": OLD[rows],
        "ref_logp_BT": REF[rows],
        "sampler_logp_BT": OLD[rows] + 0.1,
        "advantage_B": ADVANTAGE[rows],
        "mask_BT": TOKENS[rows],
        "max_tokens": 5,
        "cispo_cap": 1.2,
    }
    return call(kind, logp_BT=logp[rows], **given | settings)


def of_rows(kind, rows: Rows, knobs: Knobs, logp=None, **settings):
    """Return the loss of drawn rows with the constants of ``knobs``."""
    given = {
        "old_logp_BT": jnp.asarray(rows.old, jnp.float32),
        "ref_logp_BT": jnp.asarray(rows.ref, jnp.float32),
        "sampler_logp_BT": jnp.asarray(rows.sampler, jnp.float32),
        "advantage_B": jnp.asarray(rows.advantage, jnp.float32),
        "mask_BT": jnp.asarray(rows.mask),
        "max_tokens": LENGTH,
    }
    logp = jnp.asarray(rows.logp, jnp.float32) if logp is None else logp
    return call(kind, logp_BT=logp, **given | knobs._asdict() | settings)


def gradient_of(kind, rows: Rows, knobs: Knobs, **settings):
    """Return the gradient of the sum (not yet divided) to each log-probability."""
    logp = jnp.asarray(rows.logp, jnp.float32)
    return np.asarray(jax.grad(lambda x: of_rows(kind, rows, knobs, x, **settings)[0])(logp))


def take(rows: Rows, kept) -> Rows:
    return Rows(*(part[np.asarray(kept)] for part in rows))


def add(parts, others):
    """Add the parts of two micro-batches; minima and maxima are joined, NaN is one of nothing."""

    def joined(name):
        one, other = parts[2][name], others[2][name]
        if isinstance(one, tuple):
            return one[0] + other[0], one[1] + other[1]
        return (np.fmin if name.endswith("min") else np.fmax)(one, other)

    return parts[0] + others[0], parts[1] + others[1], {name: joined(name) for name in parts[2]}


def assert_parts_close(found, wanted):
    assert found[2].keys() == wanted[2].keys()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6), found, wanted)


# ---- values ----


def test_every_preset_is_covered():
    assert set(EXPECTED) == set(OBJECTIVES) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("jit", [False, True])
def test_policy_loss_by_hand(kind, jit):
    compute = jax.jit(lambda logp: loss(kind, logp=logp)) if jit else (lambda logp: loss(kind, logp=logp))
    total, denominator, metrics = compute(LOGP)
    assert (float(total), float(denominator)) == pytest.approx(EXPECTED[kind], rel=1e-6)
    assert float(metrics["policy_loss"][0]) == pytest.approx(EXPECTED[kind][0], rel=1e-6)


def test_the_drawn_rows_stand_on_both_sides_of_every_bound():
    rows = draw_rows()
    for kind in ("grpo", "gspo"):
        log_ratio = np.where(rows.mask, rows.logp - rows.old, np.nan)
        ratio = np.exp(np.nanmean(log_ratio[rows.mask.any(1)], axis=1) if kind == "gspo" else log_ratio)
        signs = np.sign(rows.advantage[rows.mask.any(1)] if kind == "gspo" else rows.advantage[:, None] + 0 * ratio)
        for bounds in ((0, 0.8), (0.8, 1.3), (1.3, 2.0), (2.0, 99)):
            inside = (ratio > bounds[0]) & (ratio < bounds[1])
            assert {-1, 1} <= set(signs[inside]) or (kind == "gspo" and inside.any()), (kind, bounds)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "knobs",
    [
        Knobs(),
        Knobs(delta=2.0),
        Knobs(importance_cap=1.5),
        Knobs(kl_coef=0.3),
        Knobs(kl_coef=0.3, kl_kind="k1"),
        Knobs(kl_coef=0.3, kl_bias_correction=True),
        Knobs(kl_coef=0.3, kl_kind="k2", importance_cap=1.5, delta=2.0),
    ],
    ids=str,
)
def test_value_and_gradient_are_those_of_trls_formula(kind, knobs):
    rows = draw_rows()
    value, gradient = value_and_gradient(kind, rows, knobs)
    total, denominator, _ = of_rows(kind, rows, knobs)
    assert float(total) / float(denominator) == pytest.approx(value, abs=1e-6)
    np.testing.assert_allclose(gradient_of(kind, rows, knobs) / float(denominator), gradient, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bound_matters_where_the_settings_say_that_it_is_read(kind):
    rows, other = draw_rows(), Knobs(0.1, 0.15, 1.5, 1.1, 2.0, 2.5)
    plain = float(of_rows(kind, rows, Knobs())[0])
    for key, losses in READ_BY.items():
        changed = float(of_rows(kind, rows, Knobs()._replace(**{key: getattr(other, key)}))[0])
        assert (changed != plain) == (kind in losses), key


def test_kl_is_added_with_its_coefficient_and_not_weighed_by_the_sampler_ratio():
    plain, kl_sum = loss("dapo")[0], loss("dapo")[2]["kl"][0]
    assert float(loss("dapo", kl_coef=0.04)[0]) == pytest.approx(float(plain + 0.04 * kl_sum), rel=1e-5)
    weighed = float(plain) * np.exp(-0.1)
    assert float(loss("dapo", importance_cap=2.0)[0]) == pytest.approx(weighed, rel=1e-5)
    assert float(loss("dapo", importance_cap=0.5)[0]) == pytest.approx(0.5 * float(plain), rel=1e-5)
    both = loss("dapo", importance_cap=2.0, kl_coef=0.04)
    assert float(both[0]) == pytest.approx(weighed + 0.04 * float(kl_sum), rel=1e-5)
    assert float(both[2]["policy_loss"][0]) == float(both[0])


# ---- gradients ----


@pytest.mark.parametrize("kind", KINDS)
def test_without_old_logps_the_ratio_is_one_and_the_gradient_that_of_logp(kind):
    """The first update: -A a token in every loss, by the reduction's weight."""
    weight = {"grpo": 1 / 3, "sapo": 1 / 3, "gspo": 1 / 3}.get(kind, 1.0)
    gradient = jax.grad(lambda logp: loss(kind, logp=logp, old_logp_BT=None)[0])(LOGP)
    np.testing.assert_allclose(gradient, [[-weight] * 3, [2.0, 0.0, 0.0]], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_policy_carries_a_gradient(kind):
    def total(others):
        old, ref, sampler, advantage = others
        arrays = {"old_logp_BT": old, "ref_logp_BT": ref, "sampler_logp_BT": sampler, "advantage_B": advantage}
        return loss(kind, kl_coef=0.1, importance_cap=2.0, **arrays)[0]

    for gradient in jax.grad(total)((OLD, REF, OLD, ADVANTAGE)):
        np.testing.assert_array_equal(gradient, 0.0)


# ---- splits and masks ----

FULL = Knobs(delta=2.0, importance_cap=1.5, kl_coef=0.3, kl_bias_correction=True)


@pytest.mark.parametrize("kind", KINDS)
def test_every_split_into_micro_batches_adds_up_to_the_whole(kind):
    rows = draw_rows()
    whole, gradient = of_rows(kind, rows, FULL), gradient_of(kind, rows, FULL)
    cuts = [cut for size in (1, 2) for cut in itertools.combinations(range(1, 8), size)] + [tuple(range(1, 8))]
    compute = jax.jit(
        lambda part: jax.value_and_grad(
            lambda logp: (lambda t, d, m: (t, (d, m)))(*of_rows(kind, part, FULL, logp)), has_aux=True
        )(jnp.asarray(part.logp, jnp.float32))
    )
    for cut in cuts:
        pieces = np.split(np.random.default_rng(len(cut)).permutation(8), cut)
        done = [compute(Rows(*map(jnp.asarray, take(rows, piece)))) for piece in pieces]
        added = [(total, denominator, metrics) for (total, (denominator, metrics)), _ in done]
        total = added[0]
        for part in added[1:]:
            total = add(total, part)
        assert_parts_close(total, whole)
        found = np.zeros_like(gradient)
        for piece, (_, part) in zip(pieces, done):
            found[piece] = part
        np.testing.assert_allclose(found, gradient, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_masked_may_be_nan(kind):
    rows = draw_rows()
    holes = rows._replace(**{
        name: np.where(rows.mask, getattr(rows, name), np.nan) for name in ("logp", "old", "ref", "sampler")
    })  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, of_rows(kind, holes, FULL), of_rows(kind, rows, FULL))
    np.testing.assert_array_equal(gradient_of(kind, holes, FULL), gradient_of(kind, rows, FULL))
    np.testing.assert_array_equal(gradient_of(kind, holes, FULL)[~rows.mask], 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_mask_and_wild_values_stay_finite(kind):
    def total(logp, mask):
        return loss(kind, logp=logp, mask_BT=mask, kl_coef=0.1, importance_cap=2.0)[0]

    wild = LOGP.at[0, 0].set(-1e30).at[1, 2].set(-jnp.inf)
    for mask in (TOKENS, jnp.zeros_like(TOKENS)):
        value, gradient = jax.value_and_grad(total)(wild, mask)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
    empty = jnp.zeros_like(TOKENS)
    assert float(total(wild, empty)) == 0.0
    np.testing.assert_array_equal(jax.grad(total)(wild, empty), 0.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", [False, True])
def test_rows_without_advantage_count_the_same_in_the_rows_or_left_out(kind, first):
    """Value, gradient, denominator and every share of clipped tokens; the sampler's figures need the rows."""
    rows = draw_rows()
    rows = rows._replace(advantage=np.where(np.arange(8) % 3 == 0, 0.0, rows.advantage))
    kept, idle = np.flatnonzero(rows.advantage != 0), np.flatnonzero(rows.advantage == 0)
    settings = {"old_logp_BT": None} if first else {}
    whole = of_rows(kind, rows, Knobs(), **settings)
    part = of_rows(kind, take(rows, kept), Knobs(), idle_mask_XT=jnp.asarray(rows.mask[idle]), **settings)
    names = [name for name in whole[2] if "clip" in name or name == "policy_loss"]
    assert_parts_close(
        (*part[:2], {name: part[2][name] for name in names}), (*whole[:2], {name: whole[2][name] for name in names})
    )
    np.testing.assert_allclose(
        gradient_of(kind, take(rows, kept), Knobs(), idle_mask_XT=jnp.asarray(rows.mask[idle]), **settings),
        gradient_of(kind, rows, Knobs(), **settings)[kept],
        rtol=1e-6,
    )


# ---- entropy ----


def test_entropy_bonus_by_hand():
    entropy = jnp.array([[0.5, 1.0, 2.0], [0.3, jnp.nan, 9.0]])
    total, tokens, metrics = entropy_bonus(entropy, TOKENS)
    assert (float(total), float(tokens)) == pytest.approx((-3.8, 4.0))
    assert [*map(float, metrics["entropy"])] == pytest.approx([3.8, 4.0])
    gradient = jax.grad(lambda x: entropy_bonus(x, TOKENS)[0])(entropy)
    np.testing.assert_array_equal(gradient, -TOKENS.astype(jnp.float32))
    np.testing.assert_array_equal(jax.grad(lambda x: entropy_bonus(x, TOKENS)[2]["entropy"][0])(entropy), 0.0)
    assert [*map(float, entropy_bonus(entropy, jnp.zeros_like(TOKENS))[:2])] == [0.0, 0.0]
    parts = [entropy_bonus(entropy[row : row + 1], TOKENS[row : row + 1]) for row in range(2)]
    assert float(parts[0][0] + parts[1][0]) == pytest.approx(float(total))


# ---- errors ----


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "gpro"}, r"policy loss 'gpro' is unknown; did you mean 'grpo'\? known: .*gspo"),
        ({"kl_kind": "k4"}, r"kl_kind 'k4' is unknown; did you mean 'k[123]'\? known: k1, k2, k3, none"),
        ({"ref_logp_BT": None, "kl_coef": 0.04}, r"kl_coef is 0.04 but ref_logp_BT is None: give the reference"),
        ({"kl_kind": "none", "kl_coef": 0.04}, r"kl_coef is 0.04 but kl_kind is 'none': give kl_coef 0, or a kind"),
        ({"kl_coef": 0.04, "idle_mask_XT": TOKENS}, r"kl_coef is 0.04 but 2 rows were left out .* keep them all"),
        ({"sampler_logp_BT": None, "importance_cap": 2.0}, r"importance_cap is 2.0 but sampler_logp_BT is None"),
        ({"kind": "dr_grpo", "max_tokens": None}, r"give max_tokens"),
    ],
)
def test_errors_name_the_remedy(settings, message):
    with pytest.raises(ValueError, match=message):
        loss(**settings)


def test_surrogates_of_the_formulas_differ():
    """Seven losses over four surrogates: one and the same is clipped by tokens in four of them."""
    values = [float((per_token(kind, draw_rows(), Knobs())[0] * draw_rows().mask).sum()) for kind in KINDS]
    assert len({round(value, 6) for value in values}) == 4

"""Top-k, top-p, min-p by hand values and against transformers; the draw and its log-probability."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from urt_jax.ops.logprobs import chosen_logps, temper_logits
from urt_jax.ops.token_choice import choose_token, filter_logits, penalise_repetition

NEUTRAL = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
TRANSFORMS = pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])


def settings(rows, **given):
    """Arrays of settings, neutral where not given; a scalar serves all rows."""
    columns = {name: np.broadcast_to(given.get(name, value), (rows,)) for name, value in NEUTRAL.items()}
    kinds = {"top_k": jnp.int32}
    return {f"{name}_B": jnp.asarray(column, kinds.get(name, jnp.float32)) for name, column in columns.items()}


def kept(logits, **given):
    """For every row, the ids that stay possible."""
    order = given.pop("order", "hf")
    suppress = given.pop("suppress", None)
    logits = jnp.atleast_2d(jnp.asarray(logits, jnp.float32))
    out = filter_logits(logits, order=order, suppress_V=suppress, **settings(len(logits), **given))
    ids = [np.flatnonzero(np.isfinite(row)).tolist() for row in np.asarray(out)]
    return ids[0] if len(ids) == 1 else ids


P532 = np.log([0.5, 0.3, 0.2])


def test_neutral_settings_keep_every_token_and_value():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9)), jnp.float32)
    np.testing.assert_array_equal(filter_logits(logits, **settings(2)), logits)


@pytest.mark.parametrize(
    ("top_p", "expected"), [(0.0, [0]), (0.5, [0]), (0.51, [0, 1]), (0.8, [0, 1]), (0.81, [0, 1, 2]), (1.0, [0, 1, 2])]
)
def test_top_p_boundaries(top_p, expected):
    assert kept(P532, top_p=top_p) == expected


def test_top_p_boundary_survives_rounding():
    assert kept(np.log([0.6, 0.3, 0.1]), top_p=0.6) == [0]  # in float32, .3 + .1 is a little more than 1 - .6


@pytest.mark.parametrize(
    ("top_k", "expected"), [(1, [0, 1, 2]), (2, [0, 1, 2]), (3, [0, 1, 2]), (4, [0, 1, 2, 3]), (9, [0, 1, 2, 3])]
)
def test_top_k_keeps_ties_with_the_kth(top_k, expected):
    assert kept([1.0, 1.0, 1.0, 0.0], top_k=top_k) == expected


def test_ties_kept_by_top_k_share_the_probability():
    out = filter_logits(jnp.array([[1.0, 1.0, 1.0, 0.0]]), **settings(1, top_k=2))
    np.testing.assert_allclose(jax.nn.softmax(out, axis=-1), [[1 / 3, 1 / 3, 1 / 3, 0.0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("min_p", "expected"), [(0.0, [0, 1, 2]), (0.25, [0, 1, 2]), (0.45, [0, 1]), (0.7, [0]), (1.0, [0])]
)
def test_min_p_removes_what_is_less_likely_than_its_share_of_the_best(min_p, expected):
    assert kept(P532, min_p=min_p) == expected


def test_min_p_keeps_a_token_exactly_at_the_boundary_with_and_without_sort():
    logits = np.log([0.5, 0.25, 0.25])
    assert kept(logits, min_p=0.5) == [0, 1, 2]
    assert kept(logits, min_p=0.5, top_k=3) == [0, 1, 2]
    assert kept(logits, min_p=0.51) == [0]


def test_temperature_comes_before_top_p():
    assert kept(P532, top_p=0.6, temperature=1.0) == [0, 1]
    assert kept(P532, top_p=0.6, temperature=0.5) == [0]  # squares: .25 .09 .04 -> .66 .24 .11


@TRANSFORMS
def test_rows_have_their_own_settings_in_one_program(transform):
    out = transform(filter_logits)(
        jnp.asarray(np.tile(P532, (5, 1)), jnp.float32)[:, ::-1],
        **settings(
            5, temperature=[1, 1, 1, 0, 1], top_k=[0, 1, 0, 0, 0], top_p=[1, 1, 0.8, 1, 1], min_p=[0, 0, 0, 0, 0.7]
        ),
    )
    expected = [
        [True, True, True],
        [False, False, True],
        [False, True, True],
        [False, False, True],
        [False, False, True],
    ]
    np.testing.assert_array_equal(np.isfinite(out), expected)
    np.testing.assert_allclose(out[0], P532[::-1], rtol=1e-6)


def test_the_two_orders_differ_when_filters_meet():
    # top-p .7 alone keeps two of .4 .3 .2 .1; after top-k 2 the rest is .57 .43, of which .7 keeps both;
    # min_p .6 keeps .4 and .3, and then top-p .55 keeps one (.57), while top-p .55 of the whole keeps two.
    logits = np.log([0.4, 0.3, 0.2, 0.1])
    assert kept(logits, top_p=0.55, min_p=0.6, order="hf") == [0, 1]
    assert kept(logits, top_p=0.55, min_p=0.6, order="vllm") == [0]


def test_unknown_order_names_the_known_ones():
    with pytest.raises(ValueError, match=r"order 'vlm' is unknown; did you mean 'vllm'\? known: hf, vllm"):
        kept(P532, order="vlm")


def test_suppressed_tokens_leave_before_the_filters_count():
    assert kept(P532, suppress=jnp.array([True, False, False])) == [1, 2]
    assert kept(P532, suppress=jnp.array([True, False, False]), top_k=1) == [1]
    assert kept(P532, suppress=jnp.array([True, False, False]), temperature=0.0) == [1]


def test_greedy_takes_the_first_of_equals_and_ignores_the_filters():
    assert kept([0.0, 2.0, 2.0, 1.0], temperature=0.0) == [1]
    assert kept([0.0, 2.0, 2.0, 1.0], temperature=0.0, top_k=3, top_p=0.9, min_p=0.1) == [1]


def test_nothing_is_sorted_unless_a_sampled_row_filters():
    text = jax.jit(filter_logits).lower(jnp.zeros((2, 9)), **settings(2)).as_text()
    before_branches = text.split("stablehlo.case")[0].split("func.func public")[1]
    assert "sort" not in before_branches  # the sort lives in a branch of the conditional only
    assert "sort" in text


def draws(rows, seed=0):
    """Uniform numbers in (0, 1], one a row."""
    return 1.0 - jax.random.uniform(jax.random.key(seed), (rows,))


@TRANSFORMS
@pytest.mark.parametrize(
    "given",
    [
        {"temperature": 0.7},
        {"temperature": 1.5, "top_k": 6},
        {"top_p": 0.8},
        {"min_p": 0.1, "temperature": 1.3},
    ],
    ids=str,
)
def test_100_000_draws_follow_the_distribution(transform, given):
    """Pearson's chi-square against float64 probabilities; one right sampler in 10,000 fails, the seed is fixed."""
    rows, width = 100_000, 12
    logits = np.random.default_rng(5).normal(size=width) * 1.5
    kept_ids = kept(logits, **given)
    weights = np.zeros(width)
    weights[kept_ids] = np.exp(logits[kept_ids] / given.get("temperature", 1.0))
    expected = rows * weights / weights.sum()

    def draw(draw_B, logits_V):  # given, not closed over: XLA would fold the constant through every sort
        logits_BV = jnp.broadcast_to(logits_V, (rows, width))
        filtered = filter_logits(logits_BV, **settings(rows, **given))
        return choose_token(draw_B, filtered, temper_logits(logits_BV, given.get("temperature", 1.0)))

    ids, logp = transform(draw)(draws(rows), jnp.asarray(logits, jnp.float32))
    counts = np.bincount(np.asarray(ids), minlength=width)
    assert counts[weights == 0].sum() == 0
    possible = expected > 0
    chi_square = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    assert chi_square < scipy.stats.chi2.ppf(1 - 1e-4, possible.sum() - 1)
    # the log-probability is that of the full distribution, not of the tokens left
    full = logits / given.get("temperature", 1.0)
    np.testing.assert_allclose(logp, (full - np.log(np.exp(full).sum()))[np.asarray(ids)], rtol=1e-4, atol=1e-5)


def test_a_row_depends_on_its_own_draw_only():
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(6, 50)), jnp.float32)
    mine = draws(6, seed=3)
    together, _ = choose_token(mine, logits, logits)
    order = jnp.array([4, 0, 5, 2])
    shuffled, _ = choose_token(mine[order], logits[order], logits[order])
    np.testing.assert_array_equal(shuffled, together[order])
    assert len(set(together.tolist())) > 1


def test_draws_at_the_ends_take_the_first_and_the_last_possible_token():
    logits = jnp.array([[-jnp.inf, 0.0, 1.0, -jnp.inf, 2.0, -jnp.inf]] * 2)
    ids, _ = choose_token(jnp.array([jnp.finfo(jnp.float32).tiny, 1.0]), logits, jnp.maximum(logits, -1e30))
    assert ids.tolist() == [1, 4]


@pytest.mark.parametrize("width", [1, 2, 7, 33, 752, 5000])
def test_the_token_is_where_the_running_sum_reaches_the_draw(width):
    """Beside one float64 search over the whole vocabulary; a third of the tokens cannot be drawn."""
    rng = np.random.default_rng(width)
    rows = 400
    logits = np.where(rng.random((rows, width)) < 1 / 3, -np.inf, 3 * rng.standard_normal((rows, width)))
    logits[np.isinf(logits).all(axis=1), 0] = 0.0
    drawn = draws(rows, seed=width)
    given = jnp.asarray(logits, jnp.float32)
    ids = np.asarray(choose_token(drawn, given, jnp.maximum(given, -1e30))[0])
    mass = np.exp(logits - logits.max(axis=1, keepdims=True)).cumsum(axis=1)
    share = mass / mass[:, -1:]
    wanted = np.asarray(drawn, np.float64)
    assert np.isfinite(logits[np.arange(rows), ids]).all()
    below = np.where(ids > 0, share[np.arange(rows), ids - 1], 0.0)
    assert (below <= wanted + 1e-5).all()
    assert (share[np.arange(rows), ids] >= wanted - 1e-5).all()


def test_greedy_ignores_the_draw_and_reports_temperature_one():
    logits = jnp.array([[0.0, 2.0, 1.0]])
    filtered = filter_logits(logits, **settings(1, temperature=0.0))
    tempered = temper_logits(logits, jnp.zeros(1))
    for seed in range(5):
        ids, logp = choose_token(draws(1, seed), filtered, tempered)
        assert ids.tolist() == [1]
        np.testing.assert_allclose(logp, jax.nn.log_softmax(logits[0])[1:2], rtol=1e-6)


def test_sampler_and_trainer_agree_on_the_log_probability():
    rng = np.random.default_rng(2)
    hidden, head = jnp.asarray(rng.normal(size=(8, 4)), jnp.float32), jnp.asarray(rng.normal(size=(11, 4)), jnp.float32)
    suppress = jnp.asarray(np.arange(11) >= 9)
    logits = hidden @ head.T
    filtered = filter_logits(logits, suppress_V=suppress, **settings(8, temperature=0.7, top_p=0.9))
    ids, logp = choose_token(draws(8), filtered, temper_logits(logits, jnp.full(8, 0.7), suppress))
    trainer_logp, _ = chosen_logps(hidden, head, ids, temperature=0.7, suppress_V=suppress, chunk=4)
    np.testing.assert_allclose(logp, trainer_logp, rtol=1e-5, atol=1e-6)
    assert int(ids.max()) < 9


@pytest.mark.parity
@pytest.mark.parametrize(
    "given",
    [
        {"top_k": 5},
        {"top_p": 0.8},
        {"min_p": 0.1},
        {"temperature": 0.6, "top_k": 12, "top_p": 0.7},
        {"temperature": 1.4, "top_k": 20, "top_p": 0.95, "min_p": 0.05},
    ],
    ids=str,
)
def test_filters_equal_transformers(given):
    torch = pytest.importorskip("torch", reason="parity with transformers needs torch")
    warpers = pytest.importorskip("transformers.generation.logits_process")
    logits = np.random.default_rng(4).normal(size=(16, 40)).round(1).astype(np.float32) * 2  # rounded: many ties
    made = {
        "temperature": lambda value: warpers.TemperatureLogitsWarper(value),
        "top_k": lambda value: warpers.TopKLogitsWarper(value),
        "top_p": lambda value: warpers.TopPLogitsWarper(value),
        "min_p": lambda value: warpers.MinPLogitsWarper(value),
    }
    expected = torch.from_numpy(logits)
    for name, make in made.items():
        if name in given:
            expected = make(given[name])(None, expected)
    ours = filter_logits(jnp.asarray(logits), **settings(16, **given))
    # Sorted: which of equal tokens top-p cuts off is left open by torch's sort.
    np.testing.assert_allclose(np.sort(ours, axis=-1), np.sort(expected.numpy(), axis=-1), rtol=1e-5)
    if "top_p" not in given:
        np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-5)


def test_repetition_penalty_by_hand() -> None:
    logits = jnp.array([[2.0, -1.0, 3.0], [2.0, -1.0, 3.0]])
    seen = jnp.array([[True, True, False], [True, True, True]])
    found = penalise_repetition(logits, seen, jnp.array([2.0, 1.0]))
    np.testing.assert_allclose(found, [[1.0, -2.0, 3.0], [2.0, -1.0, 3.0]])


def test_repetition_penalty_equals_transformers() -> None:
    torch = pytest.importorskip("torch", reason="parity with transformers needs torch")
    from transformers import RepetitionPenaltyLogitsProcessor

    rng = np.random.default_rng(0)
    logits, ids = rng.standard_normal((4, 30)).astype(np.float32), rng.integers(0, 30, (4, 9))
    seen = np.zeros((4, 30), bool)
    np.put_along_axis(seen, ids, True, axis=1)
    expected = RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor(ids), torch.tensor(logits))
    np.testing.assert_allclose(penalise_repetition(logits, seen, np.full(4, 1.3, np.float32)), expected, rtol=1e-6)

"""The named protocols."""

from urt_jax.evals.protocols import PROTOCOLS


def test_ours_judges_both_orders_and_counts_unparsed_as_wrong() -> None:
    ours = PROTOCOLS["urt"]
    assert (ours.orders, ours.unparsed, ours.votes) == ("both", "wrong", 1)


def test_modes_change_temperature_and_thinking_only() -> None:
    ours = PROTOCOLS["urt"]
    assert ours.in_mode("greedy") == ours
    assert (ours.in_mode("sampled").temperature, ours.in_mode("sampled").think) == (1.0, True)
    assert (ours.in_mode("direct").temperature, ours.in_mode("direct").think) == (0.0, False)
    assert ours.in_mode("direct").orders == "both"


def test_one_line_names_everything_that_matters() -> None:
    line = PROTOCOLS["urt"].in_mode("sampled").describe()
    assert line == "urt: each pair in both orders, temperature 1, one response, with reasoning, unparsed = wrong"

"""Where the lines of a learning curve lie."""

import pytest

from urt_jax.evals.charts import HEIGHT, WIDTH, make_chart, nice_ticks, number


def test_ticks_are_round_and_enclose_the_values() -> None:
    assert nice_ticks(0.0, 1.0) == [0.0, 0.5, 1.0]
    assert nice_ticks(2.0, 2.0) == [1.0, 2.0, 3.0]
    assert nice_ticks(0.0, 0.0)[0] < 0 < nice_ticks(0.0, 0.0)[-1]
    for low, high in ((0.31, 0.97), (-3.0, 0.2), (1e-6, 9e-6), (0.0, 12345.0), (99.9, 100.0)):
        ticks = nice_ticks(low, high)
        assert 3 <= len(ticks) <= 6, ticks
        assert ticks[0] <= low + 1e-12
        assert ticks[-1] >= high - 1e-12


def test_a_short_curve_is_drawn_as_it_is() -> None:
    chart = make_chart("reward", [(0, 0.0), (10, 1.0)])
    assert chart is not None
    assert chart.raw == ""
    left, right = (tuple(map(float, place.split(","))) for place in chart.smooth.split())
    assert left == (chart.left, chart.bottom)
    assert right == (chart.right, 10)
    assert (chart.first_value, chart.last_value) == ("0", "1")
    assert [label for _, label in chart.x_ticks] == ["0", "10"]


def test_a_long_curve_is_thinned_smoothed_and_stays_in_its_box() -> None:
    chart = make_chart("loss", [(n, 1.0 + (-1) ** n) for n in range(5000)])
    assert chart is not None
    assert 200 <= len(chart.raw.split()) <= 240
    for place in chart.smooth.split() + chart.raw.split():
        x, y = map(float, place.split(","))
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT


def test_smoothing_keeps_a_straight_line_straight() -> None:
    chart = make_chart("lr", [(n, float(n)) for n in range(40)])
    assert chart is not None
    assert chart.smooth == chart.raw


def test_values_that_are_not_finite_are_left_out() -> None:
    chart = make_chart("kl", [(0, float("nan")), (1, 2.0), (2, float("inf"))])
    assert chart is not None
    assert (chart.last_value, len(chart.smooth.split())) == ("2", 1)
    assert make_chart("kl", [(0, float("nan"))]) is None
    assert make_chart("kl", []) is None


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.30000000000000004, "0.3"), (2e-5, "2.0e-05"), (12345.6, "12,346"), (-1.5, "-1.5")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text

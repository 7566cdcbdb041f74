"""Bars lie where their values say."""

import pytest

from urt_jax.evals.bars import WIDTH, make_bars


def test_parts_follow_each_other_and_keep_their_colours() -> None:
    chart = make_bars(
        "memory", [("one", {"a": 2.0, "b": 6.0}, ""), ("two", {"b": 4.0, "c": 1.0}, "x")], limit=9.0, limit_name="all"
    )
    first, second = chart.bars
    assert [part.name for part in first.parts] == ["a", "b"]
    assert first.parts[0].x == chart.left
    assert first.parts[1].x == pytest.approx(first.parts[0].x + first.parts[0].width, abs=0.1)
    assert first.parts[1].width == pytest.approx(3 * first.parts[0].width, abs=0.2)
    assert first.parts[1].shade == second.parts[0].shade
    assert (first.total, second.total, second.note) == ("8", "5", "x")
    assert second.y > first.y
    assert first.end < chart.limit < WIDTH
    assert chart.legend == (("a", 0), ("b", 1), ("c", 2))
    assert chart.ticks[0] == (float(chart.left), "0")


def test_a_bar_beyond_the_limit_is_inside_the_chart() -> None:
    chart = make_bars("memory", [("one", {"a": 40.0}, "")], limit=9.0, limit_name="all")
    assert chart.limit < chart.bars[0].end < WIDTH

"""Which frames are kept follows one rule, by count, by rate, or both."""

from fractions import Fraction

import numpy as np
import pytest

from urt_jax.data.examples import FramePicking
from urt_jax.data.frame_picking import Timeline, even_timeline, kept_rate, measured_timeline, pick_frames, spread
from urt_jax.errors import BadInputError


def picked(timeline: Timeline, **picking: float) -> list[int]:
    return pick_frames(timeline, FramePicking(**picking), name="x")


@pytest.mark.parametrize("count", [8, 9, 60, 126, 152, 1001])
def test_a_number_is_picked_as_the_original_evaluation_does(count: int) -> None:
    expected = np.linspace(0, count - 1, 8).round().astype(int).tolist()
    assert picked(Timeline(count), max_frames=8) == expected
    assert len(set(expected)) == 8


def test_no_frame_is_kept_twice() -> None:
    assert picked(Timeline(5), max_frames=8) == [0, 1, 2, 3, 4]
    assert picked(even_timeline(5, 4), fps=100) == [0, 1, 2, 3, 4]
    assert picked(Timeline(5)) == [0, 1, 2, 3, 4]
    assert spread(3, None).tolist() == [0, 1, 2]


def test_a_rate_picks_the_nearest_frames() -> None:
    assert picked(even_timeline(50, 24), fps=2) == [0, 12, 24, 36, 48]
    assert picked(even_timeline(10, 10), fps=4) == [0, 2, 5, 7]  # 0.25 s lies between 2 and 3, 0.75 between 7 and 8
    assert picked(even_timeline(11, 10), fps=1) == [0, 10]
    assert picked(even_timeline(10, 10), fps=1) == [0]
    assert picked(even_timeline(300, 30000 / 1001), fps=1) == [0, *range(30, 300, 30)]
    uneven = Timeline(5, None, np.array([0, 0.1, 0.9, 1.2, 3.0]))
    assert picked(uneven, fps=1) == [0, 2, 3, 4]  # 1 s is nearest to 0.9, 2 s to 1.2


def test_a_rate_and_a_number_together_thin_what_the_rate_picks() -> None:
    assert picked(even_timeline(97, 24), fps=4, max_frames=5) == [0, 24, 48, 72, 96]
    assert picked(even_timeline(97, 24), fps=0.5, max_frames=5) == [0, 48, 96]


def test_a_rate_needs_times() -> None:
    with pytest.raises(
        BadInputError, match=r"^x: its 2 frames have no times, so they cannot be picked at 0.5 a second"
    ):
        picked(Timeline(2), fps=0.5)
    assert picked(Timeline(1), fps=0.5) == [0]


def test_the_rate_of_kept_frames_is_theirs() -> None:
    timeline = even_timeline(126, 24)
    assert kept_rate(timeline, list(range(126))) == 24
    assert kept_rate(timeline, picked(timeline, max_frames=8)) == 24 * 8 / 126
    assert kept_rate(timeline, picked(timeline, max_frames=63)) == 12
    assert kept_rate(Timeline(9), [0, 4, 8]) is None
    assert kept_rate(Timeline(3, None, np.array([0, 1, 4.0])), [0, 2]) == pytest.approx(2 / 6), "3 frames last 6 s"


@pytest.mark.parametrize("rate", [24.0, 29.97, 30000 / 1001, 0.3])
def test_a_rate_is_unchanged_where_all_is_kept(rate: float) -> None:
    for count in range(2, 200):
        assert kept_rate(even_timeline(count, rate), list(range(count))) == rate


def test_times_are_even_where_the_stated_rate_says_so() -> None:
    rounded = np.round(np.arange(90) / 30 * 1000).astype(np.int64) + 7
    assert measured_timeline(rounded, tick=Fraction(1, 1000), rate=Fraction(30)).rate == 30
    for rate in (Fraction(29), None):
        timeline = measured_timeline(rounded, tick=Fraction(1, 1000), rate=rate)
        assert timeline.rate is None
        np.testing.assert_allclose(timeline.seconds, (rounded - 7) / 1000)
    nothing = measured_timeline(np.zeros(3, np.int64), tick=Fraction(1, 1000), rate=None)
    assert (nothing.rate, nothing.seconds) == (None, None)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_frames": 0}, "max_frames is 0; give at least 1, or None for all frames"),
        ({"fps": 0.0}, "fps is 0.0; give frames a second, above 0 and at most 1000, or None"),
        ({"fps": float("nan")}, "fps is nan; give frames a second"),
        ({"fps": 1e9}, "at most 1000"),
    ],
)
def test_impossible_pickings_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(BadInputError) as error:
        FramePicking(**wrong)
    assert message in str(error.value)

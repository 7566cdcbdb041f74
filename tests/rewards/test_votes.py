"""Votes by hand: majority, ties, draws, what does not parse, verdicts on a swapped pair turned back and compared."""

import math
from itertools import product

import pytest

from urt_jax.rewards.votes import majority, mirrored, swap_consistency
from urt_jax.tasks.replies import Verdict, parse


def verdict(first: float, second: float, winner: int | str | None = None) -> str:
    named = winner if winner is not None else 1 if first > second else 2
    label = "Both images are equally good" if named == "tie" else f"Image {named} is better"
    return (
        f"<think>\n1. Aesthetics: Image 1 ({first:g}/10) - a; Image 2 ({second:g}/10) - b\nTotal score:\n"
        f"Image 1: {first:g}={first:g}\nImage 2: {second:g}={second:g}\n</think>\n<answer>{label}</answer>"
    )


def test_a_mirrored_verdict_speaks_of_the_given_order() -> None:
    found = mirrored(parse(verdict(9, 3)))
    assert (found.winner, found.totals, found.margin) == (2, (3.0, 9.0), -6.0)
    assert found.scores == {"Aesthetics": (3.0, 9.0)}
    assert mirrored(found) == parse(verdict(9, 3))
    assert mirrored(parse(verdict(5, 5, "tie"))).winner == "tie"
    assert mirrored(parse("hm")).winner is None


def winners(*texts: str) -> Verdict:
    return majority([parse(text) for text in texts])


def test_the_majority_by_hand() -> None:
    found = winners(verdict(9, 3), verdict(4, 6), verdict(8, 7))
    assert (found.winner, found.totals) == (1, (9.0, 3.0))
    assert found.margin == pytest.approx((6 - 2 + 1) / 3)
    assert winners("hm", verdict(3, 9)).winner == 2, "what does not parse has no vote"
    assert winners("hm", verdict(3, 9)).failure is None
    split = winners(verdict(9, 3), verdict(4, 6))
    assert (split.winner, split.failure) == (None, "the votes are drawn: 1 for 1, 1 for 2")
    lost = winners("hm", "hm")
    assert (lost.winner, lost.failure) == (None, parse("hm").failure)


FIRST, SECOND, TIE = verdict(9, 3), verdict(3, 9), verdict(5, 5, "tie")


@pytest.mark.parametrize(
    ("texts", "winner"),
    [
        ([TIE, TIE], "tie"),
        ([TIE, TIE, FIRST], "tie"),
        ([FIRST, SECOND, TIE, TIE], "tie"),
        ([FIRST, FIRST, TIE, TIE], None),
        ([FIRST, TIE], None),
        ([FIRST, FIRST, TIE], 1),
        ([FIRST, FIRST, SECOND, TIE], 1),
        ([SECOND, FIRST, SECOND, FIRST], None),
        ([FIRST, SECOND, TIE], None),
        (["hm", "hm", "hm", SECOND], 2),
        (["hm", TIE], "tie"),
        (["hm"], None),
    ],
)
def test_a_side_wins_with_more_votes_than_the_other_and_than_ties(texts: list[str], winner: int | str | None) -> None:
    found = winners(*texts)
    assert found.winner == winner
    assert (found.failure is None) == (winner is not None)
    mirror = {FIRST: SECOND, SECOND: FIRST}
    assert winners(*(mirror.get(text, text) for text in texts)).winner == {1: 2, 2: 1}.get(winner, winner)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("texts", "swapped", "shares"),
    [
        ([FIRST, SECOND], [SECOND, SECOND], [1.0, 0.0]),
        ([FIRST, FIRST], [FIRST, FIRST], [0.0, 0.0]),  # the first in either order: position alone
        ([FIRST, SECOND, "hm", TIE], [SECOND, SECOND, FIRST, TIE], [0.5, 0.25, 0.0, 0.25]),
        ([FIRST, "hm"], ["hm", SECOND], [1.0, 0.0]),  # what does not parse has no say
        ([TIE], [TIE, FIRST], [0.5]),
    ],
)
def test_swap_consistency_by_hand(texts: list[str], swapped: list[str], shares: list[float]) -> None:
    assert swap_consistency(texts, swapped) == shares


def test_with_no_verdict_on_the_swapped_pair_there_is_nothing_to_compare_with() -> None:
    assert all(math.isnan(share) for share in swap_consistency([FIRST, "hm"], ["hm", ""]))


def test_swapping_the_pair_mirrors_everything() -> None:
    """The same verdicts told of the other order have the same shares, whatever they are."""
    mirror = {FIRST: SECOND, SECOND: FIRST, TIE: TIE, "hm": "hm"}
    for texts in product(mirror, repeat=2):
        for swapped in product(mirror, repeat=2):
            turned = swap_consistency([mirror[t] for t in texts], [mirror[t] for t in swapped])
            assert turned == pytest.approx(swap_consistency(texts, swapped), nan_ok=True)

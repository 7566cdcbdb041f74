"""Votes by hand: the majority, ties, draws, what does not parse, and the verdict on a swapped pair turned back."""

import pytest

from urt_jax.rewards.parse import Verdict, parse
from urt_jax.rewards.votes import majority, mirrored


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
    assert (split.winner, split.failure) == (None, "split vote: 1 for each side")
    lost = winners("hm", "hm")
    assert (lost.winner, lost.failure) == (None, parse("hm").failure)


def test_ties_alone_are_a_tie() -> None:
    assert winners(verdict(5, 5, "tie"), verdict(6, 6, "tie")).winner == "tie"
    assert winners(verdict(5, 5, "tie"), verdict(6, 6, "tie")).failure is None

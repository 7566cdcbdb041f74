"""Several verdicts on one pair: mirror those on the swapped pair, take a majority vote, compare the two orders."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from urt_jax.tasks import Verdict, read_reply


def mirrored(verdict: Verdict) -> Verdict:
    """Return a verdict on the swapped pair as a verdict on the pair in its given order."""
    return Verdict(
        winner=_other_side(verdict.winner),
        scores={name: (b, a) for name, (a, b) in verdict.scores.items()},
        totals=None if verdict.totals is None else (verdict.totals[1], verdict.totals[0]),
        margin=None if verdict.margin is None else -verdict.margin,
        reasoning=verdict.reasoning,
        text=verdict.text,
        failure=verdict.failure,
    )


def majority(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the first verdict of the winning side, with the mean margin of all.

    The vote counts 1, 2 and ties; the one with the most votes wins. If several have the most, ``winner`` is None and
    ``failure`` gives the counts. Verdicts that did not parse have no vote.
    """
    if len(verdicts) == 1:
        return verdicts[0]
    votes = Counter(verdict.winner for verdict in verdicts if verdict.winner is not None)
    margins = [verdict.margin for verdict in verdicts if verdict.margin is not None]
    margin = sum(margins) / len(margins) if margins else None
    if not votes:
        return replace(verdicts[0], margin=margin)
    most = max(votes.values())
    leading = [side for side, count in votes.items() if count == most]
    first = next(verdict for verdict in verdicts if verdict.winner in leading)
    if len(leading) > 1:
        drawn = ", ".join(f"{most} for {side}" for side in leading)
        return replace(first, winner=None, margin=margin, failure=f"the votes are drawn: {drawn}")
    return replace(first, margin=margin)


def swap_consistency(texts: Sequence[str], swapped: Sequence[str], *, task: str | None = None) -> list[float]:
    """Return for each response the share of the responses to the swapped pair that give the mirrored verdict.

    Only responses in the strict form have a verdict. A response without one gets 0; swapped responses without one are
    not counted. If no swapped response has a verdict, all shares are NaN.
    """
    mirrors = [_other_side(winner) for winner in _winners(swapped, task) if winner is not None]
    if not mirrors:
        return [math.nan] * len(texts)
    return [mirrors.count(winner) / len(mirrors) if winner is not None else 0.0 for winner in _winners(texts, task)]


def _winners(texts: Sequence[str], task: str | None) -> list[int | str | None]:
    return [read_reply(text, task=task).winner for text in texts]


def _other_side(winner: int | str | None) -> int | str | None:
    return 3 - winner if isinstance(winner, int) else winner

"""Verdicts on the same pair put together: the other presentation order mirrored, votes counted, orders compared."""

import math
from collections.abc import Sequence
from dataclasses import replace

from urt_jax.rewards.parse import Verdict, parse


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
    """Return the first verdict of the winning side with the mean margin of all; an even split decides nothing.

    Verdicts that did not parse have no vote; ties decide only where no verdict names a side.
    """
    if len(verdicts) == 1:
        return verdicts[0]
    votes = {winner: sum(v.winner == winner for v in verdicts) for winner in (1, 2)}
    margins = [v.margin for v in verdicts if v.margin is not None]
    margin = sum(margins) / len(margins) if margins else None
    tied = next((v for v in verdicts if v.winner == "tie"), None)
    if not votes[1] and not votes[2] and tied is not None:
        return replace(tied, margin=margin)
    if votes[1] == votes[2]:
        first = verdicts[0]
        reason = first.failure if votes[1] == 0 else f"split vote: {votes[1]} for each side"
        return Verdict(
            None, first.scores, first.totals, margin, first.reasoning, first.text, reason or "no vote parsed"
        )
    winner = 1 if votes[1] > votes[2] else 2
    leading = next(v for v in verdicts if v.winner == winner)
    return Verdict(winner, leading.scores, leading.totals, margin, leading.reasoning, leading.text, None)


def swap_consistency(texts: Sequence[str], swapped: Sequence[str], *, noun: str | None = None) -> list[float]:
    """Return for each response the share of the responses to the swapped pair that give the mirrored verdict.

    Only responses of the strict form have a verdict: one without agrees with none (0) and has no say about others.
    Where no response to the swapped pair has one there is nothing to compare with: all are NaN.
    """
    mirrors = [_other_side(winner) for winner in _winners(swapped, noun) if winner is not None]
    if not mirrors:
        return [math.nan] * len(texts)
    return [mirrors.count(winner) / len(mirrors) if winner is not None else 0.0 for winner in _winners(texts, noun)]


def _winners(texts: Sequence[str], noun: str | None) -> list[int | str | None]:
    return [parse(text, noun=noun).winner for text in texts]


def _other_side(winner: int | str | None) -> int | str | None:
    return 3 - winner if isinstance(winner, int) else winner

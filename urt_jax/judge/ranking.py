"""The ranking of several candidates from verdicts on their pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from urt_jax.tasks import Verdict


@dataclass(frozen=True)
class Ranking:
    """Candidates from best to worst (0-based), and each one's share of won comparisons, in input order."""

    order: tuple[int, ...]
    win_rate: tuple[float, ...]
    verdicts: tuple[Verdict, ...]


def ranking_of(pairs: Sequence[tuple[int, int]], verdicts: Sequence[Verdict], *, candidates: int) -> Ranking:
    """Rank by win rate; ``pairs`` are the two candidates (0-based) of each verdict, which is on that order.

    A tie, or a judgement that does not parse, is half a win for each side.
    """
    wins, games = np.zeros(candidates), np.zeros(candidates)
    for (a, b), verdict in zip(pairs, verdicts, strict=True):
        share = {1: 1.0, 2: 0.0}.get(verdict.winner, 0.5)  # type: ignore[arg-type]
        wins[a] += share
        wins[b] += 1.0 - share
        games[[a, b]] += 1
    rate = wins / games
    order = tuple(int(i) for i in np.argsort(-rate, kind="stable"))
    return Ranking(order, tuple(float(r) for r in rate), tuple(verdicts))

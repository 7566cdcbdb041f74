"""Scores from faults, and the draw of a comparison's scores such that one candidate alone hardly reveals the winner."""

from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from urt_jax.tasks import PAPER_TASKS, TASKS

DIFFICULTY = 0.45  # the default share of hard comparisons
HARD_MARGIN = 2  # a comparison is hard if its totals differ by 1 or 2
WIDEST_MARGIN = 5
NARROWING = 0.4  # likelihood of a margin relative to the next narrower one of its difficulty
# Dimensions that pixel statistics reveal decide less often: pairs that only the last two dimensions decide have this
# weight, and the second dimension, whose faults fill the picture, favours the winner in this share of the pairs where
# it differs.
LAST_TWO_WEIGHT, SECOND_SHARE = 0.45, 0.57


class Scale(NamedTuple):
    """A dimension's score by its number of faults; ``faults`` names them, and if empty, wrong words are counted."""

    scores: tuple[int, ...]
    good: str = ""
    faults: tuple[str, ...] = ()

    def score(self, count: int) -> int:
        """Return the score of ``count`` faults; counts beyond the scale get its last score."""
        return self.scores[min(count, len(self.scores) - 1)]


WORDS_RIGHT = Scale((9, 6, 4, 2))
AUTHENTICITY = Scale((8, 5, 2), "whole", ("cracked", "cut"))
CLARITY = Scale((8, 5, 2), "clear", ("scrambled", "stammering"))
QUALITY = {
    "image": Scale((9, 7, 5), "clean", ("cluttered", "noisy", "dull")),
    "video": Scale((9, 7, 5), "smooth", ("flicker", "jump")),
}
SCALES: dict[str, tuple[Scale, Scale, Scale]] = {
    name: (WORDS_RIGHT, WORDS_RIGHT, CLARITY) if task.answers else (WORDS_RIGHT, QUALITY[task.medium], AUTHENTICITY)
    for name, task in ((name, TASKS[name]) for name in PAPER_TASKS)
}


def scale_of(task: str, dimension: str) -> Scale:
    """Return the scale of one of the task's three dimensions."""
    return SCALES[task][TASKS[task].dimensions.index(dimension)]


@cache
def meeting_table(
    levels: tuple[tuple[int, ...], ...], hard: bool, drawn: bool
) -> tuple[tuple[tuple[int, ...], ...], Float[np.ndarray, " pairs"]]:
    """Weigh every (winner, loser) of a difficulty; return the score triples and the cumulative chances of their pairs.

    ``drawn`` means that the last two dimensions are visible in a picture; pairs that they decide alone are then rarer.
    The weights are scaled by ``exp(p_loser - p_winner)``, p a potential of each triple, until every triple but those of
    the best and the worst total wins as often as it loses. Only those extremes then tell winners from losers, which is
    nearly the least that a given mean margin allows.
    """
    triples = tuple(product(*levels))
    totals = np.array([sum(triple) for triple in triples])
    margins = totals[:, None] - totals[None, :]
    alike = (totals[:, None] == totals[None, :]).sum(1)
    bands = (margins >= 1) & (margins <= HARD_MARGIN), (margins > HARD_MARGIN) & (margins <= WIDEST_MARGIN)
    start = NARROWING ** np.where(bands[0], margins, margins - HARD_MARGIN).astype(float)
    start = start / (alike[:, None] * alike[None, :])
    gains = np.array([triple[1] for triple in triples])
    gains = gains[:, None] - gains[None, :]
    if drawn:
        rest = np.array([triple[1] + triple[2] for triple in triples])
        start = start * np.where(rest[:, None] > rest[None, :], LAST_TWO_WEIGHT, 1.0)
    ends = (totals == totals.max()) | (totals == totals.min())
    potential = np.zeros(len(triples))
    weights = start
    for _ in range(300):
        weights = start * np.exp(potential[None, :] - potential[:, None])
        # Balanced at the default mix; other mixes are slightly less balanced.
        shares = (DIFFICULTY, 1 - DIFFICULTY)
        weights = sum(share * weights * band / (weights * band).sum() for share, band in zip(shares, bands))
        for gain in range(1, int(gains.max()) + 1) if drawn else ():
            right, wrong = (float(weights[gains == sign * gain].sum()) + 1e-9 for sign in (1, -1))
            step = (SECOND_SHARE / (1 - SECOND_SHARE) * wrong / right) ** 0.1
            start = start * np.where(gains == gain, step, 1.0) / np.where(gains == -gain, step, 1.0)
        won, lost = weights.sum(1) + 1e-9, weights.sum(0) + 1e-9
        potential = np.where(ends, 0.0, np.clip(potential + 0.3 * np.log(won / lost), -12, 12))
    chosen = (weights * bands[0 if hard else 1]).ravel()
    return triples, np.cumsum(chosen / chosen.sum())


def draw_meeting(
    rng: np.random.Generator, levels: tuple[tuple[int, ...], ...], *, hard: bool, drawn: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Draw the scores of a winner and a loser, one per dimension, from the scores that each dimension can reach."""
    triples, chances = meeting_table(levels, hard, drawn)
    pair = min(int(np.searchsorted(chances, rng.random(), side="right")), len(chances) - 1)
    winner, loser = divmod(pair, len(triples))
    return triples[winner], triples[loser]

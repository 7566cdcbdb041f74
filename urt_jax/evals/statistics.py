"""Figures of a set of judgements, each with a 95 % bootstrap interval over items.

1. every item (or group of items that share a prompt) becomes one row of sums: numerator and denominator per figure;
2. a figure is the ratio of the two column sums;
3. rows are resampled with replacement, all figures recomputed at once; the middle 95 % of the results is the interval.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from urt_jax.errors import BadInputError
from urt_jax.evals.pairwise import Judgement

RESAMPLES = 2000
_MIRROR = {1: 2, 2: 1, "tie": "tie"}


class Estimate(NamedTuple):
    """A share between 0 and 1 (or a difference of two) with its interval; ``n`` is its denominator or unit count.

    All three figures are NaN where ``n`` is 0.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """Return the estimate in percent, such as ``87.3 [85.1, 89.4]``, or a dash if ``n`` is 0."""
        if self.n == 0:
            return "–"
        value, low, high = (round(100 * number, 1) + 0.0 for number in self[:3])  # + 0.0: no "-0.0"
        return f"{value:.1f} [{low:.1f}, {high:.1f}]"


@dataclass(frozen=True)
class Summary:
    """The figures of one set of judgements.

    ``one_order`` counts items that were judged in one order only, which ``position_consistency`` leaves out.
    ``accuracy`` counts unparsed responses as wrong, ``accuracy_dropped`` leaves them out, ``accuracy_random`` counts
    them as half. ``first_position`` is the share of candidate 1 among decided verdicts, ``gold_match`` the share of
    exactly right dimension scores. Each task, difficulty and novelty has a summary of its own.
    """

    judgements: int
    items: int
    one_order: int
    accuracy: Estimate
    accuracy_dropped: Estimate
    accuracy_random: Estimate
    position_consistency: Estimate
    parse_failure: Estimate
    score_agreement: Estimate
    first_position: Estimate
    gold_match: Estimate
    by_task: "dict[str, Summary]" = field(default_factory=dict)
    by_difficulty: "dict[str, Summary]" = field(default_factory=dict)
    by_novelty: "dict[str, Summary]" = field(default_factory=dict)

    @property
    def parts(self) -> "dict[str, Summary]":
        """All parts by name: tasks, difficulties, novelty."""
        return self.by_task | self.by_difficulty | self.by_novelty

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON: an estimate as ``{"value", "low", "high", "n"}``, NaN as null."""
        plain: dict[str, Any] = {}
        for part in dataclasses.fields(self):
            value = getattr(self, part.name)
            if isinstance(value, Estimate):
                finite = {name: None if math.isnan(number) else number for name, number in value._asdict().items()}
                plain[part.name] = finite
            elif isinstance(value, dict):
                plain[part.name] = {name: summary.as_json() for name, summary in value.items()}
            else:
                plain[part.name] = value
        return plain


# One judgement's (numerator, denominator) for each figure that needs only one order.
_SINGLE: dict[str, Callable[[Judgement], tuple[float, float]]] = {
    "accuracy": lambda j: (float(j.correct), 1.0),
    "accuracy_dropped": lambda j: (float(j.correct), float(j.verdict.winner is not None)),
    "accuracy_random": lambda j: (0.5 if j.verdict.winner is None else float(j.correct), 1.0),
    "parse_failure": lambda j: (float(j.verdict.winner is None), 1.0),
    "score_agreement": lambda j: (float(bool(j.agreement)), float(j.agreement is not None)),
    "first_position": lambda j: (float(j.verdict.winner == 1), float(j.verdict.winner in (1, 2))),
    "gold_match": lambda j: (j.gold_match or 0.0, float(j.gold_match is not None)),
}
FIGURES: tuple[str, ...] = (*_SINGLE, "position_consistency")


def summarize(judgements: Sequence[Judgement], *, seed: int = 0, resamples: int = RESAMPLES) -> Summary:
    """Return all figures of one model in one mode, overall and per task, difficulty and novelty.

    Several runs on the same items (seeds of a study) can be combined if the runs' ids are distinct and ``group`` holds
    the item's own id: the interval is then over items, not over runs times items.

    Raises:
        BadInputError: there is no judgement, or an item was judged twice in the same order.
    """

    def by(kind: str) -> dict[str, Summary]:
        parts: dict[str, list[Judgement]] = {}
        for judgement in judgements:
            if (name := getattr(judgement, kind)) is not None:
                parts.setdefault(name, []).append(judgement)
        return {name: _summarize(parts[name], seed, resamples) for name in sorted(parts)}

    return dataclasses.replace(
        _summarize(judgements, seed, resamples),
        by_task=by("task"),
        by_difficulty=by("difficulty"),
        by_novelty=by("novelty"),
    )


def paired_difference(
    a: Sequence[Judgement],
    b: Sequence[Judgement],
    *,
    figure: str = "accuracy",
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Return figure(a) - figure(b) of two models on the same items; both are resampled together.

    ``figure`` is one of ``FIGURES``; ``n`` is the number of resampled units (items, or groups of a prompt).

    Raises:
        BadInputError: the two models did not judge the same items and orders, or the figure is unknown.
    """
    if figure not in FIGURES:
        raise BadInputError(f"there is no figure {figure!r}; known: {', '.join(FIGURES)}")
    keys_a, keys_b = {(j.id, j.order) for j in a}, {(j.id, j.order) for j in b}
    if keys_a != keys_b:
        item, order = min(keys_a ^ keys_b)
        raise BadInputError(
            f"a paired difference needs the same judgements of both models: {len(keys_a ^ keys_b)} are in one only, "
            f"e.g. record {item} in {order} order; evaluate both on the same file in the same orders"
        )
    tables = _table(a), _table(b)
    column = FIGURES.index(figure)
    num = np.stack([table.num[:, column] for table in tables], axis=1)
    den = np.stack([table.den[:, column] for table in tables], axis=1)
    if not den.sum(axis=0).all():
        return Estimate(math.nan, math.nan, math.nan, 0)
    point = num.sum(axis=0) / den.sum(axis=0)
    drawn = _resampled_ratios(num, den, seed=seed, resamples=resamples)
    low, high = _middle(drawn[:, 0] - drawn[:, 1])
    return Estimate(float(point[0] - point[1]), low, high, len(num))


class _Table(NamedTuple):
    """Numerators and denominators per resampled unit, float64 [units, figures], and the number of items."""

    num: np.ndarray
    den: np.ndarray
    items: int
    one_order: int


def _table(judgements: Sequence[Judgement]) -> _Table:
    if not judgements:
        raise BadInputError("there is no judgement to summarise; give at least one labelled pair")
    items: dict[str, dict[str, Judgement]] = {}
    for judgement in judgements:
        orders = items.setdefault(judgement.id, {})
        if judgement.order in orders:
            raise BadInputError(
                f"record {judgement.id} was judged twice in {judgement.order} order; ids of one evaluation must be "
                "unique (to combine runs, mark each run's ids and keep the item's id in group)"
            )
        orders[judgement.order] = judgement
    # Sorted, so that the two models of a paired difference have their units in the same rows.
    units = {name: n for n, name in enumerate(sorted({j.group or j.id for j in judgements}))}
    num, den = np.zeros((2, len(units), len(FIGURES)))
    for orders in items.values():
        first = next(iter(orders.values()))
        row = units[first.group or first.id]
        for judgement in orders.values():
            for column, count in enumerate(_SINGLE.values()):
                top, bottom = count(judgement)
                num[row, column] += top
                den[row, column] += bottom
        if len(orders) == 2:
            winners = [orders[order].verdict.winner for order in ("given", "swapped")]
            num[row, -1] += winners[0] is not None and _MIRROR[winners[0]] == winners[1]
            den[row, -1] += 1
    return _Table(num, den, len(items), sum(len(orders) == 1 for orders in items.values()))


def _summarize(judgements: Sequence[Judgement], seed: int, resamples: int) -> Summary:
    table = _table(judgements)
    drawn = _resampled_ratios(table.num, table.den, seed=seed, resamples=resamples)
    estimates: dict[str, Any] = {}
    for column, name in enumerate(FIGURES):
        total = table.den[:, column].sum()
        value = float(table.num[:, column].sum() / total) if total else math.nan
        low, high = _middle(drawn[:, column]) if total else (math.nan, math.nan)
        estimates[name] = Estimate(value, low, high, int(total))
    return Summary(len(judgements), table.items, table.one_order, **estimates)


def _resampled_ratios(num: np.ndarray, den: np.ndarray, *, seed: int, resamples: int) -> np.ndarray:
    """Return the figures of each resample, float64 [resamples, figures]; NaN where a denominator is 0.

    Units with equal sums are interchangeable, so the count of each distinct unit is drawn from a multinomial. That is
    the same distribution as drawing units one by one, with a few dozen numbers per resample instead of thousands.
    """
    kinds, occurs = np.unique(np.concatenate([num, den], axis=1), axis=0, return_counts=True)
    times = np.random.default_rng(seed).multinomial(len(num), occurs / len(num), size=resamples)
    tops, bottoms = np.split(times @ kinds, 2, axis=1)
    return np.divide(tops, bottoms, out=np.full_like(tops, np.nan), where=bottoms > 0)


def _middle(drawn: np.ndarray) -> tuple[float, float]:
    """Return the bounds of the middle 95 % of the resamples, without NaN."""
    known = drawn[~np.isnan(drawn)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (math.nan, math.nan)
    return float(low), float(high)

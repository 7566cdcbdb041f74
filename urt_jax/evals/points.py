"""Scores of single candidates against gold scores: rank correlation by axis, written and expected, with intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from urt_jax.data.examples import Example
from urt_jax.errors import BadInputError
from urt_jax.evals.tables import Cell
from urt_jax.files.json_text import whole_lines
from urt_jax.files.whole import write_whole
from urt_jax.judge.scoring import Score

RESAMPLES = 1000
MEAN = "mean of the axes"


@dataclass(frozen=True)
class Scored:
    """One candidate's gold scores and a judge's, by axis; ``failure`` says why there are none of the judge's."""

    id: str
    task: str
    gold: dict[str, float]
    written: dict[str, float]
    expected: dict[str, float]
    failure: str | None
    text: str


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation with the gold scores, and the middle 95 % of its values over resampled items."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return such as ``0.81 [0.77, 0.84]``, or a dash where it is not defined."""
        return "–" if math.isnan(self.value) else f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def scored(examples: Sequence[Example], scores: Sequence[Score]) -> list[Scored]:
    """Put the judge's scores beside the gold ones.

    Raises:
        BadInputError: a record has no gold score for one of its axes.
    """
    found = []
    for example, score in zip(examples, scores, strict=True):
        gold = {name: float(values[0]) for name, values in example.meta.get("scores", {}).items()}
        missing = [name for name in score.scores if name not in gold]
        if missing or not gold:
            raise BadInputError(
                f"record {example.id}: it has no gold score for {', '.join(missing) or 'any axis'}; give scores as "
                '{"<axis>": [x]}'
            )
        found.append(
            Scored(
                example.id, str(example.task), gold, dict(score.scores), dict(score.expected), score.failure, score.text
            )
        )
    return found


def correlations(items: Sequence[Scored], *, seed: int = 0) -> dict[str, dict[str, Correlation]]:
    """Return ``{axis: {"written" | "expected": correlation}}`` of the items that parse, and of the mean of the axes."""
    read = [item for item in items if item.failure is None]
    axes = list(dict.fromkeys(name for item in read for name in item.gold if name in item.written))
    found: dict[str, dict[str, Correlation]] = {}
    for axis in [*axes, *([MEAN] if len(axes) > 1 else [])]:
        gold = np.array([_value(item.gold, axis, axes) for item in read])
        found[axis] = {
            kind: _spearman(gold, np.array([_value(getattr(item, kind), axis, axes) for item in read]), seed=seed)
            for kind in ("written", "expected")
        }
    return found


def point_rows(model: str, mode: str, items: Sequence[Scored], *, seed: int = 0) -> list[dict[str, Cell]]:
    """Return a table row per task and axis."""
    rows: list[dict[str, Cell]] = []
    for task in dict.fromkeys(item.task for item in items):
        mine = [item for item in items if item.task == task]
        unread = sum(item.failure is not None for item in mine)
        shown = {"model": model, "mode": mode, "task": task}
        of_axes = correlations(mine, seed=seed) or {"no reply parses": {}}
        for axis, found in of_axes.items():
            told = {f"Spearman, {kind}": str(found.get(kind, "–")) for kind in ("written", "expected")}
            rows.append({**shown, "axis": axis, **told, "items": len(mine), "unparsed": unread})
    return rows


def write_scored(path: Path, items: Sequence[Scored]) -> None:
    """Write items as JSON lines, atomically."""
    write_whole(path, "".join(json.dumps(vars(item), ensure_ascii=False) + "\n" for item in items))


def read_scored(path: Path) -> list[Scored]:
    """Read the items that ``write_scored`` wrote."""
    return [Scored(**line) for _, line in whole_lines(path)]


def as_plain(items: Sequence[Scored], *, seed: int = 0) -> dict[str, Any]:
    """Return the figures as plain JSON."""
    of_axes = correlations(items, seed=seed)
    plain = {axis: {kind: vars(found) for kind, found in kinds.items()} for axis, kinds in of_axes.items()}
    return {"items": len(items), "unparsed": sum(item.failure is not None for item in items), "spearman": plain}


def _value(scores: dict[str, float], axis: str, axes: Sequence[str]) -> float:
    return scores[axis] if axis != MEAN else sum(scores[name] for name in axes) / len(axes)


def _spearman(gold: Float[np.ndarray, " N"], given: Float[np.ndarray, " N"], *, seed: int) -> Correlation:
    """Return the correlation of ranks, ties sharing their mean rank, with its bootstrap interval over items."""
    if len(gold) < 3:
        return Correlation(math.nan, math.nan, math.nan)
    drawn = np.random.default_rng(seed).integers(len(gold), size=(RESAMPLES, len(gold)))
    values = _rank_correlation(gold[drawn], given[drawn])
    known = values[~np.isnan(values)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (math.nan, math.nan)
    return Correlation(float(_rank_correlation(gold[None], given[None])[0]), float(low), float(high))


def _rank_correlation(a: Float[np.ndarray, "R N"], b: Float[np.ndarray, "R N"]) -> Float[np.ndarray, " R"]:
    """Return Pearson's correlation of the ranks in each row; NaN where one side is constant."""
    ranks = [rankdata(x, axis=1) for x in (a, b)]
    ranks = [x - x.mean(axis=1, keepdims=True) for x in ranks]
    top = (ranks[0] * ranks[1]).sum(axis=1)
    bottom = np.sqrt((ranks[0] ** 2).sum(axis=1) * (ranks[1] ** 2).sum(axis=1))
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)

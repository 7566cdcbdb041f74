"""Rewards for records with gold scores per dimension: how many are written exactly, and how close they are.

Settings name them like a user's reward, ``{"function": "urt_jax.rewards.gold:gold_scores"}``. The paper's recipe uses
labels only; ``gold_scores`` shows which scores of a comparison's reasoning are wrong, and ``score_accuracy`` is the
reward of a task that scores one candidate.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from urt_jax.tasks import TASKS, read_reply


def gold_scores(*, text: str, solution: str, example: Any) -> float | None:
    """Return the share of the gold scores that the text writes exactly; None if the record has none.

    ``example.meta["scores"]`` is ``{dimension: [a score per candidate]}`` in the order shown. A text that does not
    parse in the strict form gets 0.
    """
    pairs = _scores(text, example)
    return None if pairs is None else sum(written == gold for written, gold in pairs) / len(pairs)


def score_accuracy(*, text: str, solution: str, example: Any) -> float | None:
    """Return 1 minus the mean distance of the written scores to the gold ones, in units of the task's scale.

    A score that is missing, and a text that does not parse in the strict form, are as far off as can be: 0. None if
    the record has no gold scores.
    """
    pairs = _scores(text, example)
    if pairs is None:
        return None
    low, high = TASKS[example.task].scale
    near = [0.0 if written is None else max(1 - abs(written - gold) / (high - low), 0.0) for written, gold in pairs]
    return sum(near) / len(near)


def _scores(text: str, example: Any) -> list[tuple[float | None, float]] | None:
    """Return (written, gold) of every candidate and dimension that has a gold score."""
    gold: Mapping[str, Sequence[float]] | None = example.meta.get("scores")
    if not gold:
        return None
    verdict = read_reply(text, task=example.task)
    written: Mapping[str, Sequence[float]] = {} if verdict.failure else verdict.scores
    return [
        (written[name][place] if name in written else None, value)
        for name, values in gold.items()
        for place, value in enumerate(values)
    ]

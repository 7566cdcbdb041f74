"""A reward for records with gold scores per dimension: the share of them that the response writes exactly.

Settings name it like a user's reward, ``{"function": "urt_jax.rewards.gold:gold_scores"}``. The paper's recipe uses
labels only; this reward shows which scores of the reasoning are wrong.
"""

from collections.abc import Mapping
from typing import Any

from urt_jax.tasks import read_reply


def gold_scores(*, text: str, solution: str, example: Any) -> float | None:
    """Return the share of both candidates' gold scores that the text writes exactly; None if the record has none.

    ``example.meta["scores"]`` is ``{dimension: (score of 1, score of 2)}`` in the order shown. A text that does not
    parse in the strict form gets 0.
    """
    gold: Mapping[str, tuple[float, float]] | None = example.meta.get("scores")
    if not gold:
        return None
    verdict = read_reply(text, task=example.task)
    if verdict.winner is None:
        return 0.0
    written = [verdict.scores.get(name, (None, None)) for name in gold]
    hits = sum(a == b for pair, wanted in zip(written, gold.values()) for a, b in zip(pair, wanted))
    return hits / (2 * len(gold))

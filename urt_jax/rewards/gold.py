"""A reward for records that carry a gold score for each dimension: how many of them the judge writes exactly.

Named in the settings as a reward of the user's own, ``{"function": "urt_jax.rewards.gold:gold_scores"}``. The paper's
recipe knows labels only; this says where in the reasoning a judgement went wrong.
"""

from collections.abc import Mapping
from typing import Any

from urt_jax.rewards.parse import noun_of, parse


def gold_scores(*, text: str, solution: str, example: Any) -> float | None:
    """Return the share of both candidates' gold scores that the text gives exactly; None where the record has none.

    ``example.meta["scores"]`` is ``{dimension: (score of 1, score of 2)}`` in the order shown. A text that does not
    parse in the strict form has no scores: 0.
    """
    gold: Mapping[str, tuple[float, float]] | None = example.meta.get("scores")
    if not gold:
        return None
    verdict = parse(text, noun=noun_of(solution))
    if verdict.winner is None:
        return 0.0
    written = [verdict.scores.get(name, (None, None)) for name in gold]
    hits = sum(a == b for pair, wanted in zip(written, gold.values()) for a, b in zip(pair, wanted))
    return hits / (2 * len(gold))

"""The completions of a training step for a report: a question, and its group of responses with rewards."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from urt_jax.data.examples import Example
from urt_jax.evals.pictures import question_shown


@dataclass(frozen=True)
class Completion:
    """One response: its text, every reward part by name (None = missing), and their weighted sum."""

    text: str
    rewards: Mapping[str, float | None]
    reward: float | None


@dataclass(frozen=True)
class CompletionGroup:
    """One question, in the presentation order of its prompt, with its responses."""

    example: Example
    completions: Sequence[Completion]


def group_shown(group: CompletionGroup) -> dict[str, Any]:
    """Return a group's values for the report's template: the question, the parts' names, and a row per response.

    Raises:
        BadInputError: a picture or clip of the question cannot be read.
    """
    names = list(dict.fromkeys(name for completion in group.completions for name in completion.rewards))
    rows = [
        {
            "figures": [_figure(completion.rewards.get(name)) for name in names] + [_figure(completion.reward)],
            "text": completion.text,
        }
        for completion in group.completions
    ]
    shown = question_shown(group.example, swapped=bool(group.example.meta.get("swapped")))
    return {**shown, "parts": [name.replace("_", " ") for name in names], "rows": rows}


def _figure(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.3g}"

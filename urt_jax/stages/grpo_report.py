"""The readable outputs of a GRPO run: samples of responses on schedule, and the report.

1. ``samples/step-<n>.jsonl`` has one line per question of that step: every response with its reward parts;
2. ``report.html`` has the held-out tables before and after, the curves, and the questions of the last sampled step with
   their pictures.
"""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from urt_jax.config import GrpoConfig, as_json
from urt_jax.errors import BadInputError, shown
from urt_jax.evals.completions import Completion, CompletionGroup
from urt_jax.evals.report import Curve, write_report
from urt_jax.evals.statistics import Summary
from urt_jax.feeds.questions import QuestionFeed
from urt_jax.feeds.rollouts import StepRollout
from urt_jax.files.fields import Fields
from urt_jax.files.json_text import whole_lines
from urt_jax.files.whole import write_whole
from urt_jax.rewards.sums import combine
from urt_jax.training.metrics import read_metrics

CURVES = ("reward", "loss", "entropy", "kl", "grad_norm", "parse_failure", "frac_reward_zero_std", "all_right",
          "all_wrong", "completions/mean_length", "curriculum/active", "extra_rollouts")  # fmt: skip
SHOWN_QUESTIONS = 8  # questions of the last sampled step in the report


def write_samples(folder: Path, step: int, made: StepRollout, weights: Mapping[str, float]) -> None:
    """Write the questions of a step (0 = the first) with all responses; a missing reward is written as null."""
    path = folder / "samples" / f"step-{step + 1:06d}.jsonl"
    rollout, total = made.rollout, combine(made.rollout.rewards, weights)
    responses = total.shape[1]
    lines = [
        {
            "id": question.example.id,
            "item": question.item,
            "stream": question.stream,
            "solution": question.example.solution,
            "responses": [
                {
                    "text": rollout.texts[q * responses + r],
                    "reward": _number(total[q, r]),
                    "rewards": {name: _number(part[q, r]) for name, part in rollout.rewards.items()},
                }
                for r in range(responses)
            ],
        }
        for q, question in enumerate(made.questions)
    ]
    write_whole(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def write_run_report(
    config: GrpoConfig, folder: Path, feed: QuestionFeed, summaries: Mapping[str, Mapping[str, Summary]]
) -> Path:
    """Write ``report.html`` of a finished run and return its path.

    Raises:
        BadInputError: a question's picture can no longer be read, or its record has changed.
    """
    path = folder / "report.html"
    write_report(
        path,
        title="urt_jax: GRPO",
        summaries=summaries,
        curves=_curves(read_metrics(folder)),
        completions=last_completions(folder, feed),
        settings=as_json(config),
    )
    return path


def last_completions(folder: Path, feed: QuestionFeed) -> list[CompletionGroup]:
    """Return the first questions of the last sampled step, in their presentation order, with their responses."""
    files = sorted((folder / "samples").glob("step-*.jsonl"))
    if not files:
        return []
    step = int(files[-1].stem.removeprefix("step-")) - 1
    groups = []
    for number, line in itertools.islice(whole_lines(files[-1]), SHOWN_QUESTIONS):
        fields = Fields(line, f"{files[-1]} line {number}")
        example = feed.example(fields.integer("item", at_most=2**62), step, stream=fields.text("stream"))
        if fields.text("id") != example.id:
            raise BadInputError(
                f"{fields.where}: question {shown(fields.text('id'))}, the pool has {example.id} in its place; the "
                "records were changed after they were asked: restore them"
            )
        groups.append(CompletionGroup(example, _completions(fields)))
    return groups


def _completions(fields: Fields) -> list[Completion]:
    found = []
    responses = fields.items_of("responses", at_most=2**20)
    for n in responses:
        response = responses.group(n)
        rewards = response.group("rewards", {})
        parts = {name: rewards.number(name, None) for name in rewards}
        found.append(Completion(response.text("text"), parts, response.number("reward", None)))
    return found


def _curves(lines: Sequence[Mapping[str, float]]) -> dict[str, Curve]:
    """Return the curves: the fixed figures and the mean of every reward part, each with at least two points."""
    parts = [name for name in (lines[-1] if lines else {}) if name.startswith("rewards/") and name.endswith("/mean")]
    curves = {
        f"GRPO/{name}": [(line["step"], line[name]) for line in lines if math.isfinite(line.get(name, math.nan))]
        for name in (*CURVES[:1], *parts, *CURVES[1:])
    }
    return {name: points for name, points in curves.items() if len(points) > 1}


def _number(value: np.floating) -> float | None:
    return float(value) if math.isfinite(value) else None

"""Candidates scored by themselves: single ones against gold scores, and pairs judged by the scores of both."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from urt_jax.data.examples import Example
from urt_jax.errors import BadInputError
from urt_jax.evals.pairwise import Judgement, judgement_of
from urt_jax.evals.points import Scored, read_scored, scored, write_scored
from urt_jax.evals.protocols import Protocol
from urt_jax.judge.reward_model import RewardModel
from urt_jax.judge.scoring import Score
from urt_jax.progress import counting
from urt_jax.rewards.votes import mirrored
from urt_jax.runs import processes
from urt_jax.tasks import TASKS, Verdict

SCORE_TOKENS = 96  # a line for each of three axes, in any tokenizer


def judge_alone(
    model: RewardModel, examples: Sequence[Example], *, protocol: Protocol, title: str, batch_size: int
) -> list[Judgement]:
    """Judge pairs by the scores of their candidates, each scored by itself.

    Raises:
        BadInputError: a record is not a pair of a task whose candidates can be scored alone; several processes.
    """
    singles = [single for example in examples for single in singles_of(example)]
    scores = _ask(model, singles, think=protocol.think, title=title, limit=SCORE_TOKENS, batch_size=batch_size)
    judgements = []
    for place, example in enumerate(examples):
        verdict = verdict_of_scores(*scores[2 * place : 2 * place + 2])
        judgements.append(judgement_of(example, verdict))
        if protocol.orders == "both":
            judgements.append(judgement_of(example.swapped(), mirrored(verdict), order="swapped"))
    return judgements


def score_singles(
    model: RewardModel,
    examples: Sequence[Example],
    path: Path,
    *,
    protocol: Protocol,
    title: str,
    max_new_tokens: int,
    batch_size: int,
) -> list[Scored]:
    """Score single candidates, write the scores beside the gold ones to ``path``, or read them back from there.

    Raises:
        BadInputError: a record has no gold score of an axis; several processes.
    """
    if processes.of_first(path.is_file):
        return read_scored(path)
    limit = max_new_tokens if protocol.think else min(SCORE_TOKENS, max_new_tokens)
    items = scored(
        examples, _ask(model, examples, think=protocol.think, title=title, limit=limit, batch_size=batch_size)
    )
    processes.of_first(lambda: write_scored(path, items))
    return items


def singles_of(example: Example) -> list[Example]:
    """Return the two candidates of a pair as records of the task that scores one.

    Raises:
        BadInputError: there is no such task.
    """
    alone = None if example.task is None else TASKS[example.task].alone
    if alone is None or len(example.candidates) != 2:
        known = ", ".join(name for name, task in TASKS.items() if task.alone)
        raise BadInputError(
            f"record {example.id}: a candidate of task {example.task} cannot be scored by itself; leave the mode "
            f"scores out, or judge pairs of {known}"
        )
    return [
        replace(
            example, id=f"{example.id}/{place}", task=alone, candidates=(item,), label=None, votes=None, text=None,
            response=None, ranking=None, meta={},
        )
        for place, item in enumerate(example.candidates, start=1)
    ]  # fmt: skip


def verdict_of_scores(first: Score, second: Score) -> Verdict:
    """Return the verdict of two candidates' scores: the higher mean of the expected scores wins, equal means tie."""
    text = f"{first.text}\n{second.text}"
    failure = first.failure or second.failure
    if failure:
        return Verdict(None, {}, None, None, "", text, failure)
    totals = (first.mean, second.mean)
    winner = "tie" if totals[0] == totals[1] else 1 if totals[0] > totals[1] else 2
    scores = {name: (value, second.expected[name]) for name, value in first.expected.items()}
    return Verdict(winner, scores, totals, totals[0] - totals[1], "", text, None)


def _ask(
    model: RewardModel, singles: Sequence[Example], *, think: bool, title: str, limit: int, batch_size: int
) -> list[Score]:
    if processes.count() > 1:
        raise BadInputError("single candidates are scored by one process; start the stage in one, or leave them out")
    with counting(title=title, unit="score") as show:
        return model.score_many(singles, think=think, max_new_tokens=limit, batch_size=batch_size, progress=show)

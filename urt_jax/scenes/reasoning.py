"""Write a judge's response about a scene: observation, three scored lines, totals, answer.

The observation comes first and every attribute carries a mark, so that each score is a count of marks before it::

    Image 1: large (ok) blue (no) circle (ok); noisy; whole
    1. Semantic consistency: Image 1 (6/10) - 1 wrong; Image 2 ...
"""

from typing import Any, NamedTuple

import numpy as np

from urt_jax.data.examples import Example
from urt_jax.errors import BadInputError
from urt_jax.scenes.scales import SCALES, Scale, scale_of
from urt_jax.scenes.world import CATEGORIES, CATEGORY_OF, pick, words_like
from urt_jax.tasks import PAPER_TASKS, TASKS
from urt_jax.tasks.points import points_text

OPEN, CLOSE_TO_ANSWER, ANSWER_END = "<think>\n", "\n</think>\n<answer>", " is better</answer>"
RIGHT, WRONG, PART, COUNTED = " (ok)", " (no)", ";", " wrong"
SCORE_END, TOTALS, SCORES_FOLLOW = "/10) -", "\nTotal score:\n", " | "

# A judge's reading of one candidate: {dimension: [[seen word, wanted word], ...] or [fault word, ...]}.
Reading = dict[str, list[Any]]


class GoldJudgement(NamedTuple):
    """A judge's readings before scoring; ``seen`` describes the shared picture of an understanding task."""

    task: str
    seen: list[str]
    candidates: tuple[Reading, Reading]


def spaced(words: list[str]) -> str:
    """Join words with a space before each, the first included."""
    return "".join(f" {word}" for word in words)


def marks_text(pairs: list[list[str]]) -> str:
    """Write each seen word with its mark."""
    return "".join(f" {seen}{RIGHT if seen == wanted else WRONG}" for seen, wanted in pairs)


def faults_text(scale: Scale, faults: list[str]) -> str:
    """Write the fault words in their fixed order, or the word for no fault."""
    return spaced([fault for fault in scale.faults if fault in faults] or [scale.good])


def candidate_text(task: str, reading: Reading) -> str:
    """Write one candidate's observation: its three parts in the order of the dimensions."""
    parts = []
    for dimension in TASKS[task].dimensions:
        scale = scale_of(task, dimension)
        parts.append(faults_text(scale, reading[dimension]) if scale.faults else marks_text(reading[dimension]))
    return PART.join(parts)


def count_faults(scale: Scale, part: list[Any]) -> int:
    """Count the faults of one dimension: wrong words, or fault words."""
    return len(part) if scale.faults else sum(seen != wanted for seen, wanted in part)


def scores_of(task: str, reading: Reading) -> list[int]:
    """Return one candidate's score in each dimension."""
    return [
        scale.score(count_faults(scale, reading[name])) for name, scale in zip(TASKS[task].dimensions, SCALES[task])
    ]


def sum_text(scores: list[int]) -> str:
    """Write scores as a sum, "9+7+5=21"."""
    return "+".join(str(score) for score in scores) + f"={sum(scores)}"


def _read_candidate(rng: np.random.Generator, error_rate: float, task: str, candidate: Reading) -> Reading:
    reading: Reading = {}
    for dimension in TASKS[task].dimensions:
        scale, part = scale_of(task, dimension), candidate[dimension]
        if scale.faults:
            flipped = [fault for fault in scale.faults if (fault in part) != (rng.random() < error_rate)]
            reading[dimension] = flipped[: len(scale.scores) - 1]
        else:
            reading[dimension] = [[misread_word(rng, error_rate, seen), wanted] for seen, wanted in part]
    return reading


def misread_word(rng: np.random.Generator, error_rate: float, word: str, *, wide: bool = False) -> str:
    """Return the word, or at ``error_rate`` another of its category; ``wide`` includes words that only drills use."""
    if rng.random() >= error_rate:
        return word
    return pick(rng, tuple(other for other in words_like(CATEGORY_OF[word], wide=wide) if other != word))


def read_example(example: Example, rng: np.random.Generator, error_rate: float = 0.0) -> GoldJudgement:
    """Return the readings of a judge that mistakes each attribute and each fault for another at ``error_rate``.

    Raises:
        BadInputError: the record was not made by ``make_example``, so its ``meta`` lacks the candidates' attributes.
    """
    if example.task not in PAPER_TASKS or "candidates" not in example.meta:
        raise BadInputError(
            f"record {example.id}: only comparisons made by scenes.make_example carry what their media show "
            f'(meta["candidates"]); this one has {sorted(example.meta)}; ask a teacher for it instead'
        )
    task = str(example.task)
    seen = [misread_word(rng, error_rate, word) for word in example.meta.get("seen", [])]
    first, second = (_read_candidate(rng, error_rate, task, candidate) for candidate in example.meta["candidates"])
    if seen:  # a misread picture changes the right values
        values = TASKS[task].dimensions[1]
        for reading in (first, second):
            reading[values] = [
                [said, seen[slot]] for (said, _), slot in zip(reading[values], example.meta["value_slots"])
            ]
    return GoldJudgement(task, seen, (first, second))


def observation_text(judgement: GoldJudgement) -> str:
    """Write the observation: a line on the shared picture if there is one, then a line per candidate."""
    noun = TASKS[judgement.task].noun
    first, second = (candidate_text(judgement.task, reading) for reading in judgement.candidates)
    context = f"{context_noun(judgement.task)}:{spaced(judgement.seen)}\n" if judgement.seen else ""
    return f"{context}{noun} 1:{first}\n{noun} 2:{second}"


def context_noun(task: str) -> str:
    """Return the noun for the shared medium of an understanding task, or for a candidate of a generation task."""
    return "Video" if task.startswith("video") else "Image"


def conclusion_text(judgement: GoldJudgement, rng: np.random.Generator) -> str:
    """Write the scored lines, totals and answer that follow from a judgement; equal totals are decided by chance."""
    task, noun = judgement.task, TASKS[judgement.task].noun
    lines = []
    for number, (dimension, scale) in enumerate(zip(TASKS[task].dimensions, SCALES[task]), start=1):
        verdicts = []
        for reading in judgement.candidates:
            count = count_faults(scale, reading[dimension])
            reason = faults_text(scale, reading[dimension]) if scale.faults else f" {count}{COUNTED}"
            verdicts.append(f"{scale.score(count)}{SCORE_END}{reason}")
        lines.append(f"\n{number}. {dimension}: {noun} 1 ({verdicts[0]}; {noun} 2 ({verdicts[1]}")
    first, second = (scores_of(task, reading) for reading in judgement.candidates)
    better = 1 if sum(first) > sum(second) else 2 if sum(second) > sum(first) else int(rng.integers(1, 3))
    totals = f"{TOTALS}{noun} 1: {sum_text(first)}\n{noun} 2: {sum_text(second)}"
    return f"{''.join(lines)}{totals}{CLOSE_TO_ANSWER}{noun} {better}{ANSWER_END}"


def write_reasoning(example: Example, rng: np.random.Generator, error_rate: float = 0.0) -> str:
    """Write a judge's full response, ``<think>..</think>`` and ``<answer>..</answer>``; right at an error rate of 0.

    Errors are misreadings only: scores, totals and answer follow from what the judge read.

    Raises:
        BadInputError: the record was not made by ``make_example``.
    """
    if example.task == "image_edit" and example.label is not None:
        return _scored_reasoning(example)
    judgement = read_example(example, rng, error_rate)
    return OPEN + observation_text(judgement) + conclusion_text(judgement, rng)


def _scored_reasoning(example: Example) -> str:
    """Write the reasoning of a comparison from its gold scores alone."""
    task = TASKS[str(example.task)]
    scores = example.meta["scores"]
    lines = [
        f"{number}. {name}: {task.noun} 1 ({scores[name][0]}/10); {task.noun} 2 ({scores[name][1]}/10)"
        for number, name in enumerate(task.dimensions, start=1)
    ]
    sums = [sum_text([scores[name][place] for name in task.dimensions]) for place in (0, 1)]
    totals = f"Total score:\n{task.noun} 1: {sums[0]}\n{task.noun} 2: {sums[1]}"
    return "<think>\n" + "\n".join(lines) + f"\n{totals}\n</think>\n<answer>{example.solution}</answer>"


def direct_answer(example: Example) -> str:
    """Write the answer alone, as a judge does when prompted for a direct answer.

    Raises:
        BadInputError: the record has no decided label.
    """
    task = None if example.task is None else TASKS[example.task]
    if task is not None and task.candidates == 1 and example.meta.get("scores"):
        scores = {name: score for name, (score,) in example.meta["scores"].items()}
        return f"<answer>{points_text(task, scores)}</answer>"
    if example.solution is None:
        raise BadInputError(
            f"record {example.id} has no decided label (label={example.label!r}); a direct answer needs one"
        )
    return f"<answer>{example.solution}</answer>"


def answer_text(noun: str, better: int) -> str:
    """Write an answer alone."""
    return f"<answer>{noun} {better}{ANSWER_END}"


def _task_phrases(task: str) -> list[str]:
    noun = TASKS[task].noun
    heads = [f"{OPEN}{noun} 1:", f"\n{noun} 1:", f"{noun} 1:", f"\n{noun} 2:", f"\n{noun}:", f"{context_noun(task)}:"]
    heads += [f"{OPEN}{context_noun(task)}:"] if noun == "Answer" else []
    scored = [f"\n{number}. {name}: {noun} 1 (" for number, name in enumerate(TASKS[task].dimensions, start=1)]
    totals = [f"{TOTALS}{noun} 1: ", f"\n{noun} 2: "]
    return [*heads, *scored, f"; {noun} 2 (", *totals, f"{CLOSE_TO_ANSWER}{noun} ", f"<answer>{noun} "]


# Every fixed phrase of written judgements and drills, each of which a tokenizer can hold as one token.
PHRASES: tuple[str, ...] = tuple(
    dict.fromkeys(
        [
            *(phrase for task in PAPER_TASKS for phrase in _task_phrases(task)),
            *(SCORE_END, ANSWER_END, RIGHT, WRONG, SCORES_FOLLOW),
            *(f" {count}{COUNTED}" for count in range(6)),
            *(f" {word}" for words in CATEGORIES.values() for word in words if " " in word),
        ]
    )
)

"""Drills for a base model: single skills of a judge as short chats (see, compare, count, add up, conclude).

A drill uses the words and marks of the full reasoning, so that each drill is a piece of it.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from urt_jax.data.examples import Example, Media
from urt_jax.data.prompts import all_media, prompt_text
from urt_jax.scenes.answers import Draft, SceneQuestion, describe_draft, draw_draft, draw_question
from urt_jax.scenes.pairs import CAPTION_KINDS, draw_faults, draw_medium, draw_shown
from urt_jax.scenes.reasoning import (
    PART,
    SCORES_FOLLOW,
    GoldJudgement,
    Reading,
    answer_text,
    candidate_text,
    conclusion_text,
    context_noun,
    faults_text,
    marks_text,
    misread_word,
    observation_text,
    scores_of,
    spaced,
    sum_text,
)
from urt_jax.scenes.scales import scale_of
from urt_jax.scenes.world import CATEGORY_OF, Lexicon, caption_of, choose, draw_words, make_generator, pick
from urt_jax.tasks import PAPER_TASKS, TASKS, find_task

# A drill's response as a function of the scene words it names, in text order.
Write = Callable[[Sequence[str]], str]


class Drilled(NamedTuple):
    """A drill: its prompt with placeholders, the right scene words, the text around them, and its media."""

    prompt: str
    words: list[str]
    write: Write
    media: tuple[Media, ...] = ()


PLACEHOLDER = {"image": "<image>", "video": "<video>"}
WRONG_SHARES = (0.35, 0.3, 0.2, 0.15)  # chances of 0, 1, 2, 3 wrong words
FAULT_SHARES = (0.4, 0.4, 0.2)
SCENE_WORD = re.compile(rf" (?:{'|'.join(sorted(CATEGORY_OF, key=len, reverse=True))})\b")
PICTURES, CLIPS = (find_task(medium, answers=False).name for medium in ("image", "video"))
OBSERVED_TASKS = (0.55, 0.15, 0.15, 0.15)  # chance of each of PAPER_TASKS in "observe"


def _count(rng: np.random.Generator, shares: tuple[float, ...]) -> int:
    return int(rng.choice(len(shares), p=shares))


def _faults(rng: np.random.Generator, task: str) -> tuple[list[str], list[str]]:
    """Draw the faults of a picture or clip in its two dimensions that count faults, not words."""
    _, quality, authenticity = TASKS[task].dimensions
    first = draw_faults(rng, task, quality, _count(rng, FAULT_SHARES))
    return first, draw_faults(rng, task, authenticity, _count(rng, FAULT_SHARES))


def _told_words(rng: np.random.Generator, kind: str, lexicon: Lexicon) -> list[str]:
    """Draw words in the order of a description without a caption: the left or upper object first."""
    words = draw_words(rng, kind, lexicon)
    if kind == "relation":
        words[2] = pick(rng, ("left of", "above"))
    return words


def _described(rng: np.random.Generator, task: str, lexicon: Lexicon) -> tuple[Media, list[str], Write]:
    """Draw a medium and its description, "red circle left of blue square; clean; whole"."""
    medium = TASKS[task].medium
    kind = pick(rng, CAPTION_KINDS[medium]) if medium == "image" else "sized_moving"
    words = _told_words(rng, kind, lexicon)
    quality, breaks = _faults(rng, task)
    names = TASKS[task].dimensions
    faults = [faults_text(scale_of(task, names[1]), quality), faults_text(scale_of(task, names[2]), breaks)]
    return draw_medium(rng, task, kind, words, quality + breaks), words, lambda said: PART.join([spaced(said), *faults])


def _describe(rng: np.random.Generator, lexicon: Lexicon, *, task: str) -> Drilled:
    medium, words, write = _described(rng, task, lexicon)
    prompt = f"{PLACEHOLDER[medium.kind]}\nDescribe."
    return Drilled(prompt, words, lambda said: f"{context_noun(task)}:{write(said)}", (medium,))


def _describe_pair(rng: np.random.Generator, lexicon: Lexicon) -> Drilled:
    first, words, write = _described(rng, PICTURES, lexicon)
    second, more, write_more = _described(rng, PICTURES, lexicon)
    half = len(words)
    return Drilled(
        "<image>\n<image>\nDescribe.",
        words + more,
        lambda said: f"Image 1:{write(said[:half])}\nImage 2:{write_more(said[half:])}",
        (first, second),
    )


def _shown(
    rng: np.random.Generator, task: str, kind: str, words: list[str], lexicon: Lexicon
) -> tuple[list[str], Reading]:
    """Draw what a candidate picture or clip shows instead of the caption's words, and its reading."""
    shown = draw_shown(rng, kind, words, _count(rng, WRONG_SHARES), lexicon)
    quality, breaks = _faults(rng, task)
    names = TASKS[task].dimensions
    return shown, {names[0]: [list(pair) for pair in zip(shown, words)], names[1]: quality, names[2]: breaks}


def _drafted(
    rng: np.random.Generator, task: str, question: SceneQuestion, words: list[str], lexicon: Lexicon
) -> tuple[Draft, Reading]:
    """Draw a candidate answer and its reading."""
    draft = draw_draft(
        rng,
        task,
        question,
        words,
        misnamed=_count(rng, WRONG_SHARES),
        mistaken=_count(rng, WRONG_SHARES),
        blemishes=_count(rng, FAULT_SHARES),
        lexicon=lexicon,
    )
    return draft, describe_draft(task, question, words, draft)


def _scored(task: str, reading: Reading) -> str:
    """Write a candidate's parts and its scores, "red (ok) circle (no); clean; cracked | 6+9+5=20"."""
    return f"{candidate_text(task, reading)}{SCORES_FOLLOW}{sum_text(scores_of(task, reading))}"


def _check(rng: np.random.Generator, lexicon: Lexicon, *, task: str) -> Drilled:
    kind = pick(rng, CAPTION_KINDS[TASKS[task].medium])
    words = draw_words(rng, kind, lexicon)
    shown, reading = _shown(rng, task, kind, words, lexicon)
    names, quality, authenticity = TASKS[task].dimensions
    medium = draw_medium(rng, task, kind, shown, reading[quality] + reading[authenticity])
    prompt = f"{PLACEHOLDER[medium.kind]}\nCaption: {caption_of(kind, words)}\nCheck."

    def write(said: Sequence[str]) -> str:
        return f"{context_noun(task)}:{_scored(task, {**reading, names: _against(said, words)})}"

    return Drilled(prompt, shown, write, (medium,))


def _against(said: Sequence[str], wanted: Sequence[str]) -> list[list[str]]:
    """Pair words in the form of a reading, [[said, wanted], ...]."""
    return [[*pair] for pair in zip(said, wanted)]


def _check_text(rng: np.random.Generator, lexicon: Lexicon) -> Drilled:
    """Compare a caption with a description in words: write the marks and the score."""
    task = PICTURES if rng.random() < 0.7 else CLIPS
    kind = pick(rng, CAPTION_KINDS[TASKS[task].medium])
    words = draw_words(rng, kind, lexicon)
    shown, reading = _shown(rng, task, kind, words, lexicon)
    noun = context_noun(task)
    prompt = f"{noun}:{spaced(shown)}\nCaption: {caption_of(kind, words)}\nCheck."
    marks = marks_text(reading[TASKS[task].dimensions[0]])
    return _fixed(prompt, f"{noun}:{marks}{SCORES_FOLLOW}{scores_of(task, reading)[0]}")


def _fixed(prompt: str, response: str) -> Drilled:
    """Return a drill without media: its response follows from its prompt, so no word can be misread."""
    return Drilled(prompt, [], lambda said: response)


def _reread(task: str, question: SceneQuestion, reading: Reading, said: Sequence[str], seen: Sequence[str]) -> Reading:
    """Return the reading of an answer whose words were read as ``said`` and its picture as ``seen``."""
    names, values, _ = TASKS[task].dimensions
    named = len(question.named)
    return {
        **reading,
        names: _against(said[:named], [wanted for _, wanted in reading[names]]),
        values: _against(said[named:], [seen[slot] for slot in question.asked]),
    }


def _said_words(task: str, reading: Reading) -> list[str]:
    return [said for name in TASKS[task].dimensions[:2] for said, _ in reading[name]]


def _check_answer(rng: np.random.Generator, lexicon: Lexicon) -> Drilled:
    task = find_task("image" if rng.random() < 0.7 else "video", answers=True).name
    question, words = draw_question(rng, task, lexicon)
    draft, reading = _drafted(rng, task, question, words, lexicon)
    medium = draw_medium(rng, task, question.kind, words)
    asked = question.text.format(*words)
    prompt = f"{PLACEHOLDER[medium.kind]}\nQuestion: {asked}\nAnswer: {draft.text}\nCheck."

    def write(said: Sequence[str]) -> str:
        seen, answer = said[: len(words)], said[len(words) :]
        scored = _scored(task, _reread(task, question, reading, answer, seen))
        return f"{context_noun(task)}:{spaced(list(seen))}\nAnswer:{scored}"

    return Drilled(prompt, words + _said_words(task, reading), write, (medium,))


def _judged(task: str, prompt: str, candidates: tuple[Media | str, ...], *, context: tuple[Media, ...] = ()) -> str:
    """Return the judge's prompt about two candidates, with placeholders."""
    pair = Example(id="", task=task, prompt=prompt, candidates=candidates, context=context)
    return "".join(PLACEHOLDER[medium.kind] for medium in all_media(pair)) + prompt_text(pair)


def _observe(rng: np.random.Generator, lexicon: Lexicon) -> Drilled:
    """Observe both candidates of a comparison under the judge's prompt: the reasoning up to its scores."""
    task = PAPER_TASKS[int(rng.choice(len(PAPER_TASKS), p=OBSERVED_TASKS))]
    make = _observe_answers if TASKS[task].answers else _observe_media
    return make(rng, task, lexicon)


def _observe_media(rng: np.random.Generator, task: str, lexicon: Lexicon) -> Drilled:
    kind = pick(rng, CAPTION_KINDS[TASKS[task].medium])
    words = draw_words(rng, kind, lexicon)
    names, quality, authenticity = TASKS[task].dimensions
    (first, one), (second, two) = (_shown(rng, task, kind, words, lexicon) for _ in range(2))
    media = tuple(
        draw_medium(rng, task, kind, shown, reading[quality] + reading[authenticity])
        for shown, reading in ((first, one), (second, two))
    )

    def write(said: Sequence[str]) -> str:
        left = {**one, names: _against(said[: len(words)], words)}
        right = {**two, names: _against(said[len(words) :], words)}
        return observation_text(GoldJudgement(task, [], (left, right)))

    return Drilled(_judged(task, caption_of(kind, words), media), first + second, write, media)


def _observe_answers(rng: np.random.Generator, task: str, lexicon: Lexicon) -> Drilled:
    question, words = draw_question(rng, task, lexicon)
    (first, one), (second, two) = (_drafted(rng, task, question, words, lexicon) for _ in range(2))
    medium = draw_medium(rng, task, question.kind, words)
    said_words = _said_words(task, one), _said_words(task, two)

    def write(said: Sequence[str]) -> str:
        seen, rest = list(said[: len(words)]), said[len(words) :]
        left = _reread(task, question, one, rest[: len(said_words[0])], seen)
        right = _reread(task, question, two, rest[len(said_words[0]) :], seen)
        return observation_text(GoldJudgement(task, seen, (left, right)))

    prompt = _judged(task, question.text.format(*words), (first.text, second.text), context=(medium,))
    return Drilled(prompt, [*words, *said_words[0], *said_words[1]], write, (medium,))


def _sums(rng: np.random.Generator, lexicon: Lexicon) -> Drilled:
    """Add up three scores, or name the larger of two totals; over all triples, not only those of the scales."""
    if rng.random() < 0.5:
        first, second = rng.choice(np.arange(5, 29), 2, replace=False).tolist()
        if rng.random() < 0.5:  # close totals are the hard ones
            second = first + int(rng.choice([-2, -1, 1, 2]))
        return _fixed(f"{first} or {second}", answer_text("Image", 1 if first > second else 2))
    text = sum_text([int(score) for score in rng.integers(1, 11, 3)])
    total = text.index("=")
    return _fixed(text[:total], text[total:])


def _readings(rng: np.random.Generator, task: str, lexicon: Lexicon) -> GoldJudgement:
    """Draw a judge's readings of two candidates without rendering a picture."""
    if not TASKS[task].answers:
        kind = pick(rng, CAPTION_KINDS[TASKS[task].medium])
        words = draw_words(rng, kind, lexicon)
        first, second = (_shown(rng, task, kind, words, lexicon)[1] for _ in range(2))
        return GoldJudgement(task, [], (first, second))
    question, words = draw_question(rng, task, lexicon)
    first, second = (_drafted(rng, task, question, words, lexicon)[1] for _ in range(2))
    return GoldJudgement(task, words, (first, second))


def _conclude(rng: np.random.Generator, lexicon: Lexicon) -> Drilled:
    """Continue an observation of two candidates with scores, totals and answer, without the media."""
    task = PAPER_TASKS[int(rng.integers(len(PAPER_TASKS)))]
    while True:
        judgement = _readings(rng, task, lexicon)
        first, second = (sum(scores_of(task, reading)) for reading in judgement.candidates)
        if first != second:
            return _fixed(f"{observation_text(judgement)}\nConclude.", conclusion_text(judgement, rng))


_MAKERS: dict[str, Callable[[np.random.Generator, Lexicon], Drilled]] = {
    "describe": partial(_describe, task=PICTURES),
    "describe_clip": partial(_describe, task=CLIPS),
    "describe_pair": _describe_pair,
    "check": partial(_check, task=PICTURES),
    "check_clip": partial(_check, task=CLIPS),
    "check_text": _check_text,
    "check_answer": _check_answer,
    "observe": _observe,
    "sums": _sums,
    "conclude": _conclude,
}
DRILLS: tuple[str, ...] = tuple(_MAKERS)


def make_drill(kind: str, *, split: str, seed: int, index: int, misread: float = 0.0, wide: float = 0.0) -> Example:
    """Make one chat of a single skill: ``text`` with media placeholders, ``context`` media, ``response`` to learn.

    Half of the held-out drills with words hold a colour-shape pair that training never shows (``meta["unseen"]``).

    ``wide`` is the chance that a drill also draws colours and shapes that comparisons do not use (``DRILL_WORDS``).

    ``misread`` is the chance that a scene word is replaced by another of its category in ``input_response``, the input
    tokens while the response is learnt. Marks and scores follow from the misread word, since a judge continues what it
    wrote, but the target stays the right word::

        caption "a red circle", the picture shows it     misread as a square
        input_response     Image: red (ok) square (no); clean; whole | 6+9+8=23
        response    Image: red (ok) circle (no); clean; whole | 6+9+8=23

    So no word can be guessed from the words before it, only seen, and the model does not learn to exclude word pairs
    that training never shows (arXiv 1511.06349 drops words to this end, 1506.03099 inserts the model's own).

    Raises:
        BadInputError: unknown drill or split, a negative seed or index.
    """
    choose(kind, DRILLS, "drill")
    rng = make_generator(split, seed=seed, index=index, stream=f"drill {kind}")
    unseen = split == "heldout" and kind != "sums" and bool(rng.random() < 0.5)
    widened = bool(make_generator(split, seed=seed, index=index, stream=f"wide {kind}").random() < wide)
    drawn = _MAKERS[kind](rng, Lexicon(unseen, widened))
    response, input_response = drawn.write(drawn.words), None
    if misread and drawn.words:
        slips = make_generator(split, seed=seed, index=index, stream=f"misread {kind}")
        input_response = drawn.write([misread_word(slips, misread, word, wide=widened) for word in drawn.words])
        right = iter(drawn.words)
        response = SCENE_WORD.sub(lambda _: f" {next(right)}", input_response)
    return Example(
        id=f"drill-{kind}-{split}-{seed}-{index}",
        text=drawn.prompt,
        context=drawn.media,
        response=response,
        input_response=input_response,
        meta={"drill": kind, "unseen": unseen, "split": split, "seed": seed, "index": index},
    )

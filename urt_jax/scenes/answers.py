"""Comparisons of two written answers to a question about one picture or clip."""

from typing import Any, NamedTuple

import numpy as np

from urt_jax.data.examples import Example
from urt_jax.scenes.pairs import comparison_meta, draw_faults, draw_medium, draw_order
from urt_jax.scenes.scales import SCALES, draw_meeting
from urt_jax.scenes.world import Lexicon, draw_words, make_generator, spoil
from urt_jax.tasks import TASKS


class SceneQuestion(NamedTuple):
    """A question template: texts of question and answer with slots for scene words, and the slots named or asked."""

    kind: str
    text: str
    answer: str
    named: tuple[int, ...]
    asked: tuple[int, ...]


QUESTIONS: dict[str, tuple[SceneQuestion, ...]] = {  # by medium
    "image": (
        SceneQuestion("relation", "where is the {0} {1}?", "the {0} {1} is {2} the {3} {4}", (0, 1), (2, 3, 4)),
        SceneQuestion("relation", "what is {2} the {3} {4}?", "a {0} {1} is {2} the {3} {4}", (2, 3, 4), (0, 1)),
        SceneQuestion(
            "relation",
            "what colour is the {1} {2} the {3} {4}?",
            "the {1} {2} the {3} {4} is {0}",
            (1, 2, 3, 4),
            (0,),
        ),
        SceneQuestion("relation", "what shape is {2} the {3} {4}?", "a {1} is {2} the {3} {4}", (2, 3, 4), (1,)),
        SceneQuestion("count", "how many {1} {2} are there?", "there are {0} {1} {2}", (1, 2), (0,)),
    ),
    "video": (
        SceneQuestion("sized_moving", "which way does the {0} {1} {2} move?", "the {0} {1} {2} {3}", (0, 1, 2), (3,)),
        SceneQuestion("sized_moving", "what {3}?", "a {0} {1} {2} {3}", (3,), (0, 1, 2)),
        SceneQuestion(
            "sized_moving", "what colour is the {0} {2} that {3}?", "the {0} {2} that {3} is {1}", (0, 2, 3), (1,)
        ),
        SceneQuestion(
            "sized_moving",
            "how large is the {1} {2} and how does it move?",
            "the {1} {2} is {0} and {3}",
            (1, 2),
            (0, 3),
        ),
    ),
}

# Padding of an answer by its number of words: (before it, after it). It carries no information.
FILLERS: dict[int, tuple[tuple[str, str], ...]] = {
    2: (("i think", ""), ("it seems", ""), ("", "i think"), ("", "it seems")),
    3: (("", "in the picture"), ("as shown here", ""), ("", "as shown here"), ("in the picture", "")),
    4: (("i think that now", ""), ("as one can see", ""), ("", "as one can see"), ("it seems that now", "")),
    5: (("i think", "in the picture"), ("it seems", "in the picture"), ("i think", "as shown here")),
}
# Replacement of a padding word of that many letters in a stammering answer; both lengths stay as drawn.
STAMMERS = {letters: "u" + "m" * (letters - 1) for letters in range(1, 8)}


class Draft(NamedTuple):
    """A written answer and its faults."""

    text: str
    words: list[str]  # the scene words that the answer states
    clarity: list[str]  # its clarity faults


def _scramble(rng: np.random.Generator, parts: list[str], scene_words: list[str]) -> list[str]:
    """Shuffle the function words among the scene words, which keep their order and so their meaning.

    The sentence then ends on a function word, as no well-formed answer without padding does.
    """
    content = [part for part in parts if part in scene_words]
    small = [part for part in parts if part not in scene_words]
    small = [small[place] for place in rng.permutation(len(small))]
    places = [*sorted(rng.integers(0, len(content) + 1, len(small) - 1).tolist()), len(content)]
    scrambled: list[str] = []
    for at in range(len(content) + 1):
        scrambled += [word for word, place in zip(small, places) if place == at]
        scrambled += content[at : at + 1]
    return scrambled


def write_answer(rng: np.random.Generator, question: SceneQuestion, words: list[str], clarity: list[str]) -> str:
    """Write an answer that states ``words``; its length is drawn independently of its faults."""
    parts = question.answer.split()
    parts = [words[int(part[1:-1])] if part.startswith("{") else part for part in parts]
    padding = int(rng.integers(2, 6))
    before, after = FILLERS[padding][int(rng.integers(len(FILLERS[padding])))]
    if "scrambled" in clarity:
        parts = _scramble(rng, parts, words)
    if "stammering" in clarity:
        for word in f"{before} {after}".split():
            parts.insert(int(rng.integers(len(parts) + 1)), STAMMERS[len(word)])
        before = after = ""
    return " ".join(part for part in (before, *parts, after) if part)


def draw_draft(
    rng: np.random.Generator,
    task: str,
    question: SceneQuestion,
    words: list[str],
    *,
    misnamed: int,
    mistaken: int,
    blemishes: int,
    lexicon: Lexicon,
) -> Draft:
    """Draw an answer with these numbers of wrong names, wrong values and clarity faults, or as many as possible."""
    slots = (*rng.permutation(question.named)[:misnamed].tolist(), *rng.permutation(question.asked)[:mistaken].tolist())
    said = spoil(rng, question.kind, words, len(slots), slots=slots, lexicon=lexicon)
    clarity = draw_faults(rng, task, TASKS[task].dimensions[2], blemishes)
    return Draft(write_answer(rng, question, said, clarity), said, clarity)


def describe_draft(task: str, question: SceneQuestion, words: list[str], draft: Draft) -> dict[str, Any]:
    """Return a draft's parts by dimension, in the form of ``meta["candidates"]``."""
    names, values, clarity = TASKS[task].dimensions
    return {
        names: [[draft.words[slot], words[slot]] for slot in question.named],
        values: [[draft.words[slot], words[slot]] for slot in question.asked],
        clarity: draft.clarity,
    }


def levels_of(task: str, question: SceneQuestion) -> tuple[tuple[int, ...], ...]:
    """Return the scores that each dimension can reach: a question naming two words cannot have three wrong names."""
    names, values, clarity = SCALES[task]
    return names.scores[: len(question.named) + 1], values.scores[: len(question.asked) + 1], clarity.scores


def draw_question(rng: np.random.Generator, task: str, lexicon: Lexicon) -> tuple[SceneQuestion, list[str]]:
    """Draw a question template and the words of its scene."""
    forms = QUESTIONS[TASKS[task].medium]
    question = forms[int(rng.integers(len(forms)))]
    return question, draw_words(rng, question.kind, lexicon)


def make_answer_pair(task: str, *, split: str, seed: int, index: int, difficulty: float) -> Example:
    """Make one comparison of two answers about a medium; arguments as in ``make_example``."""
    rng = make_generator(split, seed=seed, index=index, stream=task)
    unseen = split == "heldout" and rng.random() < 0.5
    lexicon = Lexicon(unseen)
    question, words = draw_question(rng, task, lexicon)
    context = draw_medium(rng, task, question.kind, words)
    meeting = draw_meeting(rng, levels_of(task, question), hard=bool(rng.random() < difficulty), drawn=False)
    scores = meeting if draw_order(split, seed=seed, index=index, task=task) else meeting[::-1]
    drafts = []
    for triple in scores:
        counts = [scale.scores.index(score) for scale, score in zip(SCALES[task], triple)]
        drafts.append(
            draw_draft(
                rng, task, question, words, misnamed=counts[0], mistaken=counts[1], blemishes=counts[2], lexicon=lexicon
            )
        )
    meta = comparison_meta(
        task,
        (scores[0], scores[1]),
        [describe_draft(task, question, words, draft) for draft in drafts],
        unseen=unseen,
        kind=question.kind,
        split=split,
        seed=seed,
        index=index,
        seen=words,
        name_slots=list(question.named),
        value_slots=list(question.asked),
    )
    return Example(
        id=f"{task}-{split}-{seed}-{index}",
        task=task,
        prompt=question.text.format(*words),
        context=(context,),
        candidates=tuple(draft.text for draft in drafts),
        label=1 if sum(scores[0]) > sum(scores[1]) else 2,
        meta=meta,
    )

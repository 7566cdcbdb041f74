"""The vocabulary of scenes: words by category, kinds of caption, and replacements of words."""

from typing import NamedTuple

import numpy as np

from urt_jax.errors import BadInputError, unknown_choice
from urt_jax.tasks import PAPER_TASKS

CATEGORIES: dict[str, tuple[str, ...]] = {
    "size": ("small", "large"),
    "count": ("two", "three"),
    "colour": ("red", "green", "blue", "yellow", "purple"),
    "shape": ("circle", "square", "triangle"),
    "shapes": ("circles", "squares", "triangles"),
    "relation": ("left of", "right of", "above", "below"),
    "direction": ("moves left", "moves right", "moves up", "moves down"),
}
# Words that only drills use: with more colours and shapes than comparisons have, the two are learnt independently.
# "odd" is any colour without a name.
DRILL_WORDS: dict[str, tuple[str, ...]] = {
    "colour": ("orange", "teal", "pink", "brown", "grey", "odd"),
    "shape": ("star", "diamond", "ring", "bar"),
    "shapes": ("stars", "diamonds", "rings", "bars"),
}
OFTEN = {"colour": "odd", "size": "small"}  # half of their category in wide drills: small shapes are hard to tell
CATEGORY_OF: dict[str, str] = {
    word: name for words_of in (CATEGORIES, DRILL_WORDS) for name, words in words_of.items() for word in words
}
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

# Colour-shape pairs that no training record shows, names or asks about.
UNSEEN = frozenset({("purple", "triangle"), ("green", "circle"), ("yellow", "square")})

SPLITS = ("train", "heldout")
SCENE_TASKS = (*PAPER_TASKS, "image_edit", "image_score", "video_score")


class Kind(NamedTuple):
    """A kind of scene: the categories of its words, in caption order, and the caption template."""

    slots: tuple[str, ...]
    caption: str


KINDS: dict[str, Kind] = {
    "sized": Kind(("size", "colour", "shape"), "a {0} {1} {2}"),
    "relation": Kind(("colour", "shape", "relation", "colour", "shape"), "a {0} {1} {2} a {3} {4}"),
    "count": Kind(("count", "colour", "shapes"), "{0} {1} {2}"),
    "moving": Kind(("colour", "shape", "direction"), "a {0} {1} {2}"),
    "sized_moving": Kind(("size", "colour", "shape", "direction"), "a {0} {1} {2} {3}"),
}


def choose(given: str, known: tuple[str, ...], what: str) -> str:
    """Return ``given`` when it is one of ``known``.

    Raises:
        BadInputError: it is not; the message lists the known names and the nearest spelling.
    """
    if given in known:
        return given
    raise BadInputError(f"scenes: {what} {unknown_choice(given, known)}")


def make_generator(split: str, *, seed: int, index: int, stream: str) -> np.random.Generator:
    """Make the random stream of one record, determined by split, seed, stream (a task or a drill) and index.

    Raises:
        BadInputError: unknown split, or a negative seed or index.
    """
    choose(split, SPLITS, "split")
    if seed < 0 or index < 0:
        raise BadInputError(f"scenes need a seed and an index of 0 or more, got seed={seed}, index={index}")
    entropy = [seed, SPLITS.index(split), index, *stream.encode()]
    return np.random.default_rng(np.random.SeedSequence(entropy))


def check_task(task: str) -> str:
    """Return the task of this name, or raise a BadInputError that lists the known ones."""
    return choose(task, SCENE_TASKS, "task")


def pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    """Draw one of the options, all equally likely."""
    return options[int(rng.integers(len(options)))]


def colour_shapes(words: list[str]) -> list[tuple[str, str]]:
    """Return the (colour, shape) of every named object, shapes in the singular."""
    colours = [word for word in words if CATEGORY_OF[word] == "colour"]
    shapes = [word.removesuffix("s") for word in words if CATEGORY_OF[word] in ("shape", "shapes")]
    return list(zip(colours, shapes))


def has_unseen(words: list[str]) -> bool:
    """Return whether a named object has a colour-shape pair that training never shows."""
    return any(pair in UNSEEN for pair in colour_shapes(words))


def caption_of(kind: str, words: list[str]) -> str:
    """Write the caption of a scene."""
    return KINDS[kind].caption.format(*words)


def words_like(category: str, *, wide: bool) -> tuple[str, ...]:
    """Return the words of a category, with those that only drills use if ``wide``."""
    return CATEGORIES[category] + (DRILL_WORDS.get(category, ()) if wide else ())


def _draw_word(rng: np.random.Generator, category: str, *, wide: bool) -> str:
    if wide and category in OFTEN and rng.random() < 0.5:
        return OFTEN[category]
    return pick(rng, words_like(category, wide=wide))


class Lexicon(NamedTuple):
    """The words that a scene may use."""

    unseen: bool  # True = at least one colour-shape pair that training never shows; False = none
    wide: bool = False  # also the words that only drills use


def draw_words(rng: np.random.Generator, kind: str, lexicon: Lexicon) -> list[str]:
    """Draw the words of a scene; the two objects of a relation differ in both colour and shape."""
    while True:
        words = [_draw_word(rng, slot, wide=lexicon.wide) for slot in KINDS[kind].slots]
        if kind == "relation" and (words[0] == words[3] or words[1] == words[4]):
            continue
        if has_unseen(words) == lexicon.unseen:
            return words


def spoil(
    rng: np.random.Generator,
    kind: str,
    words: list[str],
    wrong: int,
    *,
    slots: tuple[int, ...],
    lexicon: Lexicon,
) -> list[str]:
    """Replace ``wrong`` of the words at ``slots`` by others of their category in the lexicon.

    An unseen colour-shape pair appears only if the lexicon allows it. Two objects never become alike.
    """
    while True:
        spoiled = list(words)
        for slot in rng.permutation(slots)[:wrong]:
            others = tuple(
                word for word in words_like(KINDS[kind].slots[slot], wide=lexicon.wide) if word != words[slot]
            )
            spoiled[slot] = pick(rng, others)
        alike = kind == "relation" and spoiled[:2] == spoiled[3:]
        if not alike and (lexicon.unseen or not has_unseen(spoiled)):
            return spoiled


def reads_one_way(words: list[str], shown: list[str]) -> bool:
    """Return whether ``shown`` matches the caption better than the same picture described from its other object.

    "red circle left of blue square" and "blue square right of red circle" are one picture; the number of wrong words is
    well defined only if ``shown`` is the closer description.
    """
    if len(words) != 5:
        return True
    told = [shown[3], shown[4], INVERSE[shown[2]], shown[0], shown[1]]
    return sum(a != b for a, b in zip(words, shown)) < sum(a != b for a, b in zip(words, told))

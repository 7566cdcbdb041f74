"""Comparisons of two generated pictures, or of two clips, for one caption."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from urt_jax.data.examples import Example, Media
from urt_jax.scenes.render import FPS, draw_clip, draw_picture
from urt_jax.scenes.scales import HARD_MARGIN, SCALES, draw_meeting, scale_of
from urt_jax.scenes.world import (
    Lexicon,
    caption_of,
    draw_words,
    make_generator,
    pick,
    reads_one_way,
    spoil,
)
from urt_jax.tasks import TASKS

CAPTION_KINDS: dict[str, tuple[str, ...]] = {  # by medium
    "image": ("sized", "relation", "count"),
    "video": ("moving", "sized_moving"),
}


def draw_faults(rng: np.random.Generator, task: str, dimension: str, count: int) -> list[str]:
    """Draw ``count`` distinct faults of a dimension, in the dimension's order."""
    faults = scale_of(task, dimension).faults
    drawn = set(rng.permutation(len(faults))[:count].tolist())
    return [fault for place, fault in enumerate(faults) if place in drawn]


def draw_shown(rng: np.random.Generator, kind: str, words: list[str], wrong: int, lexicon: Lexicon) -> list[str]:
    """Draw the words that a picture shows, exactly ``wrong`` of which differ from the caption's."""
    while True:
        shown = spoil(rng, kind, words, wrong, slots=tuple(range(len(words))), lexicon=lexicon)
        if reads_one_way(words, shown):
            return shown


def draw_medium(rng: np.random.Generator, task: str, kind: str, shown: list[str], faults: Sequence[str] = ()) -> Media:
    """Render the picture or clip of a task."""
    if TASKS[task].medium == "image":
        return Media("image", draw_picture(rng, kind, shown, faults=faults))
    return Media("video", draw_clip(rng, kind, shown, faults=faults), fps=FPS)


def draw_order(split: str, *, seed: int, index: int, task: str) -> bool:
    """Draw whether the winner comes first; it does in exactly one of each two consecutive records."""
    first = make_generator(split, seed=seed, index=index // 2, stream=f"{task} order").random() < 0.5
    return first != bool(index % 2)


def comparison_meta(
    task: str, scores: tuple[tuple[int, ...], tuple[int, ...]], candidates: list[dict[str, Any]], **said: Any
) -> dict[str, Any]:
    """Return a comparison's ``meta`` on its candidates, in the order shown; plain JSON types only."""
    margin = abs(sum(scores[0]) - sum(scores[1]))
    return {
        "scores": {name: [int(scores[0][at]), int(scores[1][at])] for at, name in enumerate(TASKS[task].dimensions)},
        "margin": margin,
        "difficulty": "hard" if margin <= HARD_MARGIN else "easy",
        "candidates": candidates,
        **said,
    }


class Scene(NamedTuple):
    """What a caption says: the kind of scene, its words, and the words that pictures of it may show."""

    kind: str
    words: list[str]
    lexicon: Lexicon


def draw_candidate(
    rng: np.random.Generator, task: str, scene: Scene, triple: Sequence[int]
) -> tuple[Media, dict[str, Any]]:
    """Draw a picture or clip with one score per dimension of a generation task; return it and what is in it."""
    semantic, quality, authenticity = TASKS[task].dimensions
    wrong, blemishes, breaks = (scale.scores.index(score) for scale, score in zip(SCALES[task], triple))
    shown = draw_shown(rng, scene.kind, scene.words, wrong, scene.lexicon)
    faults = [draw_faults(rng, task, quality, blemishes), draw_faults(rng, task, authenticity, breaks)]
    medium = draw_medium(rng, task, scene.kind, shown, faults[0] + faults[1])
    marks = [[seen, wanted] for seen, wanted in zip(shown, scene.words)]
    return medium, {semantic: marks, quality: faults[0], authenticity: faults[1]}


def draw_scene(rng: np.random.Generator, task: str, split: str) -> Scene:
    """Draw what the caption of a generation task says; half of the held-out scenes hold an unseen colour-shape pair."""
    unseen = split == "heldout" and rng.random() < 0.5
    kind = pick(rng, CAPTION_KINDS[TASKS[task].medium])
    lexicon = Lexicon(unseen)
    return Scene(kind, draw_words(rng, kind, lexicon), lexicon)


def make_generation_pair(task: str, *, split: str, seed: int, index: int, difficulty: float) -> Example:
    """Make one comparison of two media for a caption; arguments as in ``make_example``."""
    rng = make_generator(split, seed=seed, index=index, stream=task)
    scene = draw_scene(rng, task, split)
    levels = tuple(scale.scores for scale in SCALES[task])
    meeting = draw_meeting(rng, levels, hard=bool(rng.random() < difficulty), drawn=True)
    scores = meeting if draw_order(split, seed=seed, index=index, task=task) else meeting[::-1]
    media, candidates = zip(*(draw_candidate(rng, task, scene, triple) for triple in scores))
    origin = {"unseen": scene.lexicon.unseen, "kind": scene.kind, "split": split, "seed": seed, "index": index}
    meta = comparison_meta(task, (scores[0], scores[1]), list(candidates), **origin)
    return Example(
        id=f"{task}-{split}-{seed}-{index}",
        task=task,
        prompt=caption_of(scene.kind, scene.words),
        candidates=media,
        label=1 if sum(scores[0]) > sum(scores[1]) else 2,
        meta=meta,
    )

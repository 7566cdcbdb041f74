"""Comparisons of two generated pictures, or of two clips, for one caption."""

from collections.abc import Sequence
from typing import Any

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


def make_generation_pair(task: str, *, split: str, seed: int, index: int, difficulty: float) -> Example:
    """Make one comparison of two media for a caption; arguments as in ``make_example``."""
    rng = make_generator(split, seed=seed, index=index, stream=task)
    unseen = split == "heldout" and rng.random() < 0.5
    kind = pick(rng, CAPTION_KINDS[TASKS[task].medium])
    lexicon = Lexicon(unseen)
    words = draw_words(rng, kind, lexicon)
    scales = SCALES[task]
    levels = tuple(scale.scores for scale in scales)
    meeting = draw_meeting(rng, levels, hard=bool(rng.random() < difficulty), drawn=True)
    scores = meeting if draw_order(split, seed=seed, index=index, task=task) else meeting[::-1]
    semantic, quality, authenticity = TASKS[task].dimensions
    media, candidates = [], []
    for triple in scores:
        wrong, blemishes, breaks = (scale.scores.index(score) for scale, score in zip(scales, triple))
        shown = draw_shown(rng, kind, words, wrong, lexicon)
        faults = [draw_faults(rng, task, quality, blemishes), draw_faults(rng, task, authenticity, breaks)]
        media.append(draw_medium(rng, task, kind, shown, faults[0] + faults[1]))
        marks = [[seen, wanted] for seen, wanted in zip(shown, words)]
        candidates.append({semantic: marks, quality: faults[0], authenticity: faults[1]})
    meta = comparison_meta(
        task, (scores[0], scores[1]), candidates, unseen=unseen, kind=kind, split=split, seed=seed, index=index
    )
    return Example(
        id=f"{task}-{split}-{seed}-{index}",
        task=task,
        prompt=caption_of(kind, words),
        candidates=tuple(media),
        label=1 if sum(scores[0]) > sum(scores[1]) else 2,
        meta=meta,
    )

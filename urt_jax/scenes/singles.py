"""Single pictures and clips with gold scores, and groups of several for one caption with a gold ranking."""

from typing import Any

import numpy as np

from urt_jax.data.examples import Example
from urt_jax.scenes.pairs import draw_candidate, draw_scene
from urt_jax.scenes.scales import SCALES
from urt_jax.scenes.world import caption_of, make_generator, pick
from urt_jax.tasks import TASKS

COMPARISON_OF = {"image_score": "image_gen", "video_score": "video_gen"}  # whose faults and scales the pictures have
# The dimension of the comparison that an axis of the score stands for.
_DIMENSION = {
    "image_score": {"Alignment": "Semantic consistency", "Coherence": "Authenticity", "Style": "Aesthetics"},
    "video_score": {"Alignment": "Semantic consistency", "Physics": "Authenticity", "Style": "Temporal coherence"},
}


def make_single(task: str, *, split: str, seed: int, index: int, difficulty: float) -> Example:
    """Make one picture or clip to score; every score of every dimension is equally likely.

    The gold score of an axis is half of the comparison's, so that 1 to 10 becomes 1 to 5. ``difficulty`` has no meaning
    here; other arguments as in ``make_example``.
    """
    rng = make_generator(split, seed=seed, index=index, stream=task)
    compared = COMPARISON_OF[task]
    scene = draw_scene(rng, compared, split)
    triple = _draw_scores(rng, compared)
    medium, said = draw_candidate(rng, compared, scene, triple)
    halves = {name: score / 2 for name, score in zip(TASKS[compared].dimensions, triple)}
    return Example(
        id=f"{task}-{split}-{seed}-{index}",
        task=task,
        prompt=caption_of(scene.kind, scene.words),
        candidates=(medium,),
        meta={
            "scores": {axis: [halves[_DIMENSION[task][axis]]] for axis in TASKS[task].dimensions},
            "candidates": [said],
            **_origin(split, seed, index),
            "unseen": scene.lexicon.unseen,
        },
    )


def make_group(task: str, *, size: int, split: str, seed: int, index: int) -> Example:
    """Make ``size`` candidates of a generation task for one caption, ranked by the sum of their scores, with ties."""
    rng = make_generator(split, seed=seed, index=index, stream=f"{task} group of {size}")
    scene = draw_scene(rng, task, split)
    triples = [_draw_scores(rng, task) for _ in range(size)]
    media, said = zip(*(draw_candidate(rng, task, scene, triple) for triple in triples))
    totals = [sum(triple) for triple in triples]
    return Example(
        id=f"{task}-group-{split}-{seed}-{index}",
        task=task,
        prompt=caption_of(scene.kind, scene.words),
        candidates=media,
        ranking=tuple(1 + sum(other > total for other in totals) for total in totals),
        meta={
            "scores": {name: [triple[at] for triple in triples] for at, name in enumerate(TASKS[task].dimensions)},
            "candidates": list(said),
            **_origin(split, seed, index),
            "unseen": scene.lexicon.unseen,
        },
    )


def _draw_scores(rng: np.random.Generator, task: str) -> tuple[int, ...]:
    return tuple(int(pick(rng, tuple(map(str, scale.scores)))) for scale in SCALES[task])


def _origin(split: str, seed: int, index: int) -> dict[str, Any]:
    return {"split": split, "seed": seed, "index": index}

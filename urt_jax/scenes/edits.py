"""Comparisons of two edits of a picture: was the instruction followed, the rest kept, and the picture left clean?"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from urt_jax.data.examples import Example, Media
from urt_jax.scenes.pairs import comparison_meta, draw_order
from urt_jax.scenes.render import draw_picture
from urt_jax.scenes.scales import QUALITY, Scale, draw_meeting
from urt_jax.scenes.world import CATEGORIES, KINDS, Lexicon, draw_words, make_generator, pick, spoil

TASK = "image_edit"
FOLLOWED = Scale((9, 4))
KEPT = Scale((9, 6, 4))
EDIT_SCALES = (FOLLOWED, KEPT, QUALITY["image"])  # in the order of the task's dimensions
EDITED_KINDS = ("sized", "relation")


def make_edit_pair(task: str, *, split: str, seed: int, index: int, difficulty: float) -> Example:
    """Make one comparison of two edits; arguments as in ``make_example``.

    The instruction names a new colour for one object. An edit either has it or not, changes 0 to 2 further words of the
    scene, and has 0 to 2 faults of quality. All three pictures share ground and places, so that only the source tells
    what an edit changed.
    """
    rng = make_generator(split, seed=seed, index=index, stream=task)
    kind = pick(rng, EDITED_KINDS)
    words = draw_words(rng, kind, Lexicon(False))
    slot = pick(rng, tuple(str(place) for place, name in enumerate(KINDS[kind].slots) if name == "colour"))
    edited = int(slot)
    wanted = [*words]
    wanted[edited] = pick(rng, tuple(colour for colour in CATEGORIES["colour"] if colour not in words))
    levels = tuple(scale.scores for scale in EDIT_SCALES)
    meeting = draw_meeting(rng, levels, hard=bool(rng.random() < difficulty), drawn=False)
    scores = meeting if draw_order(split, seed=seed, index=index, task=task) else meeting[::-1]
    layout = int(rng.integers(2**63))
    shown, faults = zip(*(_draw_edit(rng, kind, (words, wanted), edited, triple) for triple in scores))
    source = Media("image", draw_picture(np.random.default_rng(layout), kind, words))
    edits = tuple(
        Media("image", draw_picture(np.random.default_rng(layout), kind, list(seen), faults=spoilt))
        for seen, spoilt in zip(shown, faults)
    )
    said: list[dict[str, Any]] = [{"shown": list(seen), "faults": spoilt} for seen, spoilt in zip(shown, faults)]
    meta = comparison_meta(task, (scores[0], scores[1]), said, unseen=False, kind=kind, split=split, seed=seed)
    return Example(
        id=f"{task}-{split}-{seed}-{index}",
        task=task,
        prompt=f"paint the {words[edited + 1]} {wanted[edited]}",
        context=(source,),
        candidates=edits,
        label=1 if sum(scores[0]) > sum(scores[1]) else 2,
        meta=meta | {"index": index, "source": list(words)},
    )


def _draw_edit(
    rng: np.random.Generator, kind: str, told: tuple[list[str], list[str]], edited: int, triple: Sequence[int]
) -> tuple[list[str], list[str]]:
    """Return the words that an edit shows, and its faults of quality; ``told`` are the words before and as asked."""
    before, wanted = told
    missed, changed, blemishes = (scale.scores.index(score) for scale, score in zip(EDIT_SCALES, triple))
    others = tuple(place for place in range(len(before)) if place != edited)
    shown = spoil(rng, kind, before if missed else wanted, changed, slots=others, lexicon=Lexicon(True))
    faults = EDIT_SCALES[2].faults
    drawn = set(rng.permutation(len(faults))[:blemishes].tolist())
    return shown, [fault for place, fault in enumerate(faults) if place in drawn]

"""Judgements and records that the tests of this room are made of."""

import numpy as np

from urt_jax.data.examples import Example, Media
from urt_jax.evals.pairwise import Judgement
from urt_jax.tasks.replies import Verdict

GOLD = {"Semantic consistency": [9, 6], "Aesthetics": [9, 7], "Authenticity": [5, 8]}  # totals 23 and 21


def written(first: tuple[int, int, int], second: tuple[int, int, int], answer: int, *, carry: int = 0) -> str:
    """A complete v1 reasoning on two images; ``carry`` spoils the first total."""
    names = list(GOLD)
    lines = [
        f"{n}. {name}: Image 1 ({first[n - 1]}/10) - a; Image 2 ({second[n - 1]}/10) - b"
        for n, name in enumerate(names, 1)
    ]
    sums = [f"Image {n}: {'+'.join(map(str, s))}={sum(s) + carry * (n == 1)}" for n, s in ((1, first), (2, second))]
    body = "\n".join([*lines, "Total score:", *sums])
    return f"<think>\n{body}\n</think>\n<answer>Image {answer} is better</answer>"


def image_pair(name: str, *, label: int | str | None = 1, **meta: object) -> Example:
    """A pair of small pictures whose gold scores make the first one better."""
    pictures = [np.full((56, 56, 3), shade, np.uint8) for shade in (40, 200)]
    return Example(
        id=name,
        task="image_gen",
        prompt="a red circle",
        candidates=tuple(Media("image", picture) for picture in pictures),
        label=label,  # type: ignore[arg-type]
        meta={"scores": GOLD, "difficulty": "hard", **meta},
    )


def judgement(name: str, order: str, winner: int | str | None, label: int = 1, **fields: object) -> Judgement:
    """A judgement by its verdict; ``label`` is of the given order and mirrored in the other."""
    shown = label if order == "given" else 3 - label
    verdict = Verdict(
        winner=winner,
        scores={},
        totals=None,
        margin=None,
        reasoning="",
        text="the text",
        failure=None if winner is not None else "no <answer>",
    )
    return Judgement(
        id=name,
        order=order,  # type: ignore[arg-type]
        label=shown,
        verdict=verdict,
        correct=winner == shown,
        **fields,  # type: ignore[arg-type]
    )

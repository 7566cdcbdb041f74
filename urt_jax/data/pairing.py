"""The pairs of a record with more than two candidates: from its ranking, else from its gold scores."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Literal

import numpy as np

from urt_jax.data.examples import Example, Media

Key = tuple[Any, ...]
CLOSE = 1e-6  # mean scores that differ by no more are a tie


def pairs_of(example: Example, *, seed: int) -> list[Example]:
    """Return every pair of a record's candidates, each once; a record of two or fewer is returned as it is.

    The better rank wins, equal ranks tie; without a ranking the higher mean of the gold scores wins. The order of a
    pair is drawn from (``seed``, id, places), so that it does not tell the winner. ``meta["prompt_group"]`` is the
    record's id unless it has one: pairs of one record are not independent. Votes, aspects and a response to learn fit
    the whole record only and are left out.
    """
    if len(example.candidates) <= 2:
        return [example]
    ranks = _ranks(example)
    return [_pair(example, places, ranks, seed=seed) for places in combinations(range(len(example.candidates)), 2)]


def pair_key(example: Example) -> Key | None:
    """Return what a pair and the same pair in the other order have in common; None of anything else.

    Media are compared by where they lie, not by their pixels.
    """
    if len(example.candidates) != 2 or example.task is None:
        return None
    context, candidates = (tuple(map(_mark, items)) for items in (example.context, example.candidates))
    return (example.task, example.prompt or example.text, context, *sorted(candidates))


def _mark(item: Media | str) -> str:
    if isinstance(item, str):
        return item
    source = item.source
    if isinstance(source, bytes | np.ndarray):
        return hashlib.sha256(bytes(source)).hexdigest()
    return str(list(map(str, source)) if isinstance(source, list | tuple) else source)


def _ranks(example: Example) -> Sequence[float] | None:
    """Return a number per candidate, lower = better; None without a ranking and without scores."""
    if example.ranking is not None:
        return example.ranking
    columns = list(zip(*example.meta.get("scores", {}).values()))
    if columns:
        return [-sum(column) / len(column) for column in columns]
    if isinstance(example.label, int):  # only the best is known
        return [float(place + 1 != example.label) for place in range(len(example.candidates))]
    return None


def _pair(example: Example, places: tuple[int, int], ranks: Sequence[float] | None, *, seed: int) -> Example:
    name = f"{example.id}[{places[0] + 1},{places[1] + 1}]"
    if hashlib.sha256(f"{seed}:{name}".encode()).digest()[0] % 2:
        places = (places[1], places[0])
    label: int | Literal["tie"] | None = None
    if ranks is not None:
        first, second = (ranks[place] for place in places)
        label = "tie" if abs(first - second) <= CLOSE else 1 if first < second else 2
        if example.ranking is None and not example.meta.get("scores") and label == "tie":
            label = None  # neither is the best one
    meta: dict[str, Any] = {"prompt_group": example.id, **example.meta, "places": [place + 1 for place in places]}
    meta.pop("aspects", None)
    if "scores" in meta:
        meta["scores"] = {name: [values[place] for place in places] for name, values in meta["scores"].items()}
    if "candidates" in meta:
        meta["candidates"] = [meta["candidates"][place] for place in places]
    return replace(
        example,
        id=name,
        candidates=tuple(example.candidates[place] for place in places),
        label=label,
        ranking=None,
        votes=None,
        response=None,
        input_response=None,
        meta=meta,
    )

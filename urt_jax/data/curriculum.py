"""A pool of questions that changes with what the model can already do: who is asked next, who leaves, who comes back.

An item is asked while its share of right answers lies within bounds and it was not all right too often in a row::

    asked -> share outside [lowest, highest], or all right retire_after times in a row -> left
      ^                                                                                    |
      +---- a right share again, or not all right  <-  asked once more (due)  <- every rescore_every steps

Everything is a function of the seed, the step and the state, and the state fits a checkpoint's JSON.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from urt_jax.data.examples import Example
from urt_jax.data.settings import Curriculum
from urt_jax.errors import BadInputError

NEWEST = 0.5  # weight of the newest group in the running share of an item


class PoolState(NamedTuple):
    """What is known of each item."""

    share: Float[np.ndarray, " items"]  # running mean of the share right, NaN = never measured
    shown: Int[np.ndarray, " items"]  # passes it took part in
    streak: Int[np.ndarray, " items"]  # groups in a row that were all right
    due: Bool[np.ndarray, " items"]  # asked once more although it left


def start_pool(examples: Sequence[Example]) -> PoolState:
    """Return the state before the first step; ``meta["correct_of"]`` (right, samples) of the reject stage is read.

    Raises:
        BadInputError: a record's ``correct_of`` is no such pair.
    """
    count = len(examples)
    share = np.array([_share_of(example) for example in examples], np.float64)
    return PoolState(share, np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count, bool))


def in_pool(state: PoolState, rules: Curriculum) -> Bool[np.ndarray, " items"]:
    """Return which items have not left; an item that was never measured is in."""
    outside = (state.share < rules.lowest) | (state.share > rules.highest)  # False of NaN
    return ~outside & ((state.streak < rules.retire_after) | (rules.retire_after == 0))


def draw_items(
    state: PoolState,
    rules: Curriculum,
    *,
    seed: int,
    step: int,
    count: int,
    taken: Collection[int] = (),
) -> list[int]:
    """Return ``count`` different items: of those in the pool or due the least shown, ties by (seed, step).

    So every item is asked once before any is asked again. Where too few are in, items that left fill up. Items in
    ``taken`` are passed over; fewer than ``count`` come back only where the records run out.
    """
    chance = np.random.default_rng([seed, 6, step, len(taken)]).random(len(state.share))
    out = ~(in_pool(state, rules) | state.due)
    return [int(item) for item in np.lexsort((chance, state.shown, out)) if item not in taken][:count]


def note_answers(state: PoolState, rules: Curriculum, accuracy: Mapping[int, float], *, step: int) -> PoolState:
    """Return the state after ``step`` steps (1 = the first), in the last of which items had these shares right."""
    share, shown, streak, due = (part.copy() for part in state)
    for item, right in accuracy.items():
        known = share[item]
        share[item] = right if np.isnan(known) else (1 - NEWEST) * known + NEWEST * right
        streak[item] = streak[item] + 1 if right == 1.0 else 0
        shown[item] += 1
        due[item] = False
    noted = PoolState(share, shown, streak, due)
    inside = in_pool(noted, rules)
    if rules.rescore_every and step % rules.rescore_every == 0 and not inside.all():
        due |= ~inside
        # They join the pass that is going on, instead of catching up with all they missed.
        shown[~inside] = np.maximum(shown[~inside], shown[inside].min() if inside.any() else 0)
    return noted


def pool_as_json(state: PoolState, start: PoolState) -> dict[str, Any]:
    """Return what differs from the start: the number of items, and ``[item, share, shown, streak, due]`` of those."""
    same = [np.where(np.isnan(a), np.isnan(b), a == b) for a, b in zip(state, start)]
    rows = [
        [int(item), None if np.isnan(share) else float(share), int(shown), int(streak), bool(due)]
        for item in np.flatnonzero(~np.logical_and.reduce(same))
        for share, shown, streak, due in [[part[item] for part in state]]
    ]
    return {"items": len(start.share), "changed": rows}


def pool_from_json(saved: Mapping[str, Any], start: PoolState) -> PoolState:
    """Return the state that ``pool_as_json`` described.

    Raises:
        BadInputError: it is of a pool with another number of items.
    """
    if saved["items"] != len(start.share):
        raise BadInputError(
            f"the checkpoint knows a pool of {saved['items']} questions, the data has {len(start.share)}: the file "
            "changed since the run began; give it as it was, or another --workdir"
        )
    share, shown, streak, due = (part.copy() for part in start)
    for item, *values in saved["changed"]:
        share[item] = np.nan if values[0] is None else values[0]
        shown[item], streak[item], due[item] = values[1:]
    return PoolState(share, shown, streak, due)


def _share_of(example: Example) -> float:
    counts = example.meta.get("correct_of")
    if counts is None:
        return np.nan
    try:
        right, samples = (int(number) for number in counts)
    except (TypeError, ValueError):
        right, samples = -1, 0
    if not 0 <= right <= samples or not samples:
        raise BadInputError(
            f"record {example.id}: correct_of is {counts!r}, needs [right, samples] as the reject stage writes it; "
            "mend it or leave it out"
        )
    return right / samples

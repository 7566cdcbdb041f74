"""A pool of questions that adapts to the model's accuracy: it selects the items to ask, retires and returns them.

An item is asked while its share of right answers is within bounds and its groups were not all right too often in a
row::

    asked -> share outside [lowest, highest], or all right retire_after times in a row -> left
      ^                                                                                    |
      +---- a right share again, or not all right  <-  asked once more (due)  <- every rescore_every steps

Every draw is a function of the seed, the step and the state; a checkpoint saves the state as JSON.
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
    """The state of each item."""

    share: Float[np.ndarray, " items"]  # running mean of the share of right answers, NaN = never measured
    shown: Int[np.ndarray, " items"]  # number of times it was asked
    streak: Int[np.ndarray, " items"]  # number of groups in a row that were all right
    due: Bool[np.ndarray, " items"]  # to be asked once more although it left


def start_pool(examples: Sequence[Example]) -> PoolState:
    """Return the state before the first step; ``meta["correct_of"]`` (right, samples) of the reject stage is read.

    Raises:
        BadInputError: a record's ``correct_of`` is not such a pair.
    """
    count = len(examples)
    share = np.array([_share_of(example) for example in examples], np.float64)
    return PoolState(share, np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count, bool))


def in_pool(state: PoolState, rules: Curriculum) -> Bool[np.ndarray, " items"]:
    """Return the mask of items in the pool, those that have not left; an item never measured is in."""
    outside = (state.share < rules.lowest) | (state.share > rules.highest)  # False for NaN
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
    """Return ``count`` different items of the pool, or due ones: the least shown first, ties broken by (seed, step).

    So every item is asked once before any is asked again. If the pool has too few, items that left are drawn too. Items
    in ``taken`` are excluded; fewer than ``count`` are returned only if the records run out.
    """
    chance = np.random.default_rng([seed, 6, step, len(taken)]).random(len(state.share))
    out = ~(in_pool(state, rules) | state.due)
    return [int(item) for item in np.lexsort((chance, state.shown, out)) if item not in taken][:count]


def note_answers(state: PoolState, rules: Curriculum, accuracy: Mapping[int, float], *, step: int) -> PoolState:
    """Return the state after step ``step`` (1 = the first); ``accuracy`` is the share of right answers by item."""
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
        # They join the current pass, instead of being asked for each pass that they missed.
        shown[~inside] = np.maximum(shown[~inside], shown[inside].min() if inside.any() else 0)
    return noted


def pool_as_json(state: PoolState, start: PoolState) -> dict[str, Any]:
    """Return the number of items, and ``[item, share, shown, streak, due]`` of each that differs from the start."""
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
        BadInputError: the saved pool has another number of items.
    """
    if saved["items"] != len(start.share):
        raise BadInputError(
            f"the checkpoint has a pool of {saved['items']} questions, the data has {len(start.share)}: the file "
            "changed since the run began; give the original file, or another --workdir"
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
            "correct it or leave it out"
        )
    return right / samples

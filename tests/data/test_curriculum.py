"""A pool by hand: who is asked, who leaves, who comes back; and its state through JSON."""

import json
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from urt_jax.data.curriculum import (
    Curriculum,
    PoolState,
    draw_items,
    in_pool,
    note_answers,
    pool_as_json,
    pool_from_json,
    start_pool,
)
from urt_jax.data.examples import Example
from urt_jax.errors import BadInputError

ALL = Curriculum()


def pool(*counts: list[int] | None) -> list[Example]:
    return [Example(str(n), meta={} if c is None else {"correct_of": c}) for n, c in enumerate(counts)]


def simulate(
    state: PoolState,
    rules: Curriculum,
    right: Callable[[int, int], float],
    *,
    steps: int,
    count: int,
    start: int = 0,
) -> tuple[PoolState, list[list[int]]]:
    """Return the state after ``steps`` steps and what each asked; ``right(item, step)`` is the share right."""
    asked = []
    for step in range(start, steps):
        asked.append(draw_items(state, rules, seed=3, step=step, count=count))
        state = note_answers(state, rules, {item: right(item, step) for item in asked[-1]}, step=step + 1)
    return state, asked


def test_the_share_starts_with_what_rejection_sampling_found() -> None:
    state = start_pool(pool([1, 4], None, [0, 4], [4, 4]))
    np.testing.assert_array_equal(state.share, [0.25, np.nan, 0.0, 1.0])
    assert in_pool(state, ALL).all()
    assert in_pool(state, Curriculum(lowest=0.25, highest=0.9)).tolist() == [True, True, False, False]


@pytest.mark.parametrize("counts", [[3, 2], [1], "ab", 5, [0, 0], [-1, 3]])
def test_a_share_that_is_none_is_refused(counts: object) -> None:
    with pytest.raises(
        BadInputError, match=r"record x: correct_of is .*, needs \[right, samples\] as the reject stage"
    ):
        start_pool([Example("x", meta={"correct_of": counts})])


def test_every_item_is_asked_once_before_any_is_asked_again() -> None:
    _, asked = simulate(start_pool(pool(*[None] * 12)), ALL, lambda item, step: 0.5, steps=9, count=4)
    for epoch in range(3):
        assert Counter(i for items in asked[3 * epoch : 3 * epoch + 3] for i in items) == Counter(range(12))
    assert asked[:3] != asked[3:6], "each pass has its own order"


def test_shares_and_streaks_by_hand() -> None:
    state = start_pool(pool([1, 4], None))
    for step, right in enumerate((1.0, 1.0, 0.5), 1):
        state = note_answers(state, ALL, {0: right, 1: right}, step=step)
        expected = {1: (0.625, 1.0, 1), 2: (0.8125, 1.0, 2), 3: (0.65625, 0.75, 0)}[step]
        assert (state.share[0], state.share[1], state.streak[0]) == expected
    assert state.shown.tolist() == [3, 3]


def test_what_is_solved_leaves_and_what_left_fills_up_where_too_few_remain() -> None:
    rules = Curriculum(retire_after=2)
    state, _ = simulate(start_pool(pool(*[None] * 6)), rules, lambda item, step: float(item < 4), steps=6, count=3)
    assert in_pool(state, rules).tolist() == [False] * 4 + [True] * 2
    drawn = draw_items(state, rules, seed=3, step=6, count=3)
    assert set(drawn[:2]) == {4, 5}
    assert drawn[2] < 4


def test_on_schedule_what_left_is_asked_once_more_and_stays_only_where_it_was_forgotten() -> None:
    """Items 0 and 1 are solved and leave; at step 8 both are due, 1 was forgotten by then."""
    rules = Curriculum(retire_after=2, rescore_every=8)

    def right(item: int, step: int) -> float:
        return 1.0 if item == 0 or (item == 1 and step < 8) else 0.5

    state, asked = simulate(start_pool(pool(*[None] * 4)), rules, right, steps=8, count=2)
    assert in_pool(state, rules).tolist() == [False, False, True, True]
    assert state.due.tolist() == [True, True, False, False]
    assert state.shown[:2].min() >= state.shown[2:].min(), "it joins the pass that is going on"
    state, asked = simulate(state, rules, right, steps=15, count=2, start=8)
    counts = Counter(item for items in asked for item in items)
    assert counts[0] == 1
    assert counts[1] > 1
    assert in_pool(state, rules).tolist() == [False, True, True, True]
    assert not state.due.any()


def test_items_taken_in_a_step_are_passed_over() -> None:
    state = start_pool(pool(*[None] * 6))
    first = draw_items(state, ALL, seed=0, step=0, count=4)
    assert set(draw_items(state, ALL, seed=0, step=0, count=4, taken=first)) == set(range(6)) - set(first)


def test_a_pool_that_goes_on_from_its_json_asks_the_same() -> None:
    rules = Curriculum(lowest=0.1, highest=0.9, retire_after=2, rescore_every=3)
    start = start_pool(pool([1, 3], None, [2, 3], None, [3, 3], [0, 3]))

    def right(item: int, step: int) -> float:
        return float(np.random.default_rng([item, step]).integers(0, 4)) / 3

    whole, asked = simulate(start, rules, right, steps=20, count=2)
    half, _ = simulate(start, rules, right, steps=9, count=2)
    read = pool_from_json(json.loads(json.dumps(pool_as_json(half, start))), start)
    for one, other in zip(read, half):
        np.testing.assert_array_equal(one, other)
    resumed, later = simulate(read, rules, right, steps=20, count=2, start=9)
    assert later == asked[9:]
    np.testing.assert_array_equal(resumed.share, whole.share)


def test_only_what_changed_is_saved_and_only_for_its_own_pool() -> None:
    start = start_pool(pool(*[None] * 5))
    saved = pool_as_json(note_answers(start, ALL, {3: 0.5}, step=1), start)
    assert saved == {"items": 5, "changed": [[3, 0.5, 1, 0, False]]}
    with pytest.raises(BadInputError, match="has a pool of 5 questions, the data has 2: the file changed since"):
        pool_from_json(saved, start_pool(pool(None, None)))

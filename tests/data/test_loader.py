"""Which record a row shows is a function of seed and row; batches made ahead come in order, errors included."""

import threading
import time
from collections import Counter

import pytest

from urt_jax.data.examples import Example, Media
from urt_jax.data.loader import Prefetcher, Source, batches, in_random_order, mix, shuffled_epochs, with_twins
from urt_jax.errors import BadInputError

EXAMPLES = [Example(id=str(i)) for i in range(5)]


def counted(name: str) -> Source:
    return Source(1.0, lambda place: Example(id=f"{name}{place}"))


def test_mixing_depends_on_seed_and_row_alone() -> None:
    sources = [counted("a"), counted("b")._replace(weight=3.0)]
    forward = [mix(sources, seed=3, rows=400)(row).example.id for row in range(400)]
    again = mix(sources, seed=3, rows=400)
    assert [again(row).example.id for row in reversed(range(400))] == forward[::-1]
    assert [mix(sources, seed=4, rows=400)(row).example.id for row in range(400)] != forward


def test_each_source_is_drawn_by_weight_and_read_in_its_own_order() -> None:
    sources = [counted("a"), counted("b")._replace(weight=3.0)]
    record = mix(sources, seed=0, rows=2000)
    ids = [record(row).example.id for row in range(2000)]
    for name, share in (("a", 0.25), ("b", 0.75)):
        mine = [i for i in ids if i.startswith(name)]
        assert mine == [f"{name}{n}" for n in range(len(mine))]
        assert abs(len(mine) / 2000 - share) < 0.04


def test_every_record_comes_with_the_wording_of_its_source() -> None:
    drawn = [mix([counted("a"), counted("b")._replace(template="v2")], seed=0, rows=40)(row) for row in range(40)]
    assert {(item.example.id[0], item.template) for item in drawn} == {("a", "v1"), ("b", "v2")}


def test_every_epoch_shows_every_record_once_in_a_new_order() -> None:
    get = shuffled_epochs(EXAMPLES, seed=1)
    epochs = [[get(5 * epoch + place).id for place in range(5)] for epoch in range(4)]
    assert all(Counter(epoch) == Counter("01234") for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    anew = shuffled_epochs(EXAMPLES, seed=1)
    assert [anew(5 * 3 + place).id for place in range(5)] == epochs[3], "no epoch needs those before it"


def test_no_records_are_refused() -> None:
    with pytest.raises(BadInputError, match="there are no records to train on; the file is empty or everything was"):
        shuffled_epochs([], seed=0)


def test_a_pair_is_shown_in_both_orders_about_equally() -> None:
    pair = Example(id="p", task="image_gen", candidates=(Media("image", "a.png"), Media("image", "b.png")), label=1)
    shown = [in_random_order(pair, seed=0, place=place).label for place in range(400)]
    assert 160 < shown.count(2) < 240
    assert shown == [in_random_order(pair, seed=0, place=place).label for place in range(400)]


@pytest.mark.parametrize(
    "example",
    [
        Example(id="chat", text="hello", response="hi"),
        Example(id="own text", candidates=("a", "b"), text="Which is better?"),
    ],
    ids=lambda example: example.id,
)
def test_what_cannot_be_swapped_stays(example: Example) -> None:
    assert all(in_random_order(example, seed=0, place=place) is example for place in range(20))


def test_a_question_with_a_written_response_or_its_own_text_about_pictures_is_shown_in_both_orders() -> None:
    pictures = (Media("image", "a.png"), Media("image", "b.png"))
    written = Example(
        "w", "image_und", "?", candidates=("a", "b"), label=1, response="<answer>Answer 1 is better</answer>"
    )
    own = Example("t", "image_gen", candidates=pictures, label=1, text="Which of the two?")
    for example in (written, own):
        shown = [in_random_order(example, seed=0, place=place) for place in range(40)]
        assert {item.label for item in shown} == {1, 2}
        assert all(item.response is None for item in shown if item.label == 2)


def test_twins_stand_next_to_each_other_and_mirror() -> None:
    pair = Example("p", "image_gen", candidates=("a", "b"), label=1)
    other = Example("q", "image_gen", candidates=("c", "d"), label=2)
    shown = with_twins([pair, other])
    assert [(e.id, e.candidates, e.label) for e in shown] == [
        ("p", ("a", "b"), 1),
        ("p", ("b", "a"), 2),
        ("q", ("c", "d"), 2),
        ("q", ("d", "c"), 1),
    ]
    with pytest.raises(BadInputError, match="record own: its own prompt text already holds the answers in one order"):
        with_twins([Example("own", candidates=("a", "b"), text="Which is better?")])


def test_items_come_in_order_and_ahead_of_their_use() -> None:
    made: list[int] = []
    ahead = Prefetcher(lambda n: (made.append(n), 10 * n)[1], start=0, stop=6, depth=2)
    try:
        assert ahead[0] == 0
        deadline = time.monotonic() + 5
        while len(made) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert made == [0, 1, 2], "two items more than was asked for"
        assert [ahead[n] for n in range(1, 6)] == [10, 20, 30, 40, 50]
        assert made == list(range(6)), "nothing at or beyond the stop"
    finally:
        ahead.close()


def test_a_resumed_feed_starts_where_it_is_asked_to() -> None:
    made: list[int] = []
    ahead = Prefetcher(lambda n: (made.append(n), n)[1], start=0, stop=9)
    try:
        assert [ahead[n] for n in range(6, 9)] == [6, 7, 8]
        assert made == [6, 7, 8]
    finally:
        ahead.close()


def test_an_error_is_raised_where_its_item_is_asked_for() -> None:
    def make(n: int) -> int:
        if n == 2:
            raise BadInputError("record 2 is broken")
        return n

    ahead = Prefetcher(make, start=0, stop=5)
    try:
        assert (ahead[0], ahead[1]) == (0, 1)
        with pytest.raises(BadInputError, match="record 2 is broken"):
            ahead[2]
        assert ahead[3] == 3
    finally:
        ahead.close()


def test_closing_stops_the_thread() -> None:
    ahead = Prefetcher(lambda n: n, start=0, stop=100, depth=50)
    assert ahead[0] == 0
    ahead.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_batches_have_one_size_and_say_how_many_are_real() -> None:
    assert list(batches(5, 2)) == [([0, 1], 2), ([2, 3], 2), ([4, 4], 1)]
    assert list(batches(4, 4)) == [([0, 1, 2, 3], 4)]
    assert list(batches(0, 4)) == []

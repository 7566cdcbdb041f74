"""A record of several candidates becomes its pairs: labels, ties, order, gold scores."""

from dataclasses import replace

import pytest

from urt_jax.data.examples import Example, Media
from urt_jax.data.pairing import pairs_of

GROUP = Example(
    "g",
    task="image_gen",
    prompt="a dot",
    candidates=tuple(Media("image", f"{name}.png") for name in "abcd"),
    ranking=(2, 1, 4, 2),
    votes=(1, 2, 3, 4),
    response="x",
    meta={"scores": {"Aesthetics": [5, 9, 1, 5]}, "candidates": ["a", "b", "c", "d"], "aspects": {"x": 1}},
)


def better(pair: Example) -> str:
    """Return the name of the better picture, or both names of a tie."""
    names = [item.source[0] for item in pair.candidates if isinstance(item, Media)]
    return "".join(sorted(names)) if pair.label == "tie" else names[int(pair.label) - 1]  # type: ignore[arg-type]


@pytest.mark.parametrize("known", ["ranking", "scores"])
def test_a_ranking_of_four_with_a_tie_gives_five_ordered_pairs_and_one_tie(known: str) -> None:
    group = GROUP if known == "ranking" else replace(GROUP, ranking=None)
    pairs = pairs_of(group, seed=0)
    assert [better(pair) for pair in pairs] == ["b", "a", "ad", "b", "b", "d"]
    assert [pair.id for pair in pairs] == ["g[1,2]", "g[1,3]", "g[1,4]", "g[2,3]", "g[2,4]", "g[3,4]"]
    assert {pair.meta["prompt_group"] for pair in pairs} == {"g"}
    assert all(pair.votes is None and pair.response is None and pair.ranking is None for pair in pairs)
    for pair in pairs:
        values = dict(zip("abcd", GROUP.meta["scores"]["Aesthetics"]))
        names = [item.source[0] for item in pair.candidates if isinstance(item, Media)]
        assert pair.meta["scores"] == {"Aesthetics": [values[name] for name in names]}
        assert pair.meta["candidates"] == names
        assert "aspects" not in pair.meta


def test_the_order_is_drawn_by_seed_and_id() -> None:
    orders = {seed: [pair.meta["places"] for pair in pairs_of(GROUP, seed=seed)] for seed in range(20)}
    assert orders[0] == [pair.meta["places"] for pair in pairs_of(GROUP, seed=0)]
    flipped = sum(places[0] > places[1] for order in orders.values() for places in order)
    assert 35 < flipped < 85  # of 120


def test_where_only_the_best_is_known_the_others_have_no_label() -> None:
    pairs = pairs_of(replace(GROUP, ranking=None, label=3, meta={}), seed=0)
    assert [None if pair.label is None else better(pair) for pair in pairs] == [None, "c", None, "c", None, "c"]
    assert all(pair.label is None for pair in pairs_of(replace(GROUP, ranking=None, meta={}), seed=0))


def test_a_pair_stays_as_it_is() -> None:
    pair = replace(GROUP, candidates=GROUP.candidates[:2], ranking=None)
    assert pairs_of(pair, seed=0) == [pair]

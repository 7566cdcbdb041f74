"""Figures by hand, and intervals that hold what they promise."""

import dataclasses
import json
import math
import time

import numpy as np
import pytest

from tests.evals.judged import judgement
from urt_jax.errors import BadInputError
from urt_jax.evals.pairwise import Judgement
from urt_jax.evals.statistics import FIGURES, Estimate, paired_difference, summarize

# Label 1 in the given order, 2 in the swapped one.
FOUR_PAIRS = [
    judgement("a", "given", 1, agreement=True, gold_match=1.0),  # right
    judgement("a", "swapped", 2, agreement=True, gold_match=0.5),  # right, mirrored
    judgement("b", "given", 2, agreement=False),  # wrong
    judgement("b", "swapped", 1, agreement=True),  # wrong, mirrored: consistent all the same
    judgement("c", "given", 1, agreement=True),  # right
    judgement("c", "swapped", 1, agreement=True),  # wrong, the same position twice
    judgement("d", "given", 1, agreement=False),  # right
    judgement("d", "swapped", None),  # no verdict
]


def many(seed: int, *, pairs: int, p: float) -> list[Judgement]:
    """Pairs that a judge gets right with probability ``p``, each order on its own."""
    rng = np.random.default_rng(seed)
    return [
        judgement(f"{n:05d}", order, [3 - right, right][int(rng.random() < p)])
        for n in range(pairs)
        for order, right in (("given", 1), ("swapped", 2))
    ]


def test_figures_of_four_pairs_by_hand() -> None:
    summary = summarize(FOUR_PAIRS)
    assert (summary.judgements, summary.items, summary.one_order) == (8, 4, 0)
    by_hand = {
        "accuracy": (4 / 8, 8),
        "accuracy_dropped": (4 / 7, 7),
        "accuracy_random": (4.5 / 8, 8),
        "position_consistency": (2 / 4, 4),
        "parse_failure": (1 / 8, 8),
        "score_agreement": (5 / 7, 7),
        "first_position": (5 / 7, 7),
        "gold_match": (0.75, 2),
    }
    assert set(by_hand) == set(FIGURES)
    for name, (value, count) in by_hand.items():
        estimate = getattr(summary, name)
        assert estimate.value == pytest.approx(value), name
        assert estimate.n == count, name
        assert estimate.low <= estimate.value <= estimate.high, name


def test_a_parse_failure_is_wrong_and_inconsistent() -> None:
    failed = [judgement("a", "given", None), judgement("a", "swapped", None)]
    summary = summarize(failed)
    assert summary.accuracy == (0, 0, 0, 2)
    assert summary.position_consistency == (0, 0, 0, 1)
    assert summary.parse_failure == (1, 1, 1, 2)
    assert summary.accuracy_random.value == 0.5
    assert summary.score_agreement.n == 0
    assert math.isnan(summary.accuracy_dropped.value)


def test_mirrored_ties_are_consistent_and_take_no_part_in_first_position() -> None:
    tied = summarize([judgement("a", "given", "tie"), judgement("a", "swapped", "tie")])
    assert tied.position_consistency.value == 1
    assert tied.first_position.n == 0
    half = summarize([judgement("a", "given", "tie"), judgement("a", "swapped", 2)])
    assert half.position_consistency.value == 0


def test_items_of_one_order_are_counted_and_left_out_of_consistency() -> None:
    summary = summarize([*FOUR_PAIRS, judgement("e", "given", 1)])
    assert (summary.items, summary.one_order) == (5, 1)
    assert summary.position_consistency.n == 4
    assert summary.accuracy.value == pytest.approx(5 / 9)


def test_parts_by_task_difficulty_and_novelty() -> None:
    judged = [
        judgement("a", "given", 1, task="image_gen", difficulty="hard"),
        judgement("b", "given", 2, task="image_gen", difficulty="easy"),
        judgement("c", "given", 1, task="video_gen", difficulty="easy", novelty="unseen"),
        judgement("d", "given", 1),
    ]
    summary = summarize(judged)
    assert {name: part.accuracy.value for name, part in summary.by_task.items()} == {"image_gen": 0.5, "video_gen": 1.0}
    assert {name: part.accuracy.value for name, part in summary.by_difficulty.items()} == {"easy": 0.5, "hard": 1.0}
    assert list(summary.by_novelty) == ["unseen"]
    assert list(summary.parts) == ["image_gen", "video_gen", "easy", "hard", "unseen"]
    assert summary.accuracy.value == 0.75


def test_the_same_seed_gives_the_same_interval_in_any_order_of_judgements() -> None:
    judged = many(0, pairs=50, p=0.7)
    assert summarize(judged, seed=3) == summarize(judged[::-1], seed=3)
    few = [summarize(judged, seed=seed, resamples=20).accuracy for seed in (3, 4)]
    assert few[0] != few[1]


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(100):
        accuracy = summarize(many(seed, pairs=60, p=0.8), seed=seed, resamples=200).accuracy
        hits += accuracy.low <= 0.8 <= accuracy.high
    assert 88 <= hits <= 99  # 95 expected, standard deviation 2.2


def test_interval_is_over_items_not_judgements() -> None:
    # Both orders of a pair always agree: 100 judgements are worth 50.
    rng = np.random.default_rng(0)
    right = rng.random(400) < 0.5
    judged = [
        judgement(f"{n:03d}", order, shown if ok else 3 - shown)
        for n, ok in enumerate(right)
        for order, shown in (("given", 1), ("swapped", 2))
    ]
    accuracy = summarize(judged).accuracy
    assert accuracy.high - accuracy.low == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(400), rel=0.1)


def test_items_that_share_a_prompt_are_resampled_together() -> None:
    judged = many(1, pairs=200, p=0.7)
    copies = [dataclasses.replace(j, id=f"{j.id}#{run}", group=j.id) for run in range(3) for j in judged]
    alone, grouped = summarize(judged).accuracy, summarize(copies).accuracy
    assert grouped == (*alone[:3], 3 * alone.n)


def test_paired_difference_by_hand() -> None:
    # b turns one wrong judgement of a into a right one, of 8.
    better = [dataclasses.replace(FOUR_PAIRS[5], correct=True)]
    b = FOUR_PAIRS[:5] + better + FOUR_PAIRS[6:]
    gain = paired_difference(b, FOUR_PAIRS)
    assert gain.value == pytest.approx(1 / 8)
    assert gain.n == 4
    assert gain.low == 0
    assert paired_difference(FOUR_PAIRS, b).value == pytest.approx(-1 / 8)
    assert paired_difference(FOUR_PAIRS, FOUR_PAIRS[::-1]) == (0, 0, 0, 4)
    assert paired_difference(FOUR_PAIRS, b, figure="parse_failure") == (0, 0, 0, 4)


def test_pairing_is_narrower_than_two_intervals() -> None:
    a = many(2, pairs=400, p=0.7)
    b = [dataclasses.replace(j, correct=True) if n % 20 == 0 else j for n, j in enumerate(a)]
    gain = paired_difference(b, a)
    alone = summarize(a).accuracy
    assert 0 < gain.low < gain.value < gain.high
    assert gain.high - gain.low < (alone.high - alone.low) / 2


def test_paired_difference_of_what_neither_has_is_unknown() -> None:
    plain = many(0, pairs=3, p=1.0)
    assert paired_difference(plain, plain, figure="score_agreement").n == 0


def test_refusals() -> None:
    with pytest.raises(BadInputError, match="no judgement to summarise"):
        summarize([])
    with pytest.raises(BadInputError, match="record a was judged twice in given order"):
        summarize([FOUR_PAIRS[0], FOUR_PAIRS[0]])
    with pytest.raises(BadInputError, match=r"1 are in one only, e\.g\. record d in swapped order"):
        paired_difference(FOUR_PAIRS, FOUR_PAIRS[:-1])
    with pytest.raises(BadInputError, match="no figure 'acc'; known: accuracy,"):
        paired_difference(FOUR_PAIRS, FOUR_PAIRS, figure="acc")


def test_two_thousand_pairs_take_a_moment() -> None:
    judged = many(0, pairs=2000, p=0.9)
    summarize(judged[:4])
    start = time.process_time()
    summary = summarize(judged)
    assert time.process_time() - start < 1.0  # 0.1 s when nothing else runs
    assert summary.accuracy.value == pytest.approx(0.9, abs=0.02)


def test_estimates_read_well_and_become_json() -> None:
    assert str(Estimate(0.873, 0.851, 0.894, 9)) == "87.3 [85.1, 89.4]"
    assert str(Estimate(-0.0001, -0.02, 0.0, 9)) == "0.0 [-2.0, 0.0]"
    nothing = summarize([judgement("a", "given", 1, task="image_gen")])
    assert str(nothing.score_agreement) == "–"
    plain = json.loads(json.dumps(nothing.as_json(), allow_nan=False))
    assert plain["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 1}
    assert plain["score_agreement"] == {"value": None, "low": None, "high": None, "n": 0}
    assert plain["by_task"]["image_gen"]["items"] == 1

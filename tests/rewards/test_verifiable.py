"""Format, accuracy, consistency and the over-long penalty by hand, and the weighted sum of parts."""

import numpy as np
import pytest

from urt_jax.rewards import (
    accuracy_reward,
    brevity_rewards,
    consistency_reward,
    format_reward,
    overlong_reward,
    parse,
    score_agreement,
)
from urt_jax.rewards.sums import combine

GOOD = """<think>
1. Clarity: Answer 1 (9/10) - a; Answer 2 (6/10) - b
2. Correctness: Answer 1 (7.1/10) - a; Answer 2 (7.2/10) - b
Total score:
Answer 1: 9+7.1=16.1
Answer 2: 6+7.2=13.2
</think>
<answer>Answer 1 is better</answer>"""
NAN = float("nan")


def test_format_reward_is_the_strict_form():
    assert format_reward(GOOD) == 1.0
    assert format_reward("\n" + GOOD + "<|im_end|>") == 1.0
    assert format_reward(GOOD + " indeed") == 0.0
    assert format_reward("<answer>Answer 1 is better</answer>") == 0.0


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        (GOOD, 1.0),
        ("no form at all <answer>\nAnswer 1 is better </answer> and more", 1.0),
        ("<answer>Answer 2 is better</answer><answer>Answer 1 is better</answer>", 1.0),
        ("<answer>Answer 1 is better</answer><answer>Answer 2 is better</answer>", 0.0),
        ("<answer>Answer 1 is better.</answer>", 0.0),
        ("<answer>answer 1 is better</answer>", 0.0),
        ("Answer 1 is better", 0.0),
        ("<answer>Answer 1 is better", 0.0),
        ("</answer>Answer 1 is better<answer>", 0.0),
        ("Answer 1 is better</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_accuracy_is_the_exact_label_of_the_last_answer(text, reward):
    assert accuracy_reward(text, " Answer 1 is better\n") == reward


def test_accuracy_needs_a_solution():
    with pytest.raises(ValueError, match=r"solution is empty; accuracy needs the exact answer text"):
        accuracy_reward(GOOD, " ")


def test_a_consistent_judgement():
    assert consistency_reward(GOOD) == 1.0
    assert score_agreement(parse(GOOD)) is True


@pytest.mark.parametrize(
    ("old", "new", "agrees"),
    [
        ("9+7.1=16.1", "9+7.1=17.1", False),  # a wrong sum
        ("<answer>Answer 1", "<answer>Answer 2", False),  # the answer does not follow
        ("9+7.1=16.1", "8+8.1=16.1", True),  # addends are not the scores; the total is still their sum
        ("9+7.1=16.1", "7.1+9=16.1", True),  # addends in another order than the lines
        ("9+7.1=16.1", "=16.1", True),  # no addends
        ("Answer 2: 6+7.2=13.2\n", "", False),  # a total is missing
        ("1. Clarity:", "so", False),  # a line that names no dimension does not count
        ("</answer>", "</answer> done", False),  # the form is broken
    ],
)
def test_every_way_to_be_inconsistent(old, new, agrees):
    text = GOOD.replace(old, new)
    assert text != GOOD
    assert consistency_reward(text) == 0.0
    assert score_agreement(parse(text)) is agrees


def test_equal_totals_support_no_answer():
    text = GOOD.replace("Answer 2 (6/10)", "Answer 2 (8.9/10)").replace("6+7.2=13.2", "8.9+7.2=16.1")
    assert parse(text).margin == 0.0
    assert consistency_reward(text) == 0.0
    assert consistency_reward(text.replace("Answer 1 is better", "Both answers are equally good")) == 0.0


def test_no_scores_agree_with_nothing():
    assert score_agreement(parse("<think>x</think><answer>Image 1 is better</answer>")) is False
    assert score_agreement(parse("<answer>Image 1 is better</answer>", think=False)) is False


def test_combine_weighs_parts_and_leaves_the_missing_out():
    parts = {"format": np.array([[1.0, 0.0], [NAN, NAN]]), "accuracy": np.array([[1.0, NAN], [0.5, NAN]])}
    total = combine(parts, {"format": 0.5, "accuracy": 2.0})
    assert total.dtype == np.float32
    np.testing.assert_array_equal(total, [[2.5, 0.0], [1.0, NAN]])


@pytest.mark.parametrize(
    ("tokens", "reward"), [(0, 0.0), (15, 0.0), (16, 0.0), (17, -0.25), (18, -0.5), (19, -0.75), (20, -1.0), (99, -1.0)]
)
def test_the_overlong_penalty_falls_in_a_line_over_its_cache(tokens: int, reward: float) -> None:
    assert overlong_reward(tokens, longest=20, cache=4) == reward


@pytest.mark.parametrize("cache", [0, 21])
def test_a_cache_that_does_not_fit_is_refused(cache: int) -> None:
    with pytest.raises(ValueError, match=f"cache is {cache} tokens, longest is 20: give a cache from 1 to 20"):
        overlong_reward(3, longest=20, cache=cache)


def test_a_part_of_weight_0_changes_nothing() -> None:
    """Neither the sum, nor whether there is one: a part that is only logged makes no missing reward a given one."""
    parts = {"format": np.array([[1.0, 0.3], [NAN, NAN]], np.float32)}
    alone = combine(parts, {"format": 0.7})
    for logged in ([[5.0, -2.0], [1.0, NAN]], [[NAN, NAN], [NAN, NAN]]):
        beside = combine({**parts, "logged": np.array(logged)}, {"format": 0.7, "logged": 0.0})
        np.testing.assert_array_equal(beside, alone)
    np.testing.assert_array_equal(alone[1], [NAN, NAN])


def test_combine_errors_name_what_differs():
    one = np.zeros((1, 2))
    with pytest.raises(ValueError, match=r"parts are \['format'\], weights are for \['accuracy'\]"):
        combine({"format": one}, {"accuracy": 1.0})
    with pytest.raises(ValueError, match=r"differ in shape: \{'format': \(1, 2\), 'accuracy': \(2, 2\)\}"):
        combine({"format": one, "accuracy": np.zeros((2, 2))}, {"format": 1.0, "accuracy": 1.0})


@pytest.mark.parametrize(
    ("tokens", "right", "rewards"),
    [
        ([10, 20, 15], [True, True, True], [0.5, -0.5, 0.0]),
        ([10, 20, 15], [True, False, True], [0.0, 0.0, 0.0]),
        ([7, 7], [True, True], [0.0, 0.0]),
    ],
)
def test_brevity_counts_once_a_group_is_all_right(tokens: list[int], right: list[bool], rewards: list[float]) -> None:
    assert brevity_rewards(tokens, right) == rewards

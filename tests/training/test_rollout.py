"""Where texts become rewards, advantages and figures, by hand."""

import numpy as np
import pytest

from tests.tiny import EOS, PAD
from tests.training.tiny_training import samples
from urt_jax.training.rollout import (
    advantages_of,
    make_grpo_batch,
    make_rollout,
    rollout_figures,
    rows_to_train,
    score_texts,
)
from urt_jax.types import Rollout

WEIGHTS = {"format": 1.0, "accuracy": 2.0, "consistency": 0.0}
REASONING = (
    "<think>\n1. Semantic consistency: Image 1 (9/10) - fine; Image 2 (6/10) - off\n"
    "2. Aesthetics: Image 1 (9/10) - fine; Image 2 (7/10) - noisy\n"
    "3. Authenticity: Image 1 (5/10) - odd; Image 2 (8/10) - fine\n"
    "Total score:\nImage 1: 9+9+5=23\nImage 2: 6+7+8=21\n</think>\n"
)
GOOD = REASONING + "<answer>Image 1 is better</answer>"
AGAINST = REASONING + "<answer>Image 2 is better</answer>"


def rollout(accuracy: list[list[float]], format_: list[list[float]]) -> Rollout:
    """Four responses of lengths 2, 3, 3, 1; the third ran to the limit."""
    tokens = np.array([[9, EOS, PAD], [9, 9, EOS], [9, 9, 9], [PAD, PAD, PAD]], np.int32)
    mask = np.array([[1, 1, 0], [1, 1, 1], [1, 1, 1], [1, 0, 0]], bool)
    rewards = {"accuracy": np.array(accuracy, np.float32), "format": np.array(format_, np.float32)}
    rewards["consistency"] = np.zeros((2, 2), np.float32)
    return Rollout(3, ("a", "b"), tokens, mask, np.zeros((4, 3), np.float32), rewards, ("",) * 4)


def test_texts_are_scored_against_their_own_question() -> None:
    parts = score_texts([GOOD, "hm", GOOD, AGAINST], ["Image 1 is better", "Image 2 is better"])
    np.testing.assert_array_equal(parts["format"], [[1, 0], [1, 1]])
    np.testing.assert_array_equal(parts["accuracy"], [[1, 0], [0, 1]])
    np.testing.assert_array_equal(parts["consistency"], [[1, 0], [1, 0]])


def test_a_rollout_keeps_what_a_later_update_needs() -> None:
    drawn = samples()._replace(texts=(GOOD, *[""] * 7))
    made = make_rollout(drawn, ["q1", "q2"], ["Image 1 is better"] * 2, policy_step=7)
    assert (made.policy_step, made.prompt_ids) == (7, ("q1", "q2"))
    assert made.sampler_logp_BU is drawn.logp_BU
    np.testing.assert_array_equal(made.rewards["accuracy"], [[1, 0, 0, 0], [0, 0, 0, 0]])


def test_advantages_by_hand() -> None:
    """Rewards 3 and 1 in the first group: (3 - 2) / (sqrt(2) + 1e-4); equal rewards in the second: exactly 0."""
    made = rollout(accuracy=[[1, 0], [1, 1]], format_=[[1, 1], [0, 0]])
    found = advantages_of(made, WEIGHTS, scale="group")
    assert (found.dtype, found.shape) == (np.float32, (4,))
    np.testing.assert_allclose(found[:2], [1 / (2**0.5 + 1e-4), -1 / (2**0.5 + 1e-4)], rtol=1e-6)
    np.testing.assert_array_equal(found[2:], 0.0)
    np.testing.assert_allclose(advantages_of(made, WEIGHTS, scale="none"), [1, -1, 0, 0])


def test_figures_by_hand() -> None:
    made = rollout(accuracy=[[1, 0], [1, 1]], format_=[[1, 1], [0, 0]])
    figures = rollout_figures(made, WEIGHTS, [EOS, PAD])
    expected = {
        "reward": (3 + 1 + 2 + 2) / 4,
        "reward_std": (2**0.5 + 0) / 2,
        "frac_reward_zero_std": 0.5,
        "all_right": 0.5,
        "all_wrong": 0.0,
        "parse_failure": 0.5,
        "completions/mean_length": (2 + 3 + 3 + 1) / 4,
        "completions/min_length": 1,
        "completions/max_length": 3,
        "completions/clipped_ratio": 0.25,
        "completions/mean_terminated_length": (2 + 3 + 1) / 3,
        "rewards/accuracy/mean": 0.75,
        "rewards/accuracy/std": 0.5,
        "rewards/format/mean": 0.5,
        "rewards/format/std": (1 / 3) ** 0.5,
        "rewards/consistency/mean": 0.0,
        "rewards/consistency/std": 0.0,
    }
    assert figures == pytest.approx(expected)


def test_no_response_that_ended_has_no_mean_length() -> None:
    made = rollout(accuracy=[[0, 0], [0, 0]], format_=[[0, 0], [0, 0]])
    figures = rollout_figures(made, WEIGHTS, [39])
    assert figures["completions/clipped_ratio"] == 1.0
    assert figures["all_wrong"] == 1.0
    assert "completions/mean_terminated_length" not in figures


def test_the_batch_of_an_update_joins_prompts_and_responses() -> None:
    drawn = samples()
    batch = make_grpo_batch(drawn, np.arange(8, dtype=np.float32), temperature=0.5)
    np.testing.assert_array_equal(batch.rows.tokens_BU, drawn.tokens_BU)
    np.testing.assert_array_equal(batch.rows.prompts.tokens_BT, drawn.prompts.tokens_BT)
    np.testing.assert_array_equal(batch.rows.mask_BU, drawn.mask_BU)
    assert float(batch.temperature) == 0.5


@pytest.mark.parametrize(
    ("advantage", "groups"),
    [
        ([0, 0, 1, -1, 0, 0, 2, -2], [1, 3]),
        ([0, 0, 0, 0, 0, 0, -1, 1], [0, 3]),  # filled up to the smallest size with the first idle group
        ([0] * 8, [0, 1]),
        ([1, -1, 1, -1, 0, 0, 1, -1], [0, 1, 2, 3]),
    ],
)
def test_groups_without_advantage_are_left_out(advantage: list[float], groups: list[int]) -> None:
    kept = rows_to_train(np.array(advantage, np.float32), responses=2, sizes=(2, 4))
    assert kept.tolist() == [row for group in groups for row in (2 * group, 2 * group + 1)]


def test_the_batch_of_some_rows_keeps_the_masks_of_the_others() -> None:
    drawn = samples()
    batch = make_grpo_batch(drawn, np.arange(8, dtype=np.float32), temperature=0.5, trained=np.arange(4, 8))
    np.testing.assert_array_equal(batch.rows.tokens_BU, drawn.tokens_BU[4:])
    np.testing.assert_array_equal(batch.rows.prompts.tokens_BT, drawn.prompts.tokens_BT[1:])
    np.testing.assert_array_equal(batch.advantage_B, [4, 5, 6, 7])
    np.testing.assert_array_equal(batch.idle_mask_XU, drawn.mask_BU[:4])
    assert batch.rows.prompts.vision is drawn.prompts.vision

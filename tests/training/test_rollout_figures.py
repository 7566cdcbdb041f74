"""The figures of a rollout, by hand."""

import numpy as np
import pytest

from tests.tiny import EOS, PAD, batch_of, make_chat
from urt_jax.training.rollout_figures import rollout_figures
from urt_jax.types import Rollout

WEIGHTS = {"format": 1.0, "accuracy": 2.0, "consistency": 0.0}


def rollout(accuracy: list[list[float]], format_: list[list[float]], **more: list[list[float]]) -> Rollout:
    """Four responses of lengths 2, 3, 3, 1; the third ran to the limit."""
    tokens = np.array([[9, EOS, PAD], [9, 9, EOS], [9, 9, 9], [PAD, PAD, PAD]], np.int32)
    mask = np.array([[1, 1, 0], [1, 1, 1], [1, 1, 1], [1, 0, 0]], bool)
    ended = np.array([True, True, False, True])
    parts = {"accuracy": accuracy, "format": format_, "consistency": [[0, 0], [0, 0]], **more}
    rewards = {name: np.array(part, np.float32) for name, part in parts.items()}
    prompts, logp = batch_of([make_chat(1), make_chat(2)], left=True), np.zeros((4, 3), np.float32)
    return Rollout(prompts, np.zeros(2, np.int32), tokens, mask, logp, ended, ("",) * 4, rewards=rewards)


def test_figures_by_hand() -> None:
    made = rollout(accuracy=[[1, 0], [1, 1]], format_=[[1, 1], [0, 0]])
    figures = rollout_figures(made, WEIGHTS)
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
        "completions/min_terminated_length": 1,
        "completions/max_terminated_length": 3,
        "rewards/accuracy/mean": 0.75,
        "rewards/accuracy/std": 0.5,
        "rewards/format/mean": 0.5,
        "rewards/format/std": (1 / 3) ** 0.5,
        "rewards/consistency/mean": 0.0,
        "rewards/consistency/std": 0.0,
    }
    assert figures == pytest.approx(expected)


def test_missing_rewards_are_passed_over() -> None:
    nan = float("nan")
    made = rollout([[1, 0], [1, 1]], [[1, 1], [0, 0]], own=[[nan, 4], [nan, 2]], none=[[nan, nan], [nan, nan]])
    figures = rollout_figures(made, {"format": 0.0, "accuracy": 0.0, "consistency": 0.0, "own": 2.0, "none": 1.0})
    assert (figures["rewards/own/mean"], figures["rewards/own/std"]) == pytest.approx((3.0, 2**0.5))
    assert not {"rewards/none/mean", "rewards/none/std"} & figures.keys()
    assert (figures["reward"], figures["reward_std"], figures["frac_reward_zero_std"]) == (6.0, 0.0, 1.0)
    alone = rollout_figures(made, {name: float(name == "none") for name in made.rewards})
    assert "reward" not in alone
    assert alone["frac_reward_zero_std"] == 1.0


def test_no_response_that_ended_has_no_mean_length() -> None:
    made = rollout(accuracy=[[0, 0], [0, 0]], format_=[[0, 0], [0, 0]])
    figures = rollout_figures(made._replace(ended_B=np.zeros(4, bool)), WEIGHTS)
    assert figures["completions/clipped_ratio"] == 1.0
    assert figures["all_wrong"] == 1.0
    assert not [name for name in figures if "terminated" in name]

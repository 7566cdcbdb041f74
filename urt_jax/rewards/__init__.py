"""Verdicts parsed from the text of a response, and the rewards computed from them."""

from urt_jax.rewards.user import RewardError, UserReward, load_reward
from urt_jax.rewards.verifiable import (
    accuracy_reward,
    brevity_rewards,
    consistency_reward,
    format_reward,
    overlong_reward,
    score_agreement,
)
from urt_jax.rewards.votes import swap_consistency
from urt_jax.tasks.replies import Verdict, parse

__all__ = [
    "RewardError",
    "UserReward",
    "Verdict",
    "accuracy_reward",
    "brevity_rewards",
    "consistency_reward",
    "format_reward",
    "load_reward",
    "overlong_reward",
    "parse",
    "score_agreement",
    "swap_consistency",
]

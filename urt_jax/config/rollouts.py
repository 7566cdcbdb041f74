"""Conflicts between the settings of a rollout."""

from urt_jax.rewards.weights import RewardWeights
from urt_jax.settings import Problems


def rollout_problems(rewards: RewardWeights, *, questions: int, swap: bool, longest: int) -> Problems:
    """Yield conflicts of rewards with the number of questions, the presentation orders or the longest response.

    ``longest`` is in tokens.
    """
    if rewards.swap_consistency and questions % 2:
        message = "is odd, but rewards.swap_consistency shows every pair in both orders in one step"
        yield "questions_per_step", f"{questions} {message}; give an even number, or the reward weight 0"
    if rewards.swap_consistency and not swap:
        yield "data.swap", "is False, but rewards.swap_consistency shows every pair in both orders; set one of them"
    if rewards.overlong and rewards.overlong_cache > longest:
        yield "rewards.overlong_cache", f"{rewards.overlong_cache} is above the longest response, {longest} tokens"

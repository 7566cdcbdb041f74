"""Training losses: each returns (sum, denominator, metrics), never a mean."""

from urt_jax.losses.advantages import group_advantages
from urt_jax.losses.grpo import entropy_bonus, policy_loss
from urt_jax.losses.sft import sft_loss

__all__ = ["entropy_bonus", "group_advantages", "policy_loss", "sft_loss"]

"""Training losses: each returns (sum, denominator, metrics), never a mean."""

from urt_jax.losses.grpo import group_advantages, policy_loss
from urt_jax.losses.sft import sft_loss

__all__ = ["group_advantages", "policy_loss", "sft_loss"]

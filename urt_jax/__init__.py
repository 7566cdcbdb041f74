"""urt_jax: a reasoning judge of images and videos, and the whole recipe that trains it, in JAX."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from urt_jax.judge.reward_model import RewardModel

__all__ = ["RewardModel"]


def __getattr__(name: str) -> Any:
    """Import the judge when it is asked for, so that ``import urt_jax`` alone starts no device."""
    if name == "RewardModel":
        from urt_jax.judge.reward_model import RewardModel

        return RewardModel
    raise AttributeError(f"module 'urt_jax' has no attribute {name!r}; it offers RewardModel")

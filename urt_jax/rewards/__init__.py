"""From the text of an answer to numbers: the verdict, and the rewards computed from it."""

from urt_jax.rewards.parse import Verdict, parse
from urt_jax.rewards.verifiable import accuracy_reward, combine, consistency_reward, format_reward, score_agreement

__all__ = [
    "Verdict",
    "accuracy_reward",
    "combine",
    "consistency_reward",
    "format_reward",
    "parse",
    "score_agreement",
]

"""The policy loss called with its settings and its arrays side by side."""

from dataclasses import fields
from typing import Any

from urt_jax.losses.grpo import policy_loss
from urt_jax.losses.policy import PolicyLoss
from urt_jax.losses.reductions import LossParts

CONSTANTS = {item.name for item in fields(PolicyLoss)}


def call(loss: str, *, kl_coef: float = 0.0, **given: Any) -> LossParts:
    """Return the parts of a loss, by default without a KL term; what is not a setting is an argument of its own."""
    kinds = {"loss": loss, "kl_kind": given.pop("kl_kind", "k3")}
    constants = {name: value for name, value in given.items() if name in CONSTANTS}
    arguments = {name: value for name, value in given.items() if name not in CONSTANTS}
    settings = PolicyLoss(kl_coef=kl_coef, **constants)
    for name, kind in kinds.items():  # kinds that do not exist too, which the tests' type checks would refuse
        object.__setattr__(settings, name, kind)
    return policy_loss(settings, **arguments)

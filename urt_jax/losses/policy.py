"""Settings of the policy loss: the objective, the bounds on the policy's change, and the terms added to it.

The module imports no jax: configs are read before jax starts.
"""

from dataclasses import dataclass, fields
from typing import Literal

from urt_jax.settings import Problems, knob

CLIPPED = ("grpo", "bnpo", "dr_grpo", "dapo", "gspo")
READ_BY = {  # knob -> losses that read it
    "clip_low": CLIPPED,
    "clip_high": CLIPPED,
    "delta": CLIPPED,
    "cispo_cap": ("cispo",),
    "sapo_temperature_pos": ("sapo",),
    "sapo_temperature_neg": ("sapo",),
}


@dataclass(frozen=True)
class PolicyLoss:
    """The policy loss and its constants. A ratio is a probability over that before a rollout's first update."""

    # The objective: how it bounds the policy's change, and how it averages over tokens.
    loss: Literal["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo", "sapo"] = "grpo"
    clip_low: float = knob(0.2, above=0, at_most=1)  # clip range of the ratio below 1; gspo (whole responses): 3e-4
    clip_high: float = knob(0.2, above=0)  # clip range of the ratio above 1; 0.28 in DAPO; gspo: 4e-4
    delta: float | None = knob(None, above=1)  # largest ratio at negative advantages (two-sided clip); None = unbounded
    cispo_cap: float = knob(5.0, at_least=1)  # largest importance weight of a token
    sapo_temperature_pos: float = knob(1.0, above=0)  # steepness of the gate at positive advantages
    sapo_temperature_neg: float = knob(1.05, above=0)  # steepness at negative advantages, which are less stable
    # Estimator of the KL term. Expected gradients: k1 zero; k2 of KL(policy||start); k3 of KL(start||policy).
    kl_kind: Literal["k1", "k2", "k3", "none"] = "k3"
    kl_coef: float = knob(0.04, at_least=0)  # weight of the KL term to the start policy; 0 = no reference is kept
    kl_bias_correction: bool = False  # multiply a token's KL by its ratio: k1 and k3 then pull as KL(policy||start)
    importance_cap: float | None = knob(None, above=1)  # largest trainer/sampler weight per token, e.g. 2.0; None = off
    entropy_coef: float = knob(0.0, at_least=0)  # weight of the mean token entropy (nats) as a bonus

    def problems(self) -> Problems:
        """Yield the knobs that are in conflict, each with its message."""
        defaults = {item.name: item.default for item in fields(PolicyLoss)}
        for key, losses in READ_BY.items():
            if self.loss not in losses and getattr(self, key) != defaults[key]:
                message = f"{getattr(self, key)} is not read by loss {self.loss!r}, only by {', '.join(losses)}"
                yield key, f"{message}; leave it at {defaults[key]}"
        if self.delta is not None and self.loss in CLIPPED and self.delta <= 1 + self.clip_high:
            message = f"{self.delta} is not above 1 + clip_high = {1 + self.clip_high}, so it would clip positive"
            yield "delta", f"{message} advantages too; give e.g. {2 * (1 + self.clip_high)}"
        if self.kl_kind == "none" and self.kl_coef:
            yield "kl_coef", f"is {self.kl_coef}, but kl_kind is 'none'; give kl_coef 0, or a kind, e.g. 'k3'"
        if self.kl_bias_correction and (self.kl_kind not in ("k1", "k3") or not self.kl_coef):
            message = f"corrects k1 and k3, but kl_kind is {self.kl_kind!r} and kl_coef {self.kl_coef}"
            yield "kl_bias_correction", f"{message}; leave it False, or give kl_kind 'k3' and a kl_coef above 0"

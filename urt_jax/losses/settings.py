"""Settings of the policy loss: which objective, how far the policy may move in one rollout, what is added to it."""

from dataclasses import dataclass, fields
from typing import Literal

from urt_jax.settings import Problems, knob

CLIPPED = ("grpo", "bnpo", "dr_grpo", "dapo", "gspo")
READ_BY = {  # knob -> the objectives that read it
    "clip_low": CLIPPED,
    "clip_high": CLIPPED,
    "delta": CLIPPED,
    "cispo_cap": ("cispo",),
    "sapo_temperature_pos": ("sapo",),
    "sapo_temperature_neg": ("sapo",),
}


@dataclass(frozen=True)
class PolicyLoss:
    """A policy loss and all its constants. Ratios are probabilities over those before a rollout's first update."""

    # The objective: what bounds a step of the policy, and how the loss averages over tokens.
    kind: Literal["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo", "sapo"] = "grpo"
    clip_low: float = knob(0.2, above=0, at_most=1)  # how far the ratio may fall below 1; gspo needs e.g. 3e-4
    clip_high: float = knob(0.2, above=0)  # how far it may rise above 1; 0.28 in DAPO; gspo needs e.g. 4e-4
    # Largest ratio where the advantage is negative (two-sided clip); None = unbounded.
    delta: float | None = knob(None, above=1)
    cispo_cap: float = knob(5.0, at_least=1)  # largest weight of a token in cispo
    sapo_temperature_pos: float = knob(1.0, above=0)  # how fast sapo's gate closes at positive advantages
    sapo_temperature_neg: float = knob(1.05, above=0)  # the same at negative advantages, which are less stable
    # Estimate of the KL. Its pull: k1 has none; k2 is that of KL(policy||start), k3 that of KL(start||policy).
    kl_kind: Literal["k1", "k2", "k3", "none"] = "k3"
    kl_coef: float = knob(0.04, at_least=0)  # weight of the KL to the frozen start; 0 = no reference is kept
    # Multiply each token's KL by its ratio: then k1 and k3 both pull as KL(policy||start).
    kl_bias_correction: bool = False
    # Largest trainer/sampler weight of a token, e.g. 2.0; None = tokens are not weighed.
    importance_cap: float | None = knob(None, above=1)
    entropy_coef: float = knob(0.0, at_least=0)  # weight of the mean token entropy (nats), which is rewarded

    def problems(self) -> Problems:
        """Yield what is wrong between the knobs."""
        defaults = {item.name: item.default for item in fields(PolicyLoss)}
        for key, kinds in READ_BY.items():
            if self.kind not in kinds and getattr(self, key) != defaults[key]:
                message = f"{getattr(self, key)} is not read by loss {self.kind!r}, only by {', '.join(kinds)}"
                yield key, f"{message}; leave it at {defaults[key]}"
        if self.delta is not None and self.kind in CLIPPED and self.delta <= 1 + self.clip_high:
            message = f"{self.delta} is not above 1 + clip_high = {1 + self.clip_high}, so it would clip positive"
            yield "delta", f"{message} advantages too; give e.g. {2 * (1 + self.clip_high)}"
        if self.kl_kind == "none" and self.kl_coef:
            yield "kl_coef", f"is {self.kl_coef}, but kl_kind is 'none'; give kl_coef 0, or a kind, e.g. 'k3'"
        if self.kl_bias_correction and (self.kl_kind not in ("k1", "k3") or not self.kl_coef):
            message = f"corrects k1 and k3, but kl_kind is {self.kl_kind!r} and kl_coef {self.kl_coef}"
            yield "kl_bias_correction", f"{message}; leave it False, or give kl_kind 'k3' and a kl_coef above 0"

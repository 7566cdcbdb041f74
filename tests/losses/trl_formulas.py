"""TRL's policy losses written out in numpy, float64: the mean loss of a batch and its gradient to each log-probability.

From the formulas of TRL's ``GRPOTrainer`` with one process and no accumulation; its corrected KL is that of a token's
ratio, also in gspo.
"""

from typing import NamedTuple

import numpy as np

KINDS = ("grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo", "sapo")


class Rows(NamedTuple):
    """A scored batch, ``[B, T]``, and the advantage of each row."""

    logp: np.ndarray
    old: np.ndarray
    ref: np.ndarray
    sampler: np.ndarray
    advantage: np.ndarray
    mask: np.ndarray


class Knobs(NamedTuple):
    """The constants of a loss, under the names of ``PolicyLoss``."""

    clip_low: float = 0.2
    clip_high: float = 0.3
    delta: float | None = None
    cispo_cap: float = 1.4
    sapo_temperature_pos: float = 1.0
    sapo_temperature_neg: float = 1.05
    kl_kind: str = "k3"
    kl_coef: float = 0.0
    kl_bias_correction: bool = False
    importance_cap: float | None = None


LENGTH = 9  # longest completion, for dr_grpo


def draw_rows(seed: int = 0) -> Rows:
    """Return eight rows of unequal lengths, one empty, with ratios on both sides of every bound, in float32 numbers."""
    rng = np.random.default_rng(seed)
    lengths = np.array([7, 3, 1, 0, 5, 7, 2, 6])
    shape = (len(lengths), 7)
    old = -rng.gamma(2.0, 0.7, shape)
    drift = np.array([0.5, 0.0, 0.9, 0.3, -0.6, 0.7, -0.4, 0.1])[:, None]  # so that whole sequences leave the bounds
    logp = old + drift + 0.4 * rng.normal(size=shape)
    ref, sampler = old + 0.3 * rng.normal(size=shape), old + 0.5 * rng.normal(size=shape)
    advantage = np.array([1.3, -0.4, 0.7, 0.9, -1.1, -0.8, 0.6, 0.0])
    exact = (np.float32(x).astype(np.float64) for x in (logp, old, ref, sampler, advantage))
    return Rows(*exact, np.arange(shape[1])[None] < lengths[:, None])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def per_token(kind: str, rows: Rows, knobs: Knobs) -> tuple[np.ndarray, np.ndarray]:
    """Return the surrogate and its slope: to the logp of the same token, or for gspo to the mean of the sequence."""
    a, m = rows.advantage[:, None], rows.mask
    log_ratio = rows.logp - rows.old
    if kind == "gspo":
        log_ratio = (log_ratio * m).sum(1, keepdims=True) / np.maximum(m.sum(1, keepdims=True), 1) + 0 * log_ratio
    rho = np.exp(log_ratio)
    if kind == "cispo":
        weight = np.minimum(rho, knobs.cispo_cap)
        return -weight * a * rows.logp, -weight * a
    if kind == "sapo":
        tau = np.where(a > 0, knobs.sapo_temperature_pos, knobs.sapo_temperature_neg)
        gate = sigmoid(tau * (rho - 1))
        return -gate * 4 / tau * a, -4 * gate * (1 - gate) * a * rho
    clipped = np.clip(rho, 1 - knobs.clip_low, 1 + knobs.clip_high)
    reached = rho if knobs.delta is None else np.minimum(rho, knobs.delta)
    flows = (reached * a <= clipped * a) & (reached == rho)
    return -np.minimum(reached * a, clipped * a), np.where(flows, -a * rho, 0.0)


def kl_terms(kind: str, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    delta = rows.ref - rows.logp
    return {
        "k1": (-delta, np.ones_like(delta)),
        "k2": (delta**2 / 2, -delta),
        "k3": (np.exp(delta) - delta - 1, 1 - np.exp(delta)),
    }[kind]


def token_weights(kind: str, mask: np.ndarray) -> np.ndarray:
    """Return what each token's loss is multiplied by in the mean loss."""
    lengths = np.maximum(mask.sum(1, keepdims=True), 1)
    if kind in ("grpo", "gspo", "sapo"):
        return mask / lengths / len(mask)
    return mask / (len(mask) * LENGTH if kind == "dr_grpo" else max(mask.sum(), 1))


def value_and_gradient(kind: str, rows: Rows, knobs: Knobs) -> tuple[float, np.ndarray]:
    """Return the mean loss of the batch and its gradient ``[B, T]``."""
    weights = token_weights(kind, rows.mask)
    loss, slope = per_token(kind, rows, knobs)
    if knobs.importance_cap is not None:
        importance = np.minimum(np.exp(rows.old - rows.sampler), knobs.importance_cap)
        loss, slope = loss * importance, slope * importance
    gradient = weights * slope
    if kind == "gspo":  # each token's slope is to the mean of its sequence
        lengths = np.maximum(rows.mask.sum(1, keepdims=True), 1)
        gradient = gradient.sum(1, keepdims=True) * rows.mask / lengths
    if knobs.kl_coef:
        kl, kl_slope = kl_terms(knobs.kl_kind, rows)
        if knobs.kl_bias_correction:
            ratio = np.exp(rows.logp - rows.old)
            kl, kl_slope = kl * ratio, (kl + kl_slope) * ratio
        loss, gradient = loss + knobs.kl_coef * kl, gradient + knobs.kl_coef * weights * kl_slope
    return float((weights * loss).sum()), gradient

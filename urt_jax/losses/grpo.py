"""GRPO and its relatives: group advantages, one function per surrogate, KL estimate and reduction, a preset table."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from urt_jax.losses.sft import LossParts, Pair
from urt_jax.ops.masking import masked_mean, masked_sum
from urt_jax.types import Array

SCALES = ("group", "batch", "none")
LOG_RATIO_LIMIT = 20.0  # e**20: log-ratios beyond are clamped and carry no gradient, so that no exponential overflows


def _unknown(what: str, given: str, known: tuple[str, ...]) -> ValueError:
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.0)[0]
    return ValueError(f"{what} is {given!r}; known are {list(known)}, did you mean {near!r}?")


def group_advantages(
    rewards_QR: Float[Array, "Q R"], *, scale: str = "group", eps: float = 1e-4
) -> Float[Array, "Q R"]:
    """Return each response's reward relative to its group (DeepSeekMath, arXiv 2402.03300, section 4.1), float32.

    The group mean is taken off; then ``scale`` divides by the group's standard deviation + eps ("group"), by that of
    the whole batch + eps ("batch", arXiv 2508.08221), or by nothing ("none", Dr. GRPO, arXiv 2503.20783). The
    deviation is the sample one (R - 1), as in TRL. ``rewards_QR`` must be the whole global batch. NaN is a missing
    reward: left out of means and deviations, advantage 0. A group of equal rewards has advantage exactly 0, not a
    rounding error over eps.

    Raises:
        ValueError: unknown ``scale``, or groups of one response.
    """
    if scale not in SCALES:
        raise _unknown("scale", scale, SCALES)
    if rewards_QR.shape[1] < 2:
        raise ValueError(
            f"rewards have shape {tuple(rewards_QR.shape)}: a group of {rewards_QR.shape[1]} has nothing to be "
            "compared with; sample at least 2 responses per question"
        )
    rewards = jnp.asarray(rewards_QR, jnp.float32)
    given = ~jnp.isnan(rewards)
    highest = jnp.max(jnp.where(given, rewards, -jnp.inf), axis=1, keepdims=True)
    lowest = jnp.min(jnp.where(given, rewards, jnp.inf), axis=1, keepdims=True)
    centred = rewards - masked_mean(rewards, given, axis=1)[:, None]
    if scale == "group":
        centred = centred / (_sample_std(rewards, given, axis=1)[:, None] + eps)
    elif scale == "batch":
        centred = centred / (_sample_std(rewards.reshape(-1), given.reshape(-1), axis=0) + eps)
    return jnp.where(given & (highest > lowest), centred, 0.0)


def _sample_std(x: Array, given: Array, *, axis: int) -> Array:
    mean = jnp.expand_dims(masked_mean(x, given, axis=axis), axis)
    squares = jnp.sum(jnp.where(given, x - mean, 0.0) ** 2, axis=axis)
    return jnp.sqrt(squares / jnp.maximum(jnp.sum(given, axis=axis) - 1, 1))


def log_ratio(
    logp_BT: Float[Array, "B T"], other_BT: Float[Array, "B T"], mask_BT: Bool[Array, "B T"]
) -> Float[Array, "B T"]:
    """Return ``logp - other``, clamped to +-20 (as verl does; TRL does not clamp), and 0 where masked."""
    return jnp.clip(jnp.where(mask_BT, logp_BT - other_BT, 0.0), -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def clipped_surrogate(
    ratio_BT: Float[Array, "B T"], advantage_B: Float[Array, " B"], *, clip_low: float, clip_high: float
) -> Float[Array, "B T"]:
    """Return the clipped loss per token (PPO, arXiv 1707.06347, eq. 7; two widths: DAPO, arXiv 2503.14476, eq. 10)."""
    advantage_B1 = advantage_B[:, None]
    clipped_BT = jnp.clip(ratio_BT, 1.0 - clip_low, 1.0 + clip_high)
    return -jnp.minimum(ratio_BT * advantage_B1, clipped_BT * advantage_B1)


def k3_kl(
    logp_BT: Float[Array, "B T"], ref_logp_BT: Float[Array, "B T"], mask_BT: Bool[Array, "B T"]
) -> Float[Array, "B T"]:
    """Return ``exp(ref - logp) - (ref - logp) - 1 >= 0``, whose mean estimates KL(policy, reference) (GRPO, eq. 4)."""
    delta_BT = log_ratio(ref_logp_BT, logp_BT, mask_BT)
    return jnp.exp(delta_BT) - delta_BT - 1.0


def mean_of_sequence_means(per_token_BT: Array, mask_BT: Array, max_tokens: int | None) -> Pair:
    """Reduce as GRPO does: every sequence weighs the same; a fully masked one counts with 0, as in TRL."""
    return jnp.sum(masked_mean(per_token_BT, mask_BT, axis=1)), jnp.float32(mask_BT.shape[0])


def mean_of_tokens(per_token_BT: Array, mask_BT: Array, max_tokens: int | None) -> Pair:
    """Reduce as DAPO does (eq. 8): every token of the whole optimiser step weighs the same."""
    return masked_sum(per_token_BT, mask_BT), jnp.sum(mask_BT, dtype=jnp.float32)


def sum_over_fixed_length(per_token_BT: Array, mask_BT: Array, max_tokens: int | None) -> Pair:
    """Reduce as Dr. GRPO does (arXiv 2503.20783): divide by sequences x ``max_tokens``, whatever their lengths."""
    if max_tokens is None:
        raise ValueError("this loss divides by the longest response allowed: give max_tokens")
    return masked_sum(per_token_BT, mask_BT), jnp.float32(mask_BT.shape[0] * max_tokens)


@dataclass(frozen=True)
class Objective:
    """What makes one policy loss: its surrogate per token and its reduction over the batch."""

    surrogate: Callable[..., Array]
    reduction: Callable[[Array, Array, int | None], Pair]


# TRL's "bnpo" is a token mean per micro-batch; ours is exact over the step, which makes it the same as "dapo".
OBJECTIVES: dict[str, Objective] = {
    "grpo": Objective(clipped_surrogate, mean_of_sequence_means),
    "dapo": Objective(clipped_surrogate, mean_of_tokens),
    "bnpo": Objective(clipped_surrogate, mean_of_tokens),
    "dr_grpo": Objective(clipped_surrogate, sum_over_fixed_length),
}


def policy_loss(
    kind: str,
    *,
    logp_BT: Float[Array, "B T"],
    old_logp_BT: Float[Array, "B T"] | None,
    ref_logp_BT: Float[Array, "B T"] | None,
    sampler_logp_BT: Float[Array, "B T"] | None,
    advantage_B: Float[Array, " B"],
    mask_BT: Bool[Array, "B T"],
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    kl_coef: float = 0.0,
    sampler_ratio_cap: float | None = None,
    max_tokens: int | None = None,
    idle_mask_XT: Bool[Array, "X T"] | None = None,
) -> LossParts:
    """Return (sum, denominator, metrics) of the policy loss ``kind``, a key of ``OBJECTIVES``.

    All log-probabilities are at the sampling temperature, of the full distribution. Only ``logp_BT`` carries a
    gradient. ``old_logp_BT=None`` means this is the first update of the rollout: the ratio is 1 and its gradient
    that of ``logp``. ``sampler_ratio_cap`` weighs each token's surrogate (not its KL) by ``min(exp(old - sampler),
    cap)``, which corrects for a sampler that differs from the trainer. ``idle_mask_XT`` holds the masks of rows that
    were left out because their advantage, and so their gradient, is 0: they count in the denominator, so the loss is
    that of the whole rollout. Metrics are (sum, count) pairs over tokens, detached.

    Raises:
        ValueError: unknown ``kind``; ``kl_coef`` without reference; cap without sampler; "dr_grpo" without a maximum.
    """
    if kind not in OBJECTIVES:
        raise _unknown("policy loss", kind, tuple(OBJECTIVES))
    if kl_coef and ref_logp_BT is None:
        raise ValueError(f"kl_coef is {kl_coef} but ref_logp_BT is None: give the reference's log-probs or 0")
    if sampler_ratio_cap is not None and sampler_logp_BT is None:
        raise ValueError(f"sampler_ratio_cap is {sampler_ratio_cap} but sampler_logp_BT is None: give both or neither")
    objective = OBJECTIVES[kind]
    logp_BT = jnp.asarray(logp_BT, jnp.float32)
    old_BT = _detached(logp_BT if old_logp_BT is None else old_logp_BT)
    advantage_B = _detached(advantage_B)

    ratio_BT = jnp.exp(log_ratio(logp_BT, old_BT, mask_BT))
    loss_BT = objective.surrogate(ratio_BT, advantage_B, clip_low=clip_low, clip_high=clip_high)
    metrics = _clip_metrics(ratio_BT, advantage_B, mask_BT, clip_low, clip_high)
    if sampler_logp_BT is not None:
        off_BT = log_ratio(old_BT, _detached(sampler_logp_BT), mask_BT)
        metrics["sampling/sampling_logp_difference/mean"] = mean_of_tokens(jnp.abs(off_BT), mask_BT, None)
        metrics["sampling/importance_sampling_ratio/mean"] = mean_of_tokens(jnp.exp(off_BT), mask_BT, None)
        if sampler_ratio_cap is not None:
            loss_BT = loss_BT * jnp.minimum(jnp.exp(off_BT), sampler_ratio_cap)
    surrogate = objective.reduction(loss_BT, mask_BT, max_tokens)
    if ref_logp_BT is not None:
        kl_BT = k3_kl(logp_BT, _detached(ref_logp_BT), mask_BT)
        metrics["kl"] = mean_of_tokens(kl_BT, mask_BT, None)
        loss_BT = loss_BT + kl_coef * kl_BT
    total, denominator = objective.reduction(loss_BT, mask_BT, max_tokens)
    if idle_mask_XT is not None:
        denominator += objective.reduction(jnp.zeros(idle_mask_XT.shape), jnp.asarray(idle_mask_XT), max_tokens)[1]
    metrics["policy_loss"] = (surrogate[0], denominator)
    return total, denominator, jax.lax.stop_gradient(metrics)


def _detached(x: Array) -> jax.Array:
    return jax.lax.stop_gradient(jnp.asarray(x, jnp.float32))


def _clip_metrics(
    ratio_BT: Array, advantage_B: Array, mask_BT: Array, clip_low: float, clip_high: float
) -> dict[str, Pair]:
    """Count the tokens whose gradient the clip stops: below for negative, above for positive advantages."""
    low_BT = (ratio_BT < 1.0 - clip_low) & (advantage_B[:, None] < 0)
    high_BT = (ratio_BT > 1.0 + clip_high) & (advantage_B[:, None] > 0)
    parts = {"low_mean": low_BT, "high_mean": high_BT, "region_mean": low_BT | high_BT}
    return {f"clip_ratio/{name}": mean_of_tokens(part, mask_BT, None) for name, part in parts.items()}

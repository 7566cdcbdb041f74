"""Metrics of a policy update, under the names of existing dashboards (TRL's; two of NeMo-RL's).

Means are (sum, count) pairs and extremes scalars; an extreme over no values is NaN. Rows left out of the update
("idle": advantage 0) count as unclipped. Their log-probabilities are not computed, so the sampler metrics cover the
other rows only.
"""

import jax.numpy as jnp
from jaxtyping import Bool, Float

from urt_jax.losses.kl import k3_kl
from urt_jax.losses.policy import PolicyLoss
from urt_jax.losses.reductions import Metrics, Pair, mean_of_tokens
from urt_jax.losses.surrogates import LOG_RATIO_LIMIT
from urt_jax.ops.masking import masked_mean
from urt_jax.types import Array


def clip_metrics(
    ratio: Float[Array, "B X"],
    advantage_B1: Float[Array, "B 1"],
    mask_BT: Bool[Array, "B T"],
    idle_mask_YT: Bool[Array, "Y T"],
    settings: PolicyLoss,
) -> Metrics:
    """Return the share of tokens whose gradient the clip zeroes: low for negative, high for positive advantages.

    With one ratio per sequence it is the share of sequences. ``low_min`` and ``high_max`` are the extremes of the
    sequences' own shares.
    """
    low = (ratio < 1.0 - settings.clip_low) & (advantage_B1 < 0)
    high = (ratio > 1.0 + settings.clip_high) & (advantage_B1 > 0)
    return {
        "clip_ratio/low_mean": _share(low, mask_BT, idle_mask_YT),
        "clip_ratio/low_min": jnp.nanmin(_sequence_shares(low, mask_BT, idle_mask_YT)),
        "clip_ratio/high_mean": _share(high, mask_BT, idle_mask_YT),
        "clip_ratio/high_max": jnp.nanmax(_sequence_shares(high, mask_BT, idle_mask_YT)),
        "clip_ratio/region_mean": _share(low | high, mask_BT, idle_mask_YT),
    }


def cispo_metrics(
    ratio: Float[Array, "B X"],
    advantage_B1: Float[Array, "B 1"],
    mask_BT: Bool[Array, "B T"],
    idle_mask_YT: Bool[Array, "Y T"],
    settings: PolicyLoss,
) -> Metrics:
    """Return the share of tokens whose weight is capped, counted at positive advantages only, as in TRL."""
    cut = (ratio > settings.cispo_cap) & (advantage_B1 > 0)
    return {"cispo_clip_ratio": _share(cut, mask_BT, idle_mask_YT)}


def no_clip_metrics(
    ratio: Array, advantage_B1: Array, mask_BT: Array, idle_mask_YT: Array, settings: PolicyLoss
) -> Metrics:
    """Return no metrics: the surrogate clips nothing."""
    return {}


def sampler_metrics(
    old_logp_BT: Float[Array, "B T"],
    sampler_logp_BT: Float[Array, "B T"],
    weight_BT: Float[Array, "B T"],
    mask_BT: Bool[Array, "B T"],
) -> Metrics:
    """Return the differences between the sampler's and the trainer's log-probabilities of the same tokens.

    ``weight_BT`` are the importance weights that the loss uses, so capped where a cap is set (as in TRL).
    ``token_mult_prob_error`` is the mean of ``exp |difference|``: 1 when both agree, 1.05 when probabilities are off by
    5 % (NeMo-RL); ``gen_kl_error`` is the k3 estimate of KL(sampler || trainer).
    """
    gap_BT = jnp.abs(jnp.where(mask_BT, old_logp_BT - sampler_logp_BT, 0.0))
    error_BT = jnp.exp(jnp.minimum(gap_BT, LOG_RATIO_LIMIT))
    return {
        "sampling/sampling_logp_difference/mean": mean_of_tokens(gap_BT, mask_BT),
        "sampling/sampling_logp_difference/max": _highest(gap_BT, mask_BT),
        "sampling/importance_sampling_ratio/min": -_highest(-weight_BT, mask_BT),
        "sampling/importance_sampling_ratio/mean": mean_of_tokens(weight_BT, mask_BT),
        "sampling/importance_sampling_ratio/max": _highest(weight_BT, mask_BT),
        "token_mult_prob_error": mean_of_tokens(error_BT, mask_BT),
        "gen_kl_error": mean_of_tokens(k3_kl(sampler_logp_BT, old_logp_BT, mask_BT), mask_BT),
    }


def _units(flags: Array, mask_BT: Array) -> Bool[Array, "B X"]:
    """Return the mask of the units that ``flags`` flag: tokens, or else the sequences that have a token."""
    return jnp.asarray(mask_BT) if flags.shape[1] == mask_BT.shape[1] else jnp.any(mask_BT, axis=1, keepdims=True)


def _share(flags: Array, mask_BT: Array, idle_mask_YT: Array) -> Pair:
    total, count = mean_of_tokens(flags.astype(jnp.float32), _units(flags, mask_BT))
    return total, count + jnp.sum(_units(flags[:0], idle_mask_YT), dtype=jnp.float32)


def _sequence_shares(flags: Array, mask_BT: Array, idle_mask_YT: Array) -> Float[Array, " rows"]:
    """Return each sequence's share of True flags: NaN without tokens, 0 if idle."""
    shares_B = jnp.where(jnp.any(mask_BT, axis=1), masked_mean(flags, _units(flags, mask_BT), axis=1), jnp.nan)
    return jnp.concatenate([shares_B, jnp.where(jnp.any(idle_mask_YT, axis=1), 0.0, jnp.nan)])


def _highest(x_BT: Array, mask_BT: Array) -> Float[Array, ""]:
    return jnp.where(jnp.any(mask_BT), jnp.max(jnp.where(mask_BT, x_BT, -jnp.inf)), jnp.nan)

"""The policy loss of GRPO and its relatives: a table of presets over one function per part."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from urt_jax.losses.choices import chosen
from urt_jax.losses.kl import KL_KINDS
from urt_jax.losses.policy import PolicyLoss
from urt_jax.losses.policy_metrics import cispo_metrics, clip_metrics, no_clip_metrics, sampler_metrics
from urt_jax.losses.reductions import (
    LossParts,
    Metrics,
    Pair,
    mean_of_sequence_means,
    mean_of_tokens,
    sum_over_fixed_length,
)
from urt_jax.losses.surrogates import (
    cispo_surrogate,
    clipped_surrogate,
    log_ratio,
    sapo_surrogate,
    sequence_ratio,
    token_ratio,
)
from urt_jax.types import Array


@dataclass(frozen=True)
class Objective:
    """What makes one policy loss: its ratio, its loss per token, its reduction over the step, what it counts as cut."""

    ratio: Callable[[Array, Array, Array], Array]
    surrogate: Callable[[Array, Array, Array, PolicyLoss], Array]
    reduction: Callable[[Array, Array, int | None], Pair]
    clip_metrics: Callable[[Array, Array, Array, Array, PolicyLoss], Metrics]


# TRL's "bnpo" is a token mean per micro-batch; ours is exact over the step, which makes it the same as "dapo". GSPO's
# variant with token-wise gradients equals "gspo" while all tokens of a sequence share one advantage: it has no preset.
OBJECTIVES: dict[str, Objective] = {
    "grpo": Objective(token_ratio, clipped_surrogate, mean_of_sequence_means, clip_metrics),
    "bnpo": Objective(token_ratio, clipped_surrogate, mean_of_tokens, clip_metrics),
    "dr_grpo": Objective(token_ratio, clipped_surrogate, sum_over_fixed_length, clip_metrics),
    "dapo": Objective(token_ratio, clipped_surrogate, mean_of_tokens, clip_metrics),
    "gspo": Objective(sequence_ratio, clipped_surrogate, mean_of_sequence_means, clip_metrics),
    "cispo": Objective(token_ratio, cispo_surrogate, mean_of_tokens, cispo_metrics),
    "sapo": Objective(token_ratio, sapo_surrogate, mean_of_sequence_means, no_clip_metrics),
}


def policy_loss(
    settings: PolicyLoss,
    *,
    logp_BT: Float[Array, "B T"],
    old_logp_BT: Float[Array, "B T"] | None,
    ref_logp_BT: Float[Array, "B T"] | None,
    sampler_logp_BT: Float[Array, "B T"] | None,
    advantage_B: Float[Array, " B"],
    mask_BT: Bool[Array, "B T"],
    max_tokens: int | None = None,
    idle_mask_XT: Bool[Array, "X T"] | None = None,
) -> LossParts:
    """Return (sum, denominator, metrics) of the policy loss that ``settings`` describe.

    Per token, in TRL's order: surrogate, times the sampler's importance weight, plus ``kl_coef`` times the KL (which is
    not weighed). All log-probabilities are at the sampling temperature, of the full distribution. Only ``logp_BT``
    carries a gradient; what is masked may be NaN, and an empty mask yields sum 0 with gradient 0.

    ``old_logp_BT=None`` means this is the first update of the rollout: the ratio is 1 and its gradient that of
    ``logp``. ``settings.loss`` is a key of ``OBJECTIVES``, ``kl_kind`` one of ``kl.KL_KINDS``; ``kl_bias_correction``
    multiplies each token's KL in the loss by its token ratio (see ``kl``), also where the surrogate's ratio is a
    sequence's. ``importance_cap`` turns on truncated importance weights ``min(exp(old - sampler), cap)`` per token
    (TIS), which correct for a sampler that differs from the trainer. The entropy is added by ``entropy_bonus``.
    ``max_tokens`` is the longest response allowed, by which "dr_grpo" divides.
    ``idle_mask_XT`` holds the masks of rows that were left out because their advantage, and so their gradient, is 0:
    they count in the denominator, so the loss is that of the whole rollout.
    Metrics are detached. ``policy_loss`` is TRL's: with the KL, before any entropy bonus.

    Raises:
        ValueError: unknown ``loss`` or ``kl_kind``; ``kl_coef`` without a reference, without a kind or with rows left
            out; a cap without the sampler's log-probabilities; "dr_grpo" without ``max_tokens``.
    """
    objective = chosen("policy loss", settings.loss, OBJECTIVES)
    estimate = chosen("kl_kind", settings.kl_kind, KL_KINDS)
    mask_BT = jnp.asarray(mask_BT)
    idle_XT = jnp.zeros((0, mask_BT.shape[1]), bool) if idle_mask_XT is None else jnp.asarray(idle_mask_XT)
    _check_terms(settings, ref_logp_BT, sampler_logp_BT, idle_XT)
    logp_BT = jnp.asarray(logp_BT, jnp.float32)
    old_BT = _detached(logp_BT if old_logp_BT is None else old_logp_BT)
    advantage_B1 = _detached(advantage_B)[:, None]

    ratio = objective.ratio(logp_BT, old_BT, mask_BT)
    loss_BT = jnp.broadcast_to(objective.surrogate(ratio, logp_BT, advantage_B1, settings), mask_BT.shape)
    metrics = dict(objective.clip_metrics(ratio, advantage_B1, mask_BT, idle_XT, settings))
    if sampler_logp_BT is not None:
        sampler_BT = _detached(sampler_logp_BT)
        weight_BT = importance_weight(old_BT, sampler_BT, mask_BT, settings.importance_cap)
        metrics |= sampler_metrics(old_BT, sampler_BT, weight_BT, mask_BT)
        loss_BT = loss_BT if settings.importance_cap is None else loss_BT * weight_BT
    if ref_logp_BT is not None and estimate is not None:
        kl_BT = estimate(logp_BT, _detached(ref_logp_BT), mask_BT)
        metrics["kl"] = mean_of_tokens(kl_BT, mask_BT)
        kl_BT = kl_BT * token_ratio(logp_BT, old_BT, mask_BT) if settings.kl_bias_correction else kl_BT
        loss_BT = loss_BT + settings.kl_coef * kl_BT
    total, denominator = objective.reduction(loss_BT, mask_BT, max_tokens)
    denominator += policy_denominator(settings, idle_XT, max_tokens=max_tokens)
    metrics["policy_loss"] = (total, denominator)
    return total, denominator, jax.lax.stop_gradient(metrics)


def policy_denominator(settings: PolicyLoss, mask_BT: Bool[Array, "B T"], *, max_tokens: int | None = None) -> Array:
    """Return what these rows add to the denominator of a policy loss.

    Raises:
        ValueError: as ``policy_loss``.
    """
    mask_BT = jnp.asarray(mask_BT)
    reduction = chosen("policy loss", settings.loss, OBJECTIVES).reduction
    return reduction(jnp.zeros(mask_BT.shape), mask_BT, max_tokens)[1]


def importance_weight(
    old_logp_BT: Float[Array, "B T"],
    sampler_logp_BT: Float[Array, "B T"],
    mask_BT: Bool[Array, "B T"],
    cap: float | None,
) -> Float[Array, "B T"]:
    """Return ``exp(old - sampler)``, at most ``cap``: how much more likely the trainer finds what was sampled.

    Truncated importance sampling per token, TRL's "token_truncate". 1 where masked.
    """
    ratio_BT = jnp.exp(log_ratio(old_logp_BT, sampler_logp_BT, mask_BT))
    return ratio_BT if cap is None else jnp.minimum(ratio_BT, cap)


def entropy_bonus(entropy_BT: Float[Array, "B T"], mask_BT: Bool[Array, "B T"]) -> LossParts:
    """Return minus the summed entropy (nats) of the tokens, their number, and the metric ``entropy``.

    To be added to a policy loss with a positive weight (``reductions.add_term``): a token mean of its own whatever the
    reduction of the loss, as in TRL. Carries the gradient that ``entropy_BT`` carries. An empty mask yields 0 over 0.
    """
    total, tokens = mean_of_tokens(entropy_BT, mask_BT)
    return -total, tokens, {"entropy": jax.lax.stop_gradient((total, tokens))}


def _check_terms(
    settings: PolicyLoss, ref_logp_BT: Array | None, sampler_logp_BT: Array | None, idle_XT: Array
) -> None:
    kl_coef = settings.kl_coef
    if kl_coef and KL_KINDS[settings.kl_kind] is None:
        raise ValueError(
            f"kl_coef is {kl_coef} but kl_kind is {settings.kl_kind!r}: give kl_coef 0, or a kind, e.g. 'k3'"
        )
    if kl_coef and ref_logp_BT is None:
        raise ValueError(f"kl_coef is {kl_coef} but ref_logp_BT is None: give the reference's log-probs or 0")
    if kl_coef and idle_XT.shape[0]:
        raise ValueError(
            f"kl_coef is {kl_coef} but {idle_XT.shape[0]} rows were left out (idle_mask_XT): rows without advantage "
            "still have a KL gradient, keep them all"
        )
    if settings.importance_cap is not None and sampler_logp_BT is None:
        raise ValueError(
            f"importance_cap is {settings.importance_cap} but sampler_logp_BT is None: give both or neither"
        )


def _detached(x: Array) -> jax.Array:
    return jax.lax.stop_gradient(jnp.asarray(x, jnp.float32))

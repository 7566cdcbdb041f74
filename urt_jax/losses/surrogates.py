"""Policy-gradient surrogates: importance ratios, and one loss per token for each published objective.

Every surrogate takes ``(ratio, logp, advantage, settings)`` and returns the loss of each token, to be minimised. The
ratio has one value per token, ``[B, T]``, or one per sequence, ``[B, 1]``, shared by its tokens.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from urt_jax.losses.policy import PolicyLoss
from urt_jax.ops.masking import masked_mean
from urt_jax.types import Array

LOG_RATIO_LIMIT = 20.0  # larger log-ratios are clamped and carry no gradient, so that no exponential overflows


def log_ratio(
    logp_BT: Float[Array, "B T"], other_BT: Float[Array, "B T"], mask_BT: Bool[Array, "B T"]
) -> Float[Array, "B T"]:
    """Return ``logp - other``, clamped to +-20 (as verl does; TRL does not clamp), and 0 where masked."""
    return jnp.clip(jnp.where(mask_BT, logp_BT - other_BT, 0.0), -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def token_ratio(
    logp_BT: Float[Array, "B T"], old_logp_BT: Float[Array, "B T"], mask_BT: Bool[Array, "B T"]
) -> Float[Array, "B T"]:
    """Return each token's probability divided by its probability under the old policy (PPO, arXiv 1707.06347)."""
    return jnp.exp(log_ratio(logp_BT, old_logp_BT, mask_BT))


def sequence_ratio(
    logp_BT: Float[Array, "B T"], old_logp_BT: Float[Array, "B T"], mask_BT: Bool[Array, "B T"]
) -> Float[Array, "B 1"]:
    """Return the geometric mean of a sequence's token ratios (GSPO, arXiv 2507.18071, eq. 7); its gradient flows.

    A fully masked sequence has ratio 1.
    """
    return jnp.exp(masked_mean(log_ratio(logp_BT, old_logp_BT, mask_BT), mask_BT, axis=1))[:, None]


def clipped_surrogate(
    ratio: Float[Array, "B X"], logp_BT: Float[Array, "B T"], advantage_B1: Float[Array, "B 1"], settings: PolicyLoss
) -> Float[Array, "B X"]:
    """Return ``-min(rho' A, clip(rho, 1 - clip_low, 1 + clip_high) A)`` with ``rho' = min(rho, delta)``.

    PPO (arXiv 1707.06347, eq. 7) with two widths as in DAPO (arXiv 2503.14476, eq. 10) and the two-sided bound of
    INTELLECT-2 (arXiv 2505.07291): at a negative advantage, the loss of a token that became much more likely is bounded
    and has no gradient beyond ``delta``. With ``delta > 1 + clip_high`` it never affects positive advantages.
    """
    reached = ratio if settings.delta is None else jnp.minimum(ratio, settings.delta)
    clipped = jnp.clip(ratio, 1.0 - settings.clip_low, 1.0 + settings.clip_high)
    return -jnp.minimum(reached * advantage_B1, clipped * advantage_B1)


def cispo_surrogate(
    ratio: Float[Array, "B X"], logp_BT: Float[Array, "B T"], advantage_B1: Float[Array, "B 1"], settings: PolicyLoss
) -> Float[Array, "B T"]:
    """Return ``-sg(min(rho, cispo_cap)) A logp`` (CISPO, arXiv 2506.13585, eq. 4): the clip never stops a gradient.

    The detached weight is capped from above only, as in TRL and ScaleRL (arXiv 2510.13786, cap 5); the paper clips it
    to a band, of which it does not use the lower bound.
    """
    weight = jax.lax.stop_gradient(jnp.minimum(ratio, settings.cispo_cap))
    return -weight * advantage_B1 * logp_BT


def sapo_surrogate(
    ratio: Float[Array, "B X"], logp_BT: Float[Array, "B T"], advantage_B1: Float[Array, "B 1"], settings: PolicyLoss
) -> Float[Array, "B X"]:
    """Return ``-f(rho) A``, ``f(rho) = sigmoid(tau (rho - 1)) 4 / tau`` (SAPO, arXiv 2511.20347).

    ``tau`` is ``sapo_temperature_pos`` for positive advantages and ``sapo_temperature_neg`` otherwise. The slope of f
    is 1 at ``rho = 1`` and decays on both sides, the faster the higher tau. The value at 1 is 2 / tau, not 1.
    """
    tau_B1 = jnp.where(advantage_B1 > 0, settings.sapo_temperature_pos, settings.sapo_temperature_neg)
    return -jax.nn.sigmoid(tau_B1 * (ratio - 1.0)) * 4.0 / tau_B1 * advantage_B1

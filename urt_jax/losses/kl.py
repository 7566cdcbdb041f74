"""Estimates of KL(policy || reference) from the sampled tokens alone (k1, k2, k3 of Schulman, 2020).

An unbiased estimate of the KL need not have an unbiased gradient when it is used as a loss (arXiv 2506.09477). With
tokens sampled by the policy itself::

    kind    value of the mean       gradient of the mean
    k1      unbiased                0 in expectation: noise only
    k2      biased, second order    that of KL(policy || reference), at each token
    k3      unbiased, never < 0     that of KL(reference || policy), at each token

Weighted by the token's importance ratio to the policy that sampled it (DeepSeek-V3.2, arXiv 2512.02556; TRL's
``use_bias_correction_kl``), the means of k1 and k3 are KL(policy || reference) at each token, in value and in gradient,
also after the policy has moved; k2 has no such property.

"At each token": no kind counts the effect of a token on the distributions of later tokens.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Bool, Float

from urt_jax.losses.surrogates import log_ratio
from urt_jax.types import Array

Estimate = Callable[[Array, Array, Array], Array]


def k1_kl(
    logp_BT: Float[Array, "B T"], ref_logp_BT: Float[Array, "B T"], mask_BT: Bool[Array, "B T"]
) -> Float[Array, "B T"]:
    """Return ``logp - ref``; unbiased in value, of any sign; its gradient as a loss is 0 in expectation."""
    return log_ratio(logp_BT, ref_logp_BT, mask_BT)


def k2_kl(
    logp_BT: Float[Array, "B T"], ref_logp_BT: Float[Array, "B T"], mask_BT: Bool[Array, "B T"]
) -> Float[Array, "B T"]:
    """Return ``(logp - ref)**2 / 2``; biased in value, its gradient as a loss is that of KL(policy || reference)."""
    return log_ratio(logp_BT, ref_logp_BT, mask_BT) ** 2 / 2.0


def k3_kl(
    logp_BT: Float[Array, "B T"], ref_logp_BT: Float[Array, "B T"], mask_BT: Bool[Array, "B T"]
) -> Float[Array, "B T"]:
    """Return ``exp(ref - logp) - (ref - logp) - 1`` (GRPO, arXiv 2402.03300, eq. 4), 0 where masked.

    Unbiased in value and never negative; its gradient as a loss is that of KL(reference || policy).
    """
    delta_BT = log_ratio(ref_logp_BT, logp_BT, mask_BT)
    return jnp.exp(delta_BT) - delta_BT - 1.0


KL_KINDS: dict[str, Estimate | None] = {"k1": k1_kl, "k2": k2_kl, "k3": k3_kl, "none": None}

"""The supervised loss: cross-entropy of the trained tokens."""

import jax.numpy as jnp
from jaxtyping import Bool, Float

from urt_jax.losses.reductions import LossParts
from urt_jax.ops.masking import masked_sum
from urt_jax.types import Array


def sft_loss(logp_BT: Float[Array, "B T"], loss_mask_BT: Bool[Array, "B T"]) -> LossParts:
    """Return the summed negative log-probability of the trained tokens, their number, and metrics.

    ``logp_BT`` is at temperature 1. Metrics are (sum, count) pairs: ``loss`` and ``token_probability`` (the mean
    probability of the target token). An empty mask yields 0 over 0.
    """
    total = -masked_sum(logp_BT, loss_mask_BT)
    tokens = jnp.sum(loss_mask_BT, dtype=jnp.float32)
    probability = masked_sum(jnp.exp(jnp.where(loss_mask_BT, logp_BT, 0.0)), loss_mask_BT)
    return total, tokens, {"loss": (total, tokens), "token_probability": (probability, tokens)}

"""Reductions of a loss per token to (sum, denominator) over an optimiser step, and the return type of every loss.

Sums and denominators add up over micro-batches and devices, and the step divides once: loss = sum / denominator. So
the loss does not depend on how a batch was cut. Denominators depend on masks only, never on parameters.
"""

import jax.numpy as jnp
from jaxtyping import Bool, Float

from urt_jax.ops.masking import masked_mean, masked_sum
from urt_jax.types import Array

Pair = tuple[Array, Array]  # (sum, denominator) of a loss, (sum, count) of a metric
Metrics = dict[str, Pair | Array]  # a pair for a mean; a scalar for a minimum or maximum, NaN over no values
LossParts = tuple[Array, Array, Metrics]


def mean_of_sequence_means(
    per_token_BT: Float[Array, "B T"], mask_BT: Bool[Array, "B T"], max_tokens: int | None
) -> Pair:
    """Reduce as GRPO does (arXiv 2402.03300, eq. 3): all sequences weigh the same; a fully masked one adds 0 (TRL)."""
    return jnp.sum(masked_mean(per_token_BT, mask_BT, axis=1)), jnp.float32(mask_BT.shape[0])


def mean_of_tokens(
    per_token_BT: Float[Array, "B T"], mask_BT: Bool[Array, "B T"], max_tokens: int | None = None
) -> Pair:
    """Reduce as DAPO does (arXiv 2503.14476, eq. 8): every token of the optimiser step weighs the same.

    An optimiser step covers a whole rollout, so TRL's two choices of normaliser coincide: the tokens of the
    generation batch and the tokens of the step. An empty mask yields 0 over 0.
    """
    return masked_sum(per_token_BT, mask_BT), jnp.sum(mask_BT, dtype=jnp.float32)


def sum_over_fixed_length(
    per_token_BT: Float[Array, "B T"], mask_BT: Bool[Array, "B T"], max_tokens: int | None
) -> Pair:
    """Reduce as Dr. GRPO does (arXiv 2503.20783): divide by sequences x ``max_tokens``, whatever the lengths.

    Raises:
        ValueError: no ``max_tokens``.
    """
    if max_tokens is None:
        raise ValueError("max_tokens is None, but this loss divides by the longest response allowed: give max_tokens")
    return masked_sum(per_token_BT, mask_BT), jnp.float32(mask_BT.shape[0] * max_tokens)


def add_term(loss: Pair, term: Pair, weight: float) -> Array:
    """Return the sum whose quotient by the loss's denominator is ``mean of loss + weight * mean of term``.

    Both pairs must cover the whole optimiser step: with micro-batches, add up the denominators first (they need masks
    only). An empty term adds 0.
    """
    (total, denominator), (part, count) = loss, term
    return total + weight * part * jnp.maximum(denominator, 1.0) / jnp.maximum(count, 1.0)

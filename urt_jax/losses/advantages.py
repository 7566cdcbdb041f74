"""Group advantages: a response's reward relative to its group's rewards."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Bool, Float

from urt_jax.losses.choices import chosen
from urt_jax.ops.masking import masked_mean
from urt_jax.types import Array


def group_advantages(
    rewards_QR: Float[Array, "Q R"], *, scale: str = "group", eps: float = 1e-4
) -> Float[Array, "Q R"]:
    """Return each response's reward relative to its group (DeepSeekMath, arXiv 2402.03300, section 4.1), float32.

    The group mean is subtracted; then ``scale`` divides by the group's standard deviation + eps ("group"), by that of
    the whole batch + eps ("batch", arXiv 2508.08221), or by nothing ("none", Dr. GRPO, arXiv 2503.20783). It is the
    sample standard deviation (R - 1), as in TRL. ``rewards_QR`` must be the whole global batch. NaN is a missing
    reward: left out of means and deviations, advantage 0. A group of equal rewards has advantage exactly 0, not a
    rounding error over eps.

    Raises:
        ValueError: unknown ``scale``, or groups of one response.
    """
    spread = chosen("scale", scale, _SPREADS)
    if rewards_QR.shape[1] < 2:
        raise ValueError(
            f"rewards have shape {tuple(rewards_QR.shape)}: a group of {rewards_QR.shape[1]} has nothing to be "
            "compared with; sample at least 2 responses per question"
        )
    rewards = jnp.asarray(rewards_QR, jnp.float32)
    given = ~jnp.isnan(rewards)
    highest = jnp.max(jnp.where(given, rewards, -jnp.inf), axis=1, keepdims=True)
    lowest = jnp.min(jnp.where(given, rewards, jnp.inf), axis=1, keepdims=True)
    centred = (rewards - masked_mean(rewards, given, axis=1)[:, None]) / spread(rewards, given, eps)
    return jnp.where(given & (highest > lowest), centred, 0.0)


def _group_spread(rewards_QR: Array, given_QR: Array, eps: float) -> Float[Array, "Q 1"]:
    return _sample_std(rewards_QR, given_QR)[:, None] + eps


def _batch_spread(rewards_QR: Array, given_QR: Array, eps: float) -> Float[Array, "1 1"]:
    return _sample_std(rewards_QR.reshape(1, -1), given_QR.reshape(1, -1))[:, None] + eps


def _no_spread(rewards_QR: Array, given_QR: Array, eps: float) -> Float[Array, "1 1"]:
    return jnp.ones((1, 1))


_SPREADS: dict[str, Callable[[Array, Array, float], Array]] = {
    "group": _group_spread,
    "batch": _batch_spread,
    "none": _no_spread,
}
SCALES = tuple(_SPREADS)


def _sample_std(x_XR: Float[Array, "X R"], given_XR: Bool[Array, "X R"]) -> Float[Array, " X"]:
    mean_X1 = masked_mean(x_XR, given_XR, axis=1)[:, None]
    squares = jnp.sum(jnp.where(given_XR, x_XR - mean_X1, 0.0) ** 2, axis=1)
    return jnp.sqrt(squares / jnp.maximum(jnp.sum(given_XR, axis=1) - 1, 1))

"""Log-probabilities of given tokens from hidden states, never holding the logits of all tokens at once."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Num

from urt_jax.ops.attention import MASKED
from urt_jax.types import Array

Head = Callable[[Float[Array, "C D"]], Float[Array, "C V"]]


def temper_logits(
    logits: Float[Array, "X V"],
    temperature: Num[Array, "#X"] | Num[Array, ""] | float,
    suppress_V: Bool[Array, " V"] | None = None,
) -> Float[Array, "X V"]:
    """Return float32 logits over their row's temperature, with suppressed tokens at probability 0.

    This is the *full tempered distribution*: the one place where sampler and trainer agree on what a log-probability
    means. A temperature of 0 (greedy) counts as 1. Suppressed logits are very low rather than -inf, so that their
    gradients and the entropy stay finite.
    """
    wanted = jnp.atleast_1d(jnp.asarray(temperature, jnp.float32))
    tempered = logits.astype(jnp.float32) / jnp.where(wanted > 0, wanted, 1.0)[:, None]
    return tempered if suppress_V is None else jnp.where(jnp.asarray(suppress_V)[None], MASKED, tempered)


def head_logits(hidden_XD: Float[Array, "X D"], head_VD: Float[Array, "V D"]) -> Float[Array, "X V"]:
    """Return the LM-head product: operands in the dtype of the hidden states, sums and result in float32."""
    weight = head_VD.astype(hidden_XD.dtype)
    return jnp.einsum("XD,VD->XV", hidden_XD, weight, preferred_element_type=jnp.float32)


def chosen_logps(
    hidden: Float[Array, "*leading D"],
    head: Float[Array, "V D"] | Head,
    targets: Int[Array, "*leading"],
    *,
    temperature: Num[Array, ""] | float = 1.0,
    chunk: int = 1024,
    suppress_V: Bool[Array, " V"] | None = None,
    entropy_gradient: bool = False,
) -> tuple[Float[Array, "*leading"], Float[Array, "*leading"]]:
    """Return log-probability of each target and entropy of its distribution, float32, at the sampling temperature.

    ``head`` is the output matrix, or a function from hidden states ``[C, D]`` to float32 logits ``[C, V]``. About
    ``chunk`` tokens are projected at a time, forward and again backward, so memory is ``chunk * V`` and not ``T * V``.
    The entropy is detached unless ``entropy_gradient``. Targets must be inside the vocabulary, also where padding.
    ``suppress_V`` (True = never sampled) must be what the sampler had. Chunks are strided::

        8 tokens on 2 devices, chunk 4      device 0: 0 1 2 3    device 1: 4 5 6 7
        chunk 0 = tokens 0 2 4 6, chunk 1 = tokens 1 3 5 7       so both devices work on every chunk
    """
    project = head if callable(head) else (lambda x: head_logits(x, head))

    @jax.checkpoint
    def of_chunk(piece: tuple[Array, Array]) -> tuple[Array, Array]:
        hidden_CD, targets_C = piece
        logits_CV = temper_logits(project(hidden_CD), temperature, suppress_V)
        logp_CV = jax.nn.log_softmax(logits_CV, axis=-1)
        entropy_C = -jnp.sum(jnp.exp(logp_CV) * logp_CV, axis=-1)
        chosen_C = jnp.take_along_axis(logp_CV, targets_C[:, None], axis=-1)[:, 0]
        return chosen_C, entropy_C if entropy_gradient else jax.lax.stop_gradient(entropy_C)

    tokens = targets.size
    if tokens == 0:
        return jnp.zeros(targets.shape, jnp.float32), jnp.zeros(targets.shape, jnp.float32)
    fewest = -(-tokens // chunk)
    # Without padding where up to twice as many chunks allow it: a pad would cut across the devices' rows.
    chunks = next((count for count in range(fewest, 2 * fewest + 1) if tokens % count == 0), fewest)
    size = -(-tokens // chunks)

    def split(x: Array) -> Array:
        padded = jnp.pad(x, [(0, chunks * size - tokens)] + [(0, 0)] * (x.ndim - 1))
        return padded.reshape(size, chunks, *x.shape[1:]).swapaxes(0, 1)

    pieces = (split(hidden.reshape(tokens, hidden.shape[-1])), split(targets.reshape(tokens)))
    logp, entropy = jax.lax.map(of_chunk, pieces)

    def join(x: Array) -> Array:
        return x.swapaxes(0, 1).reshape(-1)[:tokens].reshape(targets.shape)

    return join(logp), join(entropy)

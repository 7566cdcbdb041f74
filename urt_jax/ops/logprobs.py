"""Log-probabilities of given tokens from hidden states, never holding the logits of all tokens at once."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Num

from urt_jax.ops.attention import MASKED
from urt_jax.ops.precision import wide
from urt_jax.types import Array

Head = Callable[[Float[Array, "C D"]], Float[Array, "C V"]]


def temper_logits(
    logits: Float[Array, "X V"],
    temperature: Num[Array, "#X"] | Num[Array, ""] | float,
    suppress_V: Bool[Array, " V"] | None = None,
) -> Float[Array, "X V"]:
    """Return float32 logits divided by their row's temperature, with suppressed tokens at probability 0.

    This is the *full tempered distribution*: sampler and trainer both take their log-probabilities from it. A
    temperature of 0 (greedy) counts as 1. Suppressed logits are very low rather than -inf, so that their gradients and
    the entropy stay finite.
    """
    wanted = jnp.atleast_1d(jnp.asarray(temperature, jnp.float32))
    tempered = logits.astype(jnp.float32) / jnp.where(wanted > 0, wanted, 1.0)[:, None]
    return tempered if suppress_V is None else jnp.where(jnp.asarray(suppress_V)[None], MASKED, tempered)


def head_logits(hidden_XD: Float[Array, "X D"], head_VD: Float[Array, "V D"]) -> Float[Array, "X V"]:
    """Return the LM-head product: operands in the dtype of the hidden states, sums and result in its ``wide`` dtype."""
    weight = head_VD.astype(hidden_XD.dtype)
    return jnp.einsum("XD,VD->XV", hidden_XD, weight, preferred_element_type=wide(hidden_XD.dtype))


def chosen_logps(
    hidden: Float[Array, "*leading D"],
    head: Float[Array, "V D"] | Head,
    targets: Int[Array, "*leading"],
    *,
    temperature: Num[Array, ""] | float = 1.0,
    chunk: int = 1024,
    suppress_V: Bool[Array, " V"] | None = None,
    entropy_gradient: bool = False,
    wanted: Bool[Array, "*leading"] | None = None,
) -> tuple[Float[Array, "*leading"], Float[Array, "*leading"]]:
    """Return each target's log-probability and its distribution's entropy, float32, at the sampling temperature.

    ``head`` is the output matrix, or a function from hidden states ``[C, D]`` to float32 logits ``[C, V]``. About
    ``chunk`` tokens are projected at a time, forward and again backward, so memory is ``chunk * V`` and not ``T * V``.
    The entropy is detached unless ``entropy_gradient``. Targets must be inside the vocabulary, padding included.
    ``suppress_V`` (True = never sampled) must be the sampler's. A chunk is some columns of all rows, so that all
    devices work on it; chunks without a ``wanted`` token are skipped, and results at unwanted tokens are 0::

        2 rows of 4 columns, one row a device, chunk 4      chunk 0 = columns 0 1, chunk 1 = columns 2 3 of both rows
    """
    project = head if callable(head) else (lambda x: head_logits(x, head))
    if targets.size == 0:
        return jnp.zeros(targets.shape, jnp.float32), jnp.zeros(targets.shape, jnp.float32)

    @jax.checkpoint
    def of_chunk(hidden_CD: Array, targets_C: Array, wanted_C: Array) -> tuple[Array, Array]:
        logits_CV = temper_logits(project(hidden_CD), temperature, suppress_V)
        chosen_C, entropy_C = _chosen_and_entropy(logits_CV, targets_C)
        entropy_C = entropy_C if entropy_gradient else jax.lax.stop_gradient(entropy_C)
        return jnp.where(wanted_C, chosen_C, 0.0), jnp.where(wanted_C, entropy_C, 0.0)

    def nothing(hidden_CD: Array, targets_C: Array, wanted_C: Array) -> tuple[Array, Array]:
        zeros = jnp.zeros(targets_C.shape, jnp.float32)
        return zeros, zeros

    def of_piece(piece: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        skipping = wanted is not None
        found: tuple[Array, Array] = (
            jax.lax.cond(piece[2].any(), of_chunk, nothing, *piece) if skipping else of_chunk(*piece)
        )
        return found

    rows, columns = _as_rows(targets.shape, chunk)
    width, count = _column_blocks(rows, columns, chunk)
    given = jnp.ones(targets.shape, bool) if wanted is None else jnp.asarray(wanted)

    def split(x: Array, *trailing: int) -> Array:
        padded = jnp.pad(
            x.reshape(rows, columns, *trailing), [(0, 0), (0, width * count - columns)] + [(0, 0)] * len(trailing)
        )
        return padded.reshape(rows, count, width, *trailing).swapaxes(0, 1).reshape(count, rows * width, *trailing)

    def join(x: Array) -> Array:
        joined = x.reshape(count, rows, width).swapaxes(0, 1).reshape(rows, count * width)
        return joined[:, :columns].reshape(targets.shape)

    logp, entropy = jax.lax.map(of_piece, (split(hidden, hidden.shape[-1]), split(targets), split(given)))
    return join(logp), join(entropy)


def _chosen_and_entropy(
    logits_CV: Float[Array, "C V"], targets_C: Int[Array, " C"]
) -> tuple[Float[Array, " C"], Float[Array, " C"]]:
    """Return the targets' log-probabilities and the entropies of their distributions.

    One pass over the vocabulary gives the exponentials, their sum, the entropy and the target's logit. The target's
    logit is not indexed, since the gradient of an index is a scatter.
    """
    logits_CV = logits_CV - jax.lax.stop_gradient(logits_CV.max(axis=-1, keepdims=True))
    weights_CV = jnp.exp(logits_CV)
    total_C = weights_CV.sum(axis=-1)
    picked_C = jnp.sum(jnp.where(jnp.arange(logits_CV.shape[1])[None] == targets_C[:, None], logits_CV, 0.0), axis=-1)
    chosen_C = picked_C - jnp.log(total_C)
    entropy_C = jnp.log(total_C) - jnp.sum(weights_CV * logits_CV, axis=-1) / total_C
    return chosen_C, entropy_C


def _as_rows(shape: tuple[int, ...], chunk: int) -> tuple[int, int]:
    """Return the rows and columns into which targets of this shape fold: one row if a chunk cannot hold a column."""
    rows = math.prod(shape[:-1])
    return (rows, shape[-1]) if rows <= chunk else (1, math.prod(shape))


def _column_blocks(rows: int, columns: int, chunk: int) -> tuple[int, int]:
    """Return the columns per chunk and the number of chunks; avoid padding where that costs few more chunks."""
    fewest = -(-columns // max(chunk // rows, 1))
    count = next((count for count in range(fewest, 2 * fewest + 1) if columns % count == 0), fewest)
    return -(-columns // count), count

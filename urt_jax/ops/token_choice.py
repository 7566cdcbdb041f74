"""Choosing the next token of every row: temperature, top-k, top-p and min-p as arrays, then one draw per row."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Num

from urt_jax.errors import unknown_choice
from urt_jax.ops.logprobs import temper_logits
from urt_jax.types import Array

# A filter: ascending logits [B, V] and each row's setting [B, 1] -> logits, removed tokens at -inf.
SortedFilter = Callable[[Array, Array], Array]


def keep_top_k(ascending_BV: Float[Array, "B V"], top_k_B1: Int[Array, "B 1"]) -> Float[Array, "B V"]:
    """Keep the k largest logits and all ties with the k-th; k = 0, or k beyond the vocabulary, keeps all."""
    width = ascending_BV.shape[-1]
    threshold = jnp.take_along_axis(ascending_BV, jnp.clip(width - top_k_B1, 0, width - 1), axis=-1)
    return jnp.where((top_k_B1 > 0) & (ascending_BV < threshold), -jnp.inf, ascending_BV)


def keep_top_p(ascending_BV: Float[Array, "B V"], top_p_B1: Float[Array, "B 1"]) -> Float[Array, "B V"]:
    """Keep the smallest set of likeliest tokens with mass p, at least one (arXiv 1904.09751); p = 1 keeps all.

    A token is removed when it and all less likely ones hold at most ``1 - p`` together, within two float32 roundings:
    probabilities .5 .3 .2 with p = .8 keep two tokens, as in exact arithmetic.
    """
    mass = jnp.cumsum(jax.nn.softmax(ascending_BV, axis=-1), axis=-1)
    slack = 2 * float(np.finfo(np.float32).eps)
    removed = mass <= jnp.asarray(1.0 - top_p_B1) + slack
    return jnp.where((top_p_B1 < 1.0) & removed.at[:, -1].set(False), -jnp.inf, ascending_BV)


def keep_min_p(logits_BV: Float[Array, "B V"], min_p_B1: Float[Array, "B 1"]) -> Float[Array, "B V"]:
    """Keep tokens at least ``min_p`` times as likely as the likeliest (arXiv 2407.01082); 0 keeps all.

    The logits may be in any order.
    """
    probs = jax.nn.softmax(logits_BV, axis=-1)
    return jnp.where(probs < min_p_B1 * jnp.max(probs, axis=-1, keepdims=True), -jnp.inf, logits_BV)


# Both orders are in use. They differ as soon as two filters are on: each filter sees what the one before it kept.
FILTER_ORDERS: dict[str, tuple[str, ...]] = {"hf": ("top_k", "top_p", "min_p"), "vllm": ("min_p", "top_k", "top_p")}
_FILTERS: dict[str, SortedFilter] = {"top_k": keep_top_k, "top_p": keep_top_p, "min_p": keep_min_p}


def filter_logits(
    logits_BV: Float[Array, "B V"],
    *,
    temperature_B: Num[Array, " B"],
    top_k_B: Int[Array, " B"],
    top_p_B: Float[Array, " B"],
    min_p_B: Float[Array, " B"],
    order: str = "hf",
    suppress_V: Bool[Array, " V"] | None = None,
) -> Float[Array, "B V"]:
    """Return tempered float32 logits, with the tokens that the filters remove at -inf.

    Every setting is a traced array, so one program serves all settings. Neutral values: top_k 0, top_p 1, min_p 0. A
    row of temperature 0 is greedy: it keeps its argmax only (the first of equals). ``order`` is a key of
    ``FILTER_ORDERS`` (transformers 5.23 or vLLM). The vocabulary is sorted only when a sampled row uses top-k or top-p.

    Raises:
        ValueError: unknown ``order``.
    """
    if order not in FILTER_ORDERS:
        raise ValueError(f"order {unknown_choice(order, FILTER_ORDERS)}")
    greedy_B1 = (jnp.asarray(temperature_B) <= 0)[:, None]
    settings = {"top_k": top_k_B, "top_p": top_p_B, "min_p": min_p_B}
    columns = {name: jnp.asarray(setting)[:, None] for name, setting in settings.items()}
    tempered_BV = temper_logits(logits_BV, temperature_B)
    if suppress_V is not None:
        tempered_BV = jnp.where(jnp.asarray(suppress_V)[None], -jnp.inf, tempered_BV)

    def with_sort(logits: jax.Array) -> Array:
        places = jnp.argsort(logits, axis=-1, stable=True)
        kept: Array = jnp.take_along_axis(logits, places, axis=-1)
        for name in FILTER_ORDERS[order]:  # each removes the lowest logits, so the rest stay sorted
            kept = _FILTERS[name](kept, columns[name])
        # Mapped over rows, so that a mesh that splits rows moves nothing.
        return jax.vmap(lambda place, value: jnp.zeros_like(value).at[place].set(value, unique_indices=True))(
            places, kept
        )

    def without_sort(logits: jax.Array) -> Array:
        return keep_min_p(logits, columns["min_p"])

    def filtered(logits: jax.Array) -> Array:
        needs_sort = ~greedy_B1 & ((columns["top_k"] > 0) | (columns["top_p"] < 1.0))
        kept = jax.lax.cond(jnp.any(needs_sort), with_sort, without_sort, logits)
        best = jnp.argmax(logits, axis=-1)[:, None]
        others = jax.lax.broadcasted_iota(best.dtype, logits.shape, 1) != best
        return jnp.where(greedy_B1, jnp.where(others, -jnp.inf, logits), kept)

    neutral_B1 = (columns["top_k"] <= 0) & (columns["top_p"] >= 1.0) & (columns["min_p"] <= 0.0) & ~greedy_B1
    kept_BV: Array = jax.lax.cond(jnp.all(neutral_B1), lambda logits: logits, filtered, tempered_BV)
    return kept_BV


def penalise_repetition(
    logits_BV: Float[Array, "B V"], seen_BV: Bool[Array, "B V"], penalty_B: Num[Array, " B"]
) -> Float[Array, "B V"]:
    """Divide positive logits of seen ids by the penalty, multiply negative ones by it; a penalty of 1 changes nothing.

    Source: CTRL (arXiv 1909.05858, section 4.1), in the form of transformers 5.23, before temperature and filters.
    """
    penalty_B1 = jnp.asarray(penalty_B, logits_BV.dtype)[:, None]
    penalised = jnp.where(logits_BV < 0, logits_BV * penalty_B1, logits_BV / penalty_B1)
    return jnp.where(seen_BV, penalised, logits_BV)


def choose_token(
    draw_B: Float[Array, " B"], filtered_BV: Float[Array, "B V"], tempered_BV: Float[Array, "B V"]
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """Choose one token per row with the row's own uniform number in (0, 1]; return ids and their log-probabilities.

    Each row's number is looked up in its cumulative distribution. That samples the same distribution as a Gumbel draw
    per token, far cheaper, and two programs whose rounding differs disagree only where a draw lies at a boundary.

    ``filtered_BV`` comes from ``filter_logits``, with removed tokens at -inf. A row with one token left (greedy)
    ignores its draw. The log-probability is that of ``tempered_BV`` from ``temper_logits``: after temperature and
    suppression, *before* top-k, top-p and min-p, as in the trainer's ``chosen_logps``. Filters thus make the sampler
    off-policy, and the agreement metrics show by how much.
    """
    logp_BV = jax.nn.log_softmax(tempered_BV.astype(jnp.float32), axis=-1)
    # Relative to the likeliest kept token: all tokens that the filters keep may be rare in the full distribution.
    best_B1 = jnp.max(filtered_BV, axis=-1, keepdims=True)
    probs_BV = jnp.exp(filtered_BV - best_B1)
    ids_B = _at_mass(draw_B, probs_BV)
    return ids_B, jnp.take_along_axis(logp_BV, ids_B[:, None], axis=-1)[:, 0]


def _at_mass(draw_B: Float[Array, " B"], probs_BV: Float[Array, "B V"]) -> Int[Array, " B"]:
    """Return the token at which each row's cumulative sum reaches this share of its total.

    The block of tokens is found first, then the token in it, so no cumulative sum has the vocabulary's length. A token
    of probability 0 is never returned, whatever rounding does.
    """
    rows, width = probs_BV.shape
    size = 1 << round(math.log2(width) / 2)
    parts_BNS = jnp.pad(probs_BV, [(0, 0), (0, -width % size)]).reshape(rows, -1, size)
    sums_BN = parts_BNS.sum(axis=-1)
    mass_BN = jnp.cumsum(sums_BN, axis=-1)
    wanted_B = draw_B * mass_BN.max(axis=-1)
    block_B = _first_reached(wanted_B, mass_BN, sums_BN)
    part_BS = jnp.take_along_axis(parts_BNS, block_B[:, None, None], axis=1)[:, 0]
    before_BN = jnp.pad(mass_BN, [(0, 0), (1, 0)])
    left_B = wanted_B - jnp.take_along_axis(before_BN, block_B[:, None], axis=1)[:, 0]
    return block_B * size + _first_reached(left_B, jnp.cumsum(part_BS, axis=-1), part_BS)


def _first_reached(
    wanted_B: Float[Array, " B"], mass_BX: Float[Array, "B X"], own_BX: Float[Array, "B X"]
) -> Int[Array, " B"]:
    """Return the first index of nonzero mass where the cumulative mass reaches the wanted one, else the last such."""
    place_BX = jax.lax.broadcasted_iota(jnp.int32, mass_BX.shape, 1)
    last_B = jnp.max(jnp.where(own_BX > 0, place_BX, 0), axis=-1)
    reached_BX = (own_BX > 0) & (mass_BX >= wanted_B[:, None])
    return jnp.min(jnp.where(reached_BX, place_BX, last_B[:, None]), axis=-1)  # as argmax, but faster

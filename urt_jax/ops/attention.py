"""Attention with grouped queries: one softmax in float32, over a full sequence or over a shared-prompt cache."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from urt_jax.ops.precision import wide

MASKED = -1e30  # finite, so that a fully masked row stays finite (its output is never used)


def attend(
    query_BTNH: Float[Array, "B T N H"],
    key_BSKH: Float[Array, "B S K H"],
    value_BSKH: Float[Array, "B S K H"],
    mask_BTS: Bool[Array, "B #T S"],  # noqa: F821 -- read as the name B and a comment
) -> Float[Array, "B T N H"]:
    """Return softmax attention where ``mask_BTS`` is True; query head n reads key head ``n // (N / K)``.

    Scores and softmax are float32 (float64 where the inputs are). A row whose mask is all False yields the mean of the
    values (finite, meaningless).
    """
    rows, length, heads, width = query_BTNH.shape
    kv_heads = key_BSKH.shape[2]
    groups = heads // kv_heads
    # The G queries of a key head are stacked along one axis, X = T * G, so that each key head is one matrix product.
    # This is twice as fast on CPU as repeating the keys or a 5-D product, and the keys are stored once. Tokens are
    # the outer index of X, so a mesh that splits tokens splits X.
    query_BKXH = _by_key_head(query_BTNH, kv_heads)
    key_BKSH, value_BKSH = key_BSKH.swapaxes(1, 2), value_BSKH.swapaxes(1, 2)
    scores = _product("BKXH,BKSH->BKXS", query_BKXH, key_BKSH) * width**-0.5
    scores = scores.reshape(rows, kv_heads, length, groups, -1)
    hidden = jnp.where(mask_BTS, 0.0, MASKED)[:, None, :, None]
    weights = jax.nn.softmax(scores + hidden, axis=-1).astype(value_BSKH.dtype)
    weights_BKXS = weights.reshape(rows, kv_heads, length * groups, -1)
    return _by_query_head(jnp.einsum("BKXS,BKSH->BKXH", weights_BKXS, value_BKSH), groups)


def _by_key_head(query_BTNH: Float[Array, "B T N H"], kv_heads: int) -> Float[Array, "B K X H"]:
    """Stack the G queries of each key head along one axis, ``X = T * G``."""
    rows, length, heads, width = query_BTNH.shape
    groups = heads // kv_heads
    folded = query_BTNH.reshape(rows, length, kv_heads, groups, width).swapaxes(1, 2)
    return folded.reshape(rows, kv_heads, length * groups, width)


def _by_query_head(seen_BKXH: Float[Array, "B K X H"], groups: int) -> Float[Array, "B T N H"]:
    """Undo ``_by_key_head``."""
    rows, kv_heads, folded, width = seen_BKXH.shape
    seen = seen_BKXH.reshape(rows, kv_heads, folded // groups, groups, width).swapaxes(1, 2)
    return seen.reshape(rows, folded // groups, kv_heads * groups, width)


class QueryBlock(NamedTuple):
    """A block of a row's query tokens; they see no key after the row's first ``seen``."""

    tokens: slice
    queries: slice  # these tokens on the axis X = U * G
    seen: int


def query_blocks(length: int, groups: int, count: int) -> tuple[QueryBlock, ...]:
    """Cut the tokens of a row into blocks; under a causal mask, no block is multiplied with the keys after it."""
    ends = [length * number // count for number in range(count + 1)]
    return tuple(QueryBlock(slice(a, b), slice(a * groups, b * groups), b) for a, b in pairwise(ends))


def attend_in_blocks(
    query_BTNH: Float[Array, "B T N H"],
    key_BTKH: Float[Array, "B T K H"],
    value_BTKH: Float[Array, "B T K H"],
    mask_BTT: Bool[Array, "B T T"],
    *,
    blocks: int,
) -> Float[Array, "B T N H"]:
    """Return the attention of ``attend`` under a causal mask, computed block by block; see ``query_blocks``."""

    def attended(tokens: slice, seen: int) -> Array:
        return attend(query_BTNH[:, tokens], key_BTKH[:, :seen], value_BTKH[:, :seen], mask_BTT[:, tokens, :seen])

    cut = query_blocks(query_BTNH.shape[1], 1, blocks)
    return jnp.concatenate([attended(block.tokens, block.seen) for block in cut], axis=1)


def attend_with_prefix(
    query_BUNH: Float[Array, "B U N H"],
    key_BUKH: Float[Array, "B U K H"],
    value_BUKH: Float[Array, "B U K H"],
    prompt_key_QKHS: Float[Array, "Q K H S"],
    prompt_value_QKSH: Float[Array, "Q K S H"],
    prompt_mask_QS: Bool[Array, "Q S"],
    own_mask_BUU: Bool[Array, "B U U"],
    *,
    blocks: int = 1,
) -> Float[Array, "B U N H"]:
    """Return the attention of whole responses, ``B = Q * R`` question-major rows that share Q prompts.

    The prompt's keys are held once per question, for all tokens of its R responses, forward and backward::

        row (q, r) sees   prompt q (shared)  |  its own tokens
                          mask: prompt_mask  |  own_mask (causal)

    Equal to ``attend`` over the joined sequences; softmax in float32. Queries are cut into ``blocks`` (see
    ``query_blocks``): with n blocks, attention to the row's own tokens computes ``(n + 1) / 2n`` of their scores.
    """
    kv_heads = prompt_key_QKHS.shape[1]
    groups = query_BUNH.shape[2] // kv_heads
    inputs = (_by_key_head(query_BUNH, kv_heads), prompt_key_QKHS, prompt_value_QKSH, key_BUKH, value_BUKH)
    return _by_query_head(_with_prefix(blocks, *inputs, prompt_mask_QS, own_mask_BUU), groups)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _with_prefix(count: int, query_BKXH: Array, *rest: Array) -> Array:
    """Attend with queries laid out by ``_by_key_head``; the backward pass keeps one array of the scores' size."""
    return _with_prefix_forward(count, query_BKXH, *rest)[0]


def _with_prefix_forward(
    count: int,
    query: Array,
    prompt_key: Array,
    prompt_value: Array,
    key: Array,
    value: Array,
    prompt_mask: Array,
    own_mask: Array,
) -> tuple[Array, tuple[Any, ...]]:
    groups, kind, scale = query.shape[2] // key.shape[1], value.dtype, query.shape[-1] ** -0.5
    to_prompt, to_rows = _prefix_layouts(query.shape, prompt_key.shape[0], groups)
    blocks = query_blocks(key.shape[1], groups, count)

    def own_scores(block: QueryBlock) -> Array:
        scores = _product("BKXH,BUKH->BKXU", query[:, :, block.queries], key[:, : block.seen]) * scale
        by_token = scores.reshape(*scores.shape[:2], -1, groups, block.seen)
        mask = own_mask[:, None, block.tokens, None, : block.seen]
        return jnp.where(mask, by_token, MASKED).reshape(scores.shape)

    # One matrix product per key head: over all responses of a question for its prompt, over one for its own tokens.
    prompt = _product("QKXH,QKHS->QKXS", to_prompt(query), prompt_key) * scale
    prompt = jnp.where(prompt_mask[:, None, None], prompt, MASKED)
    own = [own_scores(block) for block in blocks]
    # One softmax over both parts, merged by their maxima and sums, so the scores are never concatenated.
    top = jnp.maximum(to_rows(prompt.max(axis=-1, keepdims=True)), _stacked(x.max(axis=-1, keepdims=True) for x in own))
    prompt = jnp.exp(prompt - to_prompt(top))
    own = [jnp.exp(scores - top[:, :, block.queries]) for scores, block in zip(own, blocks)]
    total = to_rows(prompt.sum(axis=-1, keepdims=True)) + _stacked(x.sum(axis=-1, keepdims=True) for x in own)
    prompt, own = prompt.astype(kind), [weights.astype(kind) for weights in own]
    seen = to_rows(_product("QKXS,QKSH->QKXH", prompt, prompt_value)) + _stacked(
        _product("BKXU,BUKH->BKXH", weights, value[:, : block.seen]) for weights, block in zip(own, blocks)
    )
    found = (seen / total).astype(kind)
    return found, (query, prompt_key, prompt_value, key, value, prompt, own, total, found)


def _with_prefix_backward(count: int, kept: tuple[Any, ...], g_BKXH: Array) -> tuple[Array | None, ...]:
    """Return the gradients of the inputs from the unnormalised attention weights.

    The mean gradient of a query's weights is its output times the output's gradient (FlashAttention-2, arXiv
    2307.08691, algorithm 2).
    """
    query, prompt_key, prompt_value, key, value, prompt, own, total, found = kept
    groups, kind, scale = query.shape[2] // key.shape[1], value.dtype, query.shape[-1] ** -0.5
    to_prompt, to_rows = _prefix_layouts(query.shape, prompt_key.shape[0], groups)
    blocks = query_blocks(key.shape[1], groups, count)
    g = (g_BKXH.astype(total.dtype) / total).astype(kind)
    mean = (g.astype(total.dtype) * found).sum(axis=-1, keepdims=True)

    def own_gradient(weights: Array, block: QueryBlock) -> Array:
        g_weights = _product("BKXH,BUKH->BKXU", g[:, :, block.queries], value[:, : block.seen])
        own: Array = (weights * (g_weights - mean[:, :, block.queries]) * scale).astype(kind)
        return own

    g_prompt = _product("QKXH,QKSH->QKXS", to_prompt(g), prompt_value) - to_prompt(mean)
    g_prompt = (prompt * g_prompt * scale).astype(kind)
    g_own = [own_gradient(weights, block) for weights, block in zip(own, blocks)]
    g_query = to_rows(_product("QKXS,QKHS->QKXH", g_prompt, prompt_key)) + _stacked(
        _product("BKXU,BUKH->BKXH", g_scores, key[:, : block.seen]) for g_scores, block in zip(g_own, blocks)
    )

    def of_keys(parts: Sequence[Array], queries: Array) -> Array:
        """Sum the blocks' gradients of the keys (or values)."""
        each = (_product("BKXU,BKXH->BUKH", x, queries[:, :, block.queries]) for x, block in zip(parts, blocks))
        return sum(jnp.pad(x, [(0, 0), (0, key.shape[1] - x.shape[1]), (0, 0), (0, 0)]) for x in each)  # type: ignore[return-value]

    gradients = (
        g_query,
        _product("QKXS,QKXH->QKHS", g_prompt, to_prompt(query)),
        _product("QKXS,QKXH->QKSH", prompt, to_prompt(g)),
        of_keys(g_own, query),
        of_keys(own, g),
    )
    inputs = (query, prompt_key, prompt_value, key, value)
    return *(found.astype(given.dtype) for found, given in zip(gradients, inputs)), None, None


_with_prefix.defvjp(_with_prefix_forward, _with_prefix_backward)


def _stacked(of_blocks: Iterable[Array]) -> Array:
    """Concatenate the blocks along the query axis."""
    return jnp.concatenate(list(of_blocks), axis=2)


def _product(equation: str, one: Array, other: Array) -> Array:
    return jnp.einsum(equation, one, other, preferred_element_type=wide(one.dtype))


def _prefix_layouts(
    shape: tuple[int, ...], questions: int, groups: int
) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """Return the reshape from rows ``[B, K, U*G, .]`` to prompts ``[Q, K, U*R*G, .]``, and its inverse."""
    rows, kv_heads, folded, _ = shape
    length, responses = folded // groups, rows // questions

    def to_prompt(x: Array) -> Array:
        x = x.reshape(questions, responses, kv_heads, length, groups, -1).transpose(0, 2, 3, 1, 4, 5)
        return x.reshape(questions, kv_heads, length * responses * groups, -1)

    def to_rows(x: Array) -> Array:
        x = x.reshape(questions, kv_heads, length, responses, groups, -1).transpose(0, 3, 1, 2, 4, 5)
        return x.reshape(rows, kv_heads, length * groups, -1)

    return to_prompt, to_rows


def attend_group(
    query_BNH: Float[Array, "B N H"],
    prompt_key_QKHS: Float[Array, "Q K H S"],
    prompt_value_QKSH: Float[Array, "Q K S H"],
    past_key_BKHU: Float[Array, "B K H U"],
    past_value_BKUH: Float[Array, "B K U H"],
    prompt_mask_QS: Bool[Array, "Q S"],
    past_mask_BU: Bool[Array, "B U"],
) -> Float[Array, "B N H"]:
    """Return the attention of one new token per row, ``B = Q * R`` question-major rows that share Q prompts.

    The prompt's keys are stored once per question and read by its R rows::

        row (q, r) sees   prompt q (shared)  |  its own tokens, itself among them
                          mask: prompt_mask  |  past_mask
    """
    questions, kv_heads, head_width, width = prompt_key_QKHS.shape
    rows, query_heads, _ = query_BNH.shape
    responses, groups = rows // questions, query_heads // kv_heads
    scale = head_width**-0.5
    query_BKGH = query_BNH.reshape(rows, kv_heads, groups, head_width)

    def prompt_layout(x: Array) -> Array:  # [B, K, G, .] -> [Q, K, R*G, .]: one product per question
        x = x.reshape(questions, responses, kv_heads, groups, -1)
        return x.transpose(0, 2, 1, 3, 4).reshape(questions, kv_heads, responses * groups, -1)

    def row_layout(x: Array) -> Array:  # the inverse
        x = x.reshape(questions, kv_heads, responses, groups, -1)
        return x.transpose(0, 2, 1, 3, 4).reshape(rows, kv_heads, groups, -1)

    prompt = _product("QKXH,QKHS->QKXS", prompt_layout(query_BKGH), prompt_key_QKHS) * scale
    prompt = row_layout(jnp.where(prompt_mask_QS[:, None, None], prompt, MASKED))
    past = _product("BKGH,BKHU->BKGU", query_BKGH, past_key_BKHU) * scale
    past = jnp.where(past_mask_BU[:, None, None], past, MASKED)
    weights = jax.nn.softmax(jnp.concatenate([prompt, past], axis=-1), axis=-1).astype(query_BNH.dtype)
    from_prompt = jnp.einsum("QKXS,QKSH->QKXH", prompt_layout(weights[..., :width]), prompt_value_QKSH)
    from_past = jnp.einsum("BKGU,BKUH->BKGH", weights[..., width:], past_value_BKUH)
    return (row_layout(from_prompt) + from_past).reshape(rows, query_heads, head_width)

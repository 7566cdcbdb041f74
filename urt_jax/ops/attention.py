"""Attention with grouped queries: one softmax in float32, over a full sequence or over a shared-prompt cache."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from urt_jax.ops.precision import wide

MASKED = -1e30  # finite, so that a row with nothing to see stays finite (its output is never used)


def attend(
    query_BTNH: Float[Array, "B T N H"],
    key_BSKH: Float[Array, "B S K H"],
    value_BSKH: Float[Array, "B S K H"],
    mask_BTS: Bool[Array, "B #T S"],
) -> Float[Array, "B T N H"]:
    """Return softmax attention where ``mask_BTS`` is True; query head n reads key head ``n // (N / K)``.

    Scores and softmax are float32 (float64 where the inputs are). A row whose mask is all False yields the mean of the
    values (finite, meaningless).
    """
    rows, length, heads, width = query_BTNH.shape
    kv_heads = key_BSKH.shape[2]
    groups = heads // kv_heads
    # The G queries of a key head stand below each other, so that each key head is one plain product: X = T * G. Two
    # times faster on CPU than repeating the keys or a 5-D product, and the keys are stored once. Tokens come first,
    # so that a mesh that splits them splits X.
    query_BKXH = _by_key_head(query_BTNH, kv_heads)
    key_BKSH, value_BKSH = key_BSKH.swapaxes(1, 2), value_BSKH.swapaxes(1, 2)
    scores = _product("BKXH,BKSH->BKXS", query_BKXH, key_BKSH) * width**-0.5
    scores = scores.reshape(rows, kv_heads, length, groups, -1)
    hidden = jnp.where(mask_BTS, 0.0, MASKED)[:, None, :, None]
    weights = jax.nn.softmax(scores + hidden, axis=-1).astype(value_BSKH.dtype)
    weights_BKXS = weights.reshape(rows, kv_heads, length * groups, -1)
    return _by_query_head(jnp.einsum("BKXS,BKSH->BKXH", weights_BKXS, value_BKSH), groups)


def _by_key_head(query_BTNH: Float[Array, "B T N H"], kv_heads: int) -> Float[Array, "B K X H"]:
    """Put the G queries of each key head below each other, ``X = T * G``."""
    rows, length, heads, width = query_BTNH.shape
    groups = heads // kv_heads
    folded = query_BTNH.reshape(rows, length, kv_heads, groups, width).swapaxes(1, 2)
    return folded.reshape(rows, kv_heads, length * groups, width)


def _by_query_head(seen_BKXH: Float[Array, "B K X H"], groups: int) -> Float[Array, "B T N H"]:
    """Undo ``_by_key_head``."""
    rows, kv_heads, folded, width = seen_BKXH.shape
    seen = seen_BKXH.reshape(rows, kv_heads, folded // groups, groups, width).swapaxes(1, 2)
    return seen.reshape(rows, folded // groups, kv_heads * groups, width)


def attend_with_prefix(
    query_BUNH: Float[Array, "B U N H"],
    key_BUKH: Float[Array, "B U K H"],
    value_BUKH: Float[Array, "B U K H"],
    prompt_key_QKHS: Float[Array, "Q K H S"],
    prompt_value_QKSH: Float[Array, "Q K S H"],
    prompt_mask_QS: Bool[Array, "Q S"],
    own_mask_BUU: Bool[Array, "B U U"],
) -> Float[Array, "B U N H"]:
    """Return the attention of whole responses, ``B = Q * R`` question-major rows that share Q prompts.

    The prompt's keys stand once per question for all tokens of its R responses, forward and backward::

        row (q, r) sees   prompt q (shared)  |  its own tokens
                          mask: prompt_mask  |  own_mask (causal)

    Equal to ``attend`` over the joined sequences; softmax in float32.
    """
    kv_heads = prompt_key_QKHS.shape[1]
    groups = query_BUNH.shape[2] // kv_heads
    inputs = (_by_key_head(query_BUNH, kv_heads), prompt_key_QKHS, prompt_value_QKSH, key_BUKH, value_BUKH)
    return _by_query_head(_with_prefix(groups, *inputs, prompt_mask_QS, own_mask_BUU), groups)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _with_prefix(groups: int, query_BKXH: Array, *rest: Array) -> Array:
    """Attend with queries in the order of ``_by_key_head``; the gradient keeps one array of the size of the scores."""
    return _with_prefix_forward(groups, query_BKXH, *rest)[0]


def _with_prefix_forward(
    groups: int,
    query: Array,
    prompt_key: Array,
    prompt_value: Array,
    key: Array,
    value: Array,
    prompt_mask: Array,
    own_mask: Array,
) -> tuple[Array, tuple[Array, ...]]:
    to_prompt, to_rows = _prefix_layouts(query.shape, prompt_key.shape[0], groups)
    length, kind, scale = key.shape[1], value.dtype, query.shape[-1] ** -0.5
    # One plain product a key head: over all responses of a question for the prompt, over one response for its own.
    prompt = _product("QKXH,QKHS->QKXS", to_prompt(query), prompt_key) * scale
    prompt = jnp.where(prompt_mask[:, None, None], prompt, MASKED)
    own = _product("BKXH,BUKH->BKXU", query, key) * scale
    split = (*own.shape[:2], length, groups, length)
    own = jnp.where(own_mask[:, None, :, None], own.reshape(split), MASKED).reshape(own.shape)
    # One softmax over both parts, merged by their maxima and sums: the joined scores never exist.
    top = jnp.maximum(to_rows(prompt.max(axis=-1, keepdims=True)), own.max(axis=-1, keepdims=True))
    prompt, own = jnp.exp(prompt - to_prompt(top)), jnp.exp(own - top)
    total = to_rows(prompt.sum(axis=-1, keepdims=True)) + own.sum(axis=-1, keepdims=True)
    prompt, own = prompt.astype(kind), own.astype(kind)
    seen = to_rows(_product("QKXS,QKSH->QKXH", prompt, prompt_value)) + _product("BKXU,BUKH->BKXH", own, value)
    return (seen / total).astype(kind), (query, prompt_key, prompt_value, key, value, prompt, own, total)


def _with_prefix_backward(groups: int, kept: tuple[Array, ...], g_BKXH: Array) -> tuple[Array | None, ...]:
    """Return the gradients of the inputs, from the weights before they were divided by their sum."""
    query, prompt_key, prompt_value, key, value, prompt, own, total = kept
    to_prompt, to_rows = _prefix_layouts(query.shape, prompt_key.shape[0], groups)
    kind, scale = value.dtype, query.shape[-1] ** -0.5
    g = (g_BKXH.astype(total.dtype) / total).astype(kind)
    g_own = own * _product("BKXH,BUKH->BKXU", g, value)
    g_prompt = prompt * _product("QKXH,QKSH->QKXS", to_prompt(g), prompt_value)
    mean = (g_own.sum(axis=-1, keepdims=True) + to_rows(g_prompt.sum(axis=-1, keepdims=True))) / total
    g_own = ((g_own - own * mean) * scale).astype(kind)
    g_prompt = ((g_prompt - prompt * to_prompt(mean)) * scale).astype(kind)
    g_query = _product("BKXU,BUKH->BKXH", g_own, key) + to_rows(_product("QKXS,QKHS->QKXH", g_prompt, prompt_key))
    gradients = (
        g_query,
        _product("QKXS,QKXH->QKHS", g_prompt, to_prompt(query)),
        _product("QKXS,QKXH->QKSH", prompt, to_prompt(g)),
        _product("BKXU,BKXH->BUKH", g_own, query),
        _product("BKXU,BKXH->BUKH", own, g),
    )
    inputs = (query, prompt_key, prompt_value, key, value)
    return *(found.astype(given.dtype) for found, given in zip(gradients, inputs)), None, None


_with_prefix.defvjp(_with_prefix_forward, _with_prefix_backward)


def _product(equation: str, one: Array, other: Array) -> Array:
    return jnp.einsum(equation, one, other, preferred_element_type=wide(one.dtype))


def _prefix_layouts(
    shape: tuple[int, ...], questions: int, groups: int
) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """Return how rows ``[B, K, U*G, .]`` become those of their prompts ``[Q, K, U*R*G, .]``, and the way back."""
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

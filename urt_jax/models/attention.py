"""The decoder's attention backends: a table of them with the mask features each supports; other masks are refused.

A backend attends over whole rows (``attend``) and over responses that share prompts (``extend``). Decoding one token
over a cache, and the towers' frames, always use "xla".
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from urt_jax.errors import unknown_choice
from urt_jax.models.once import once
from urt_jax.ops import attention, fused_attention
from urt_jax.ops.masking import segment_mask
from urt_jax.sharding.activations import current_mesh, split_tokens, token_parts
from urt_jax.sharding.rules import spec_of

CAUSAL, SEGMENTS, PREFIX = "causal", "segments", "shared prefix"
CACHED, FRAMES = "one token over a cache", "frames without order"
# (most query blocks, fewest tokens a block), for whole rows and for responses. On two CPU cores, blocks made an SFT
# step 17 % faster (urt-tiny, 4 blocks of 56) or 10 % (63 M parameters, 8 of 48), and a GRPO update 2 % (4 of 24).
ROW_BLOCKS, RESPONSE_BLOCKS = (8, 48), (4, 24)
Segments = tuple[Array, Array]  # of queries [B, T] and of keys [B, S]; 0 = padding


class Backend(NamedTuple):
    """An attention backend. Its mask is computed once for all layers, which pass it on without reading it."""

    features: tuple[str, ...]
    mask: Callable[[Array], Any]  # segments [B, T] -> this backend's form of the mask
    attend: Callable[..., Array]  # query [B, T, N, H], key and value [B, S, K, H], mask -> [B, T, N, H]
    extend: Callable[..., Array]  # as ``ops.attention.attend_with_prefix``; its last mask comes from ``mask``
    platform: str | None = None  # the only platform it runs on; None = all


def backend(name: str, *features: str) -> Backend:
    """Return the backend of this name, which must support all of these mask features.

    Raises:
        ValueError: no such backend, or it lacks a feature.
    """
    if name not in BACKENDS:
        raise ValueError(f"attention {unknown_choice(name, BACKENDS)}")
    found = BACKENDS[name]
    lacking = [feature for feature in features if feature not in found.features]
    if lacking:
        able = [other for other, entry in BACKENDS.items() if set(features) <= set(entry.features)]
        raise ValueError(
            f"attention {name!r} has no mask for: {', '.join(lacking)} (it has {', '.join(found.features)}); "
            f"choose {' or '.join(map(repr, able))}"
        )
    return found


def choose_attention(name: str, dtype: Any, *, sequence: int) -> str:
    """Return the backend's name for this machine's devices; "auto" is splash on a TPU whose mesh keeps rows whole.

    Raises:
        ValueError: no such backend, or one that these devices or this dtype cannot run.
    """
    platform = jax.default_backend()
    if name == "auto":
        return "splash" if platform == "tpu" and sequence == 1 else "xla"
    needed = backend(name, CAUSAL, SEGMENTS, PREFIX).platform
    if needed not in (None, platform):
        raise ValueError(f"{name!r} runs on a {needed} only, this is a {platform}; give 'auto' or 'xla'")
    if name == "cudnn":
        fused_attention.check_cudnn_dtype(dtype)
    return name


def _dense_mask(segments_BT: Array) -> Array:
    places = jnp.arange(segments_BT.shape[1])
    return split_tokens(once(lambda rows: jnp.asarray(segment_mask(rows, rows, places, places)), segments_BT))


def _blocks(query_BTNH: Array, most: int, smallest: int) -> int:
    """Return the number of query blocks; blocks skip much of what a causal mask hides."""
    return 1 if token_parts() > 1 else min(most, max(query_BTNH.shape[1] // smallest, 1))


def _attend(query_BTNH: Array, *others: Array) -> Array:
    return attention.attend_in_blocks(query_BTNH, *others, blocks=_blocks(query_BTNH, *ROW_BLOCKS))


def _extend(query_BUNH: Array, *others: Array) -> Array:
    return attention.attend_with_prefix(query_BUNH, *others, blocks=_blocks(query_BUNH, *RESPONSE_BLOCKS))


def token_step(backend: str, sequence: int) -> int:
    """Return what rows of tokens are padded to a multiple of, where ``sequence`` devices split them."""
    return 8 if backend != "splash" or sequence == 1 else sequence * fused_attention.LANES


def _joined(
    attend: Callable[..., Array],
    query_BUNH: Array,
    key_BUKH: Array,
    value_BUKH: Array,
    prompt_key_QKHS: Array,
    prompt_value_QKSH: Array,
    prompt_mask_QS: Array,
    own: Segments,
) -> Array:
    """Attend with each prompt concatenated to each of its responses, so a layer repeats its keys per response."""
    responses = query_BUNH.shape[0] // prompt_mask_QS.shape[0]

    def join(of_prompt: Array, of_row: Array) -> Array:
        return jnp.concatenate([jnp.repeat(of_prompt, responses, axis=0).astype(of_row.dtype), of_row], axis=1)

    key = join(prompt_key_QKHS.transpose(0, 3, 1, 2), key_BUKH)
    value = join(prompt_value_QKSH.swapaxes(1, 2), value_BUKH)
    return attend(query_BUNH, key, value, (own[0], join(prompt_mask_QS, own[1])))


def _splash(query: Array, key: Array, value: Array, segments: Segments) -> Array:
    """Run splash on rows padded on the left to whole lanes, so that the last query and key still share a position.

    Raises:
        ValueError: tokens that are split over devices, but not in whole lanes.
    """
    length, parts, lanes = query.shape[1], token_parts(), fused_attention.LANES
    if parts > 1 and length % (parts * lanes):
        raise ValueError(
            f"attention 'splash' splits rows over sequence={parts} devices in blocks of {lanes} tokens, so {length} "
            f"tokens are not a multiple of {parts * lanes}; pad rows to one, or choose attention 'xla'"
        )
    added, more_keys = -length % lanes, -key.shape[1] % lanes

    def padded(x: Array, places: int) -> Array:
        return jnp.pad(x, [(0, 0), (places, 0), *[(0, 0)] * (x.ndim - 2)]) if places else x

    rows = (padded(query, added), padded(key, more_keys), padded(value, more_keys))
    return _splash_on_mesh(*rows, padded(segments[0], added), padded(segments[1], more_keys))[:, added:]


def _splash_on_mesh(query: Array, key: Array, value: Array, of_queries: Array, of_keys: Array) -> Array:
    """Run the kernel in a ``shard_map`` over rows, heads and queries; the compiler cannot partition it."""
    shape, mesh = (query.shape[1], key.shape[1], query.shape[2]), current_mesh()
    if mesh is None:
        kernel = fused_attention.splash_kernel(*shape)
        return fused_attention.attend_splash(kernel, query, key, value, of_queries, of_keys)
    rows, tokens, heads = spec_of(("rows", "tokens", "heads"), (*query.shape[:2], key.shape[2]), mesh)
    shards = mesh.shape["tensor"] if heads else 1, mesh.shape["sequence"] if tokens else 1
    kernel = fused_attention.splash_kernel(*shape, *shards)
    places = kernel.manual_sharding_spec(NamedSharding(mesh, P(heads, tokens)))
    whole = P(rows, None, heads, None)
    return jax.shard_map(
        fused_attention.attend_splash,
        mesh=mesh,
        in_specs=(places, P(rows, tokens, heads, None), whole, whole, P(rows, tokens), P(rows, None)),
        out_specs=P(rows, tokens, heads, None),
        check_vma=False,
    )(kernel, query, key, value, of_queries, of_keys)


def _cudnn(query: Array, key: Array, value: Array, segments: Segments) -> Array:
    """Run cuDNN's kernel, which partitions itself over rows and heads.

    Raises:
        ValueError: tokens that are split over devices, or operands of a dtype that cuDNN does not support.
    """
    if token_parts() > 1:
        raise ValueError(
            f"attention 'cudnn' cannot split rows over sequence={token_parts()} devices; choose 'xla', or sequence=1"
        )
    return fused_attention.attend_cudnn(query, key, value, *segments)


def _both(segments_BT: Array) -> Segments:
    return segments_BT, segments_BT


BACKENDS: dict[str, Backend] = {
    "xla": Backend((CAUSAL, SEGMENTS, PREFIX, CACHED, FRAMES), _dense_mask, _attend, _extend),
    "splash": Backend((CAUSAL, SEGMENTS, PREFIX), _both, _splash, partial(_joined, _splash), "tpu"),
    "cudnn": Backend((CAUSAL, SEGMENTS, PREFIX), _both, _cudnn, partial(_joined, _cudnn), "gpu"),
}

"""Attention by fused kernels that never store the scores: splash on TPUs, cuDNN's flash attention on GPUs; both causal.

Both take a segment id for every query and key; a query sees keys of its own segment only. The last query and the last
key share a position, so query t sees keys up to ``t + S - T``.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jaxtyping import Float, Int

from urt_jax.ops.masking import segment_mask

LANES = 128  # lanes of a TPU: block sizes are multiples of it
BLOCKS = (512, 256, LANES)  # the largest that divides is used; the kernel's authors found 512 fastest
INTERPRETED = False  # True runs splash on any device, slowly: for tests


def splash_kernel(
    length: int, keys: int, heads: int, head_shards: int = 1, token_shards: int = 1
) -> splash.SplashAttentionKernel:
    """Return the kernel for ``length`` queries and ``keys`` keys, both multiples of ``LANES`` on every shard."""
    query, key = (next(b for b in BLOCKS if side % b == 0) for side in (length // token_shards, keys))
    sizes = splash.BlockSizes(query, key, key, query, key, key, query, key)
    causal = masks.MultiHeadMask([masks.CausalMask((length, keys), keys - length)] * heads)
    kernel: splash.SplashAttentionKernel = splash.make_splash_mha(
        causal, block_sizes=sizes, head_shards=head_shards, q_seq_shards=token_shards, interpret=INTERPRETED
    )
    return kernel


def attend_splash(
    kernel: splash.SplashAttentionKernel,
    query_BTNH: Float[Array, "B T N H"],
    key_BSKH: Float[Array, "B S K H"],
    value_BSKH: Float[Array, "B S K H"],
    query_segments_BT: Int[Array, "B T"],
    key_segments_BS: Int[Array, "B S"],
) -> Float[Array, "B T N H"]:
    """Return the attention of rows, computed by a ``splash_kernel`` of their shape; softmax in float32."""
    width = query_BTNH.shape[-1]
    scaled = (query_BTNH.astype(jnp.float32) * width**-0.5).astype(query_BTNH.dtype)

    def row(query_TNH: Array, key_SKH: Array, value_SKH: Array, segments_T: Array, segments_S: Array) -> Array:
        by_head = (x.swapaxes(0, 1) for x in (query_TNH, key_SKH, value_SKH))
        seen: Any = kernel(*by_head, splash.SegmentIds(segments_T, segments_S))
        swapped: Array = seen.swapaxes(0, 1)
        return swapped

    return jax.vmap(row)(scaled, key_BSKH, value_BSKH, query_segments_BT, key_segments_BS)


def check_cudnn_dtype(dtype: Any) -> None:
    """Raise a ``ValueError`` for a dtype that cuDNN's attention does not support."""
    if dtype not in (jnp.float16, jnp.bfloat16):
        raise ValueError(
            f"cuDNN's attention takes float16 and bfloat16, got {jnp.dtype(dtype)}; choose dtype bfloat16, or the "
            "attention 'xla'"
        )


def attend_cudnn(
    query_BTNH: Float[Array, "B T N H"],
    key_BSKH: Float[Array, "B S K H"],
    value_BSKH: Float[Array, "B S K H"],
    query_segments_BT: Int[Array, "B T"],
    key_segments_BS: Int[Array, "B S"],
) -> Float[Array, "B T N H"]:
    """Return the attention of rows, computed by cuDNN with an additive mask ``[B, T, S]`` shared by all heads.

    Raises:
        ValueError: operands that are neither float16 nor bfloat16.
    """
    check_cudnn_dtype(query_BTNH.dtype)
    length, keys = query_BTNH.shape[1], key_BSKH.shape[1]
    places = keys - length + jnp.arange(length)
    mask = segment_mask(query_segments_BT, key_segments_BS, places, jnp.arange(keys))
    return jax.nn.dot_product_attention(
        query_BTNH, key_BSKH, value_BSKH, mask=jnp.asarray(mask)[:, None], implementation="cudnn"
    )

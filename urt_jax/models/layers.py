"""Layers shared by the tower and the decoder."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from urt_jax.ops.precision import wide
from urt_jax.sharding.activations import token_parts

DType = jnp.dtype | type
ADAPTER_LEAVES = ("lora_a", "lora_b", "lora_scale")  # [D, r], [r, F] and alpha / r; stacked where the kernel is


class Linear(nn.Module):
    """``x @ kernel (+ bias)`` over the last axis, plus the LoRA term if the kernel has an adapter.

    The product accumulates in float32. Leading axes are flattened around it (twice as fast backward on CPU), unless a
    mesh splits the tokens of a row: flattened, a device's tokens would not be contiguous.
    """

    features: int
    use_bias: bool = False
    dtype: DType = jnp.float32
    param_dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*leading D"]) -> Float[Array, "*leading F"]:
        kernel = self.param(
            "kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.features), jnp.dtype(self.param_dtype)
        )
        flat = (x if token_parts() > 1 else x.reshape(-1, x.shape[-1])).astype(self.dtype)
        y = jnp.dot(flat, kernel.astype(self.dtype), preferred_element_type=wide(self.dtype))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.dtype(self.param_dtype))
            y = y + jnp.broadcast_to(bias.astype(y.dtype), y.shape)
        if self.has_variable("params", "lora_a"):
            y = y + self._adapted(flat)
        return y.astype(self.dtype).reshape(*x.shape[:-1], self.features)

    def _adapted(self, flat: Float[Array, "*X D"]) -> Float[Array, "*X F"]:
        """Return ``scale * (x @ A) @ B`` (LoRA, arXiv 2106.09685, equation 3); both products accumulate in float32."""
        leaves: list[Array] = [self.get_variable("params", name) for name in ADAPTER_LEAVES]
        lora_a, lora_b, scale = leaves
        inner = jnp.dot(flat, lora_a.astype(self.dtype), preferred_element_type=wide(self.dtype))
        outer = jnp.dot(inner.astype(self.dtype), lora_b.astype(self.dtype), preferred_element_type=wide(self.dtype))
        return scale * outer


class RMSNorm(nn.Module):
    """Root-mean-square normalisation in float32 (arXiv 1910.07467), scaled by a learned weight."""

    eps: float
    dtype: DType = jnp.float32
    param_dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*leading D"]) -> Float[Array, "*leading D"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.dtype(self.param_dtype))
        full = x.astype(wide(x.dtype))
        normed = full * jax.lax.rsqrt(jnp.mean(full**2, axis=-1, keepdims=True) + self.eps)
        return normed.astype(self.dtype) * jnp.broadcast_to(scale.astype(self.dtype), x.shape)


class LayerNorm(nn.Module):
    """Layer normalisation in float32 (arXiv 1607.06450) with a learned scale and bias."""

    eps: float
    dtype: DType = jnp.float32
    param_dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*leading D"]) -> Float[Array, "*leading D"]:
        shape, kind = (x.shape[-1],), jnp.dtype(self.param_dtype)
        scale = self.param("scale", nn.initializers.ones, shape, kind).astype(wide(x.dtype))
        bias = self.param("bias", nn.initializers.zeros, shape, kind).astype(wide(x.dtype))
        full = x.astype(wide(x.dtype))
        centred = full - jnp.mean(full, axis=-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + self.eps)
        return (normed * jnp.broadcast_to(scale, x.shape) + jnp.broadcast_to(bias, x.shape)).astype(self.dtype)


@jax.custom_vjp
def gated_silu(gate: Float[Array, "*leading F"], up: Float[Array, "*leading F"]) -> Float[Array, "*leading F"]:
    """Return ``silu(gate) * up``; its gradient is written out, which makes an MLP a third faster backward on CPU."""
    return nn.silu(gate) * up


def _gated_silu_forward(gate: Array, up: Array) -> tuple[Array, tuple[Array, Array]]:
    return gated_silu(gate, up), (gate, up)


def _gated_silu_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    gate, up = saved
    opened = nn.sigmoid(gate)
    return g * up * opened * (1.0 + gate * (1.0 - opened)), g * gate * opened


gated_silu.defvjp(_gated_silu_forward, _gated_silu_backward)


class GatedMLP(nn.Module):
    """``down(silu(gate(x)) * up(x))`` (SwiGLU, arXiv 2002.05202)."""

    feed_forward: int
    use_bias: bool = False
    dtype: DType = jnp.float32
    param_dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*leading D"]) -> Float[Array, "*leading D"]:
        def linear(features: int, name: str) -> Linear:
            return Linear(features, self.use_bias, self.dtype, self.param_dtype, name=name)

        gate, up = linear(self.feed_forward, "gate")(x), linear(self.feed_forward, "up")(x)
        return linear(x.shape[-1], "down")(gated_silu(gate, up))


class MLP(nn.Module):
    """``down(gelu(up(x)))`` with biases and the tanh form of GELU (arXiv 1606.08415)."""

    feed_forward: int
    dtype: DType = jnp.float32
    param_dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*leading D"]) -> Float[Array, "*leading D"]:
        hidden = Linear(self.feed_forward, True, self.dtype, self.param_dtype, name="up")(x)
        return Linear(x.shape[-1], True, self.dtype, self.param_dtype, name="down")(nn.gelu(hidden, approximate=True))


class Projector(nn.Module):
    """``output(gelu(input(x)))`` with the exact GELU: from the tower's features to the decoder's width."""

    inner: int
    out_width: int
    use_bias: bool = True
    dtype: DType = jnp.float32
    param_dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*leading D"]) -> Float[Array, "*leading F"]:
        kinds = (self.use_bias, self.dtype, self.param_dtype)
        hidden = nn.gelu(Linear(self.inner, *kinds, name="input")(x), approximate=False)
        return Linear(self.out_width, *kinds, name="output")(hidden)

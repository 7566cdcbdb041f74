"""Low-rank adapters as leaves of a parameter tree (LoRA, arXiv 2106.09685): removed, or merged into its kernels.

An adapted projection is ``{kernel, lora_a, lora_b, lora_scale}``: ``[.., D, F]``, ``[.., D, r]``, ``[.., r, F]`` and
``[..]``; the leading axis is the layers of a stacked kernel. ``layers.Linear`` applies an unmerged adapter.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from urt_jax.models.layers import ADAPTER_LEAVES

Params = dict[str, Any]


def without_adapters(params: Params) -> Params:
    """Return the tree without its adapters, that is the base weights."""
    flat = flatten_dict(params)
    base: dict[str, Any] = unflatten_dict({path: leaf for path, leaf in flat.items() if path[-1] not in ADAPTER_LEAVES})
    return base


def merge_adapters(params: Params, *, donate: bool = False) -> Params:
    """Return the equivalent tree without adapters: kernels are ``kernel + scale * A @ B``, summed in float32.

    Kernels keep their dtype and sharding, and numpy arrays stay on the host. ``donate`` donates the device buffers of
    the kernels of ``params``, so that no second copy is held.
    """
    flat = flatten_dict(params)
    merged = flatten_dict(without_adapters(params))
    for path in merged:
        adapter = [flat.get((*path[:-1], name)) for name in ADAPTER_LEAVES]
        if path[-1] == "kernel" and adapter[0] is not None:
            on_host = isinstance(merged[path], np.ndarray)
            merged[path] = _on_host(merged[path], adapter) if on_host else _placed(merged[path], adapter, donate)
    tree: dict[str, Any] = unflatten_dict(merged)
    return tree


def _on_host(kernel: np.ndarray, adapter: list[Any]) -> np.ndarray:
    lora_a, lora_b, scale = (np.asarray(leaf, np.float32) for leaf in adapter)
    out = np.empty_like(kernel)
    for layer in np.ndindex(kernel.shape[:-2]):  # () if not stacked
        out[layer] = kernel[layer].astype(np.float32) + scale[layer] * (lora_a[layer] @ lora_b[layer])
    return out


def _placed(kernel: Array, adapter: list[Any], donate: bool) -> Array:
    merge = jax.jit(_merge_layers, out_shardings=kernel.sharding, donate_argnums=0 if donate else ())
    merged: Array = merge(kernel, *adapter)
    return merged


def _merge_layers(*leaves: Array) -> Array:
    """Merge layer by layer, so that only one layer's kernel is held in float32."""

    def merge(layer: tuple[Array, ...]) -> Array:
        kernel, lora_a, lora_b, scale = layer
        product = jnp.dot(lora_a.astype(jnp.float32), lora_b.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)
        return (kernel.astype(jnp.float32) + scale * product).astype(kernel.dtype)

    return jax.lax.map(merge, leaves) if leaves[0].ndim == 3 else merge(leaves)

"""Layers with stacked weights, run by one scan, so that one body is compiled whatever the model's depth."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

REMAT_POLICIES: dict[str, Callable[..., Any] | None] = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def init_stacked(layer: nn.Module, count: int) -> Callable[..., Any]:
    """Return a parameter initialiser that stacks ``count`` independently initialised ``layer``s on axis 0."""

    def init(rng: Array, *inputs: Any) -> Any:
        return jax.vmap(lambda key: layer.init(key, *inputs)["params"])(jax.random.split(rng, count))

    return init


def stacked_param(module: nn.Module, name: str, layer: nn.Module, count: int, *probe: Any) -> Any:
    """Return the stacked weights that ``module`` stores under ``name``; initialise them if there are none.

    Existing weights are not checked here: each layer checks its own shapes when it is applied, and ``module.param``
    would reject an adapter's leaves beside the kernels.
    """
    if module.has_variable("params", name):
        return module.get_variable("params", name)
    return module.param(name, init_stacked(layer, count), *probe)


def unstacked(tree: Any, count: int) -> tuple[Any, ...]:
    """Split a tree stacked on the first axis of every leaf into the trees of its ``count`` layers."""
    return tuple(jax.tree.map(lambda leaf, layer=layer: leaf[layer], tree) for layer in range(count))


def stacked(layers: Sequence[Any]) -> Any:
    """Undo ``unstacked``."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)


def scan_layers(
    body: Callable[[Any, Any, Any], tuple[Any, Any]],
    x: Any,
    params: Any,
    per_layer: Any = None,
    *,
    remat: str = "none",
    unroll: int = 1,
    last: Callable[[Any, Any, Any], tuple[Any, Any]] | None = None,
) -> tuple[Any, Any]:
    """Run ``x, out = body(x, layer_params, layer_input)`` through all layers; return the last x and the stacked outs.

    ``remat`` names what is kept for the backward pass: "none" keeps everything, "dots" the matrix products, "full" only
    the layer inputs. ``last`` replaces the body of the last layer and may return an x of another shape. It is used only
    if all layers are unrolled: a loop reads its weights from one array, and slicing a layer off would copy all others.

    Raises:
        ValueError: unknown remat policy.
    """
    if remat not in REMAT_POLICIES:
        raise ValueError(f"remat is {remat!r}; known policies are {', '.join(REMAT_POLICIES)}")

    def kept(body: Callable[..., Any]) -> Callable[..., Any]:
        return body if remat == "none" else jax.checkpoint(body, policy=REMAT_POLICIES[remat], prevent_cse=False)

    def scanned(inputs: Any) -> tuple[Any, Any]:
        return jax.lax.scan(lambda carry, xs: kept(body)(carry, *xs), x, inputs, unroll=unroll)

    inputs = (params, per_layer)
    if last is None or unroll < len(jax.tree.leaves(params)[0]):
        return scanned(inputs)
    x, outs = scanned(jax.tree.map(lambda leaf: leaf[:-1], inputs))
    x, out = kept(last)(x, *jax.tree.map(lambda leaf: leaf[-1], inputs))
    return x, jax.tree.map(lambda first, end: jnp.concatenate([first, end[None]]), outs, out)

"""Layers with stacked weights, run by one scan: one body to compile however deep the model is."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax import Array

REMAT_POLICIES: dict[str, Callable[..., Any] | None] = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def init_stacked(layer: nn.Module, count: int) -> Callable[..., Any]:
    """Return a parameter initialiser that stacks ``count`` independently drawn copies of ``layer`` on axis 0."""

    def init(rng: Array, *inputs: Any) -> Any:
        return jax.vmap(lambda key: layer.init(key, *inputs)["params"])(jax.random.split(rng, count))

    return init


def stacked_param(module: nn.Module, name: str, layer: nn.Module, count: int, *probe: Any) -> Any:
    """Return the stacked weights that ``module`` keeps under ``name``, drawn where it has none yet.

    Given weights are taken as they are: each layer checks the shapes of its own when it is applied, and adapters may
    stand beside its kernels, which ``module.param`` would count as leaves out of place.
    """
    if module.has_variable("params", name):
        return module.get_variable("params", name)
    return module.param(name, init_stacked(layer, count), *probe)


def unstacked(tree: Any, count: int) -> tuple[Any, ...]:
    """Return the trees of ``count`` layers that are stacked on the first axis of every leaf."""
    return tuple(jax.tree.map(lambda leaf, layer=layer: leaf[layer], tree) for layer in range(count))


def scan_layers(
    body: Callable[[Any, Any, Any], tuple[Any, Any]],
    x: Any,
    params: Any,
    per_layer: Any = None,
    *,
    remat: str = "none",
    unroll: int = 1,
) -> tuple[Any, Any]:
    """Run ``x, out = body(x, layer_params, layer_input)`` through all layers; return the last x and the stacked outs.

    ``remat`` names what the backward pass keeps: "none" keeps everything, "dots" the matrix products, "full" only the
    layer inputs.

    Raises:
        ValueError: unknown remat policy.
    """
    if remat not in REMAT_POLICIES:
        raise ValueError(f"remat is {remat!r}; known policies are {', '.join(REMAT_POLICIES)}")
    if remat != "none":
        body = jax.checkpoint(body, policy=REMAT_POLICIES[remat], prevent_cse=False)
    return jax.lax.scan(lambda carry, xs: body(carry, *xs), x, (params, per_layer), unroll=unroll)

"""New low-rank adapters (LoRA, arXiv 2106.09685), and the pattern of their trained leaves."""

import math
import re
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from urt_jax.errors import BadInputError
from urt_jax.models.layers import ADAPTER_LEAVES
from urt_jax.training.state import Params

ADAPTER_PATTERNS = (r"/lora_[ab]$",)  # for ``state.split_params``; without the scale, which is a constant


def add_adapters(params: Params, *, rank: int, alpha: float, targets: Sequence[str], rng: Array) -> Params:
    """Return the tree with a float32 adapter beside every kernel whose ``a/b/c`` path matches a target pattern.

    A is drawn uniformly within ``1 / sqrt(D)``, as in PEFT, and B is 0: the model's outputs stay the same. An adapter
    depends on ``rng`` and its kernel's path, not on the other adapters. The scale is ``alpha / rank``. Source: arXiv
    2106.09685, section 4.1.

    Raises:
        BadInputError: a pattern matches no projection (the message lists them), or the tree has adapters already. The
            tower's ``patch_embed`` is not a projection: it is a convolution in the published layouts.
    """
    flat = flatten_dict(params, sep="/")
    there = [path for path in flat if path.rsplit("/", 1)[-1] in ADAPTER_LEAVES]
    if there:
        raise BadInputError(f"the weights have adapters already ({there[0]}); merge them before new ones are added")
    added: dict[str, Any] = {}
    for path in _matching([path for path in flat if re.search(r"(?<!patch_embed)/kernel$", path)], targets):
        key = jax.random.fold_in(rng, np.uint32(zlib.crc32(path.encode())))
        *stack, inner, outer = flat[path].shape
        bound = 1.0 / math.sqrt(inner)
        leaves = (
            jax.random.uniform(key, (*stack, inner, rank), jnp.float32, -bound, bound),
            jnp.zeros((*stack, rank, outer), jnp.float32),
            jnp.full(stack, alpha / rank, jnp.float32),
        )
        room = path.removesuffix("kernel")
        added |= {room + name: leaf for name, leaf in zip(ADAPTER_LEAVES, leaves)}
    return unflatten_dict({**flat, **added}, sep="/")


def _matching(kernels: Sequence[str], targets: Sequence[str]) -> list[str]:
    idle = [pattern for pattern in targets if not any(re.search(pattern, path) for path in kernels)]
    if idle or not targets:
        raise BadInputError(f"lora targets {idle} match no projection; the projections are: {', '.join(kernels)}")
    return [path for path in kernels if any(re.search(pattern, path) for pattern in targets)]

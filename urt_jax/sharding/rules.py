"""Which axis of which array lies on which mesh axis, as one short ordered table."""

import re
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

PyTree = Any

# The first rule whose pattern is found in a parameter's path wins. A spec counts from the *last* axis, so that stacked
# layers [L, ...] and optimizer moments fall under the rule of the plain parameter. Products are split over `tensor`
# along their inner width (out of the first matrix, into the second), which needs one sum a block; the other axis lies
# on `fsdp`. Adapters (lora_a, lora_b) are split along the same widths and whole along their rank. Norms and the biases
# that are added after that sum lie whole everywhere.
RULES: tuple[tuple[str, P], ...] = (
    (r"(^|/)(embedding|head)$", P("tensor", "fsdp")),  # [V, D]
    (r"(^|/)(o|proj|down|output)/kernel$", P("tensor", "fsdp")),  # [inner, D]
    (r"(^|/)(o|proj|down|output)/lora_a$", P("tensor", None)),  # [inner, r]
    (r"(^|/)(o|proj|down|output)/lora_b$", P(None, "fsdp")),  # [r, D]
    (r"/kernel$", P("fsdp", "tensor")),  # [D, inner]: q k v qkv gate up input patch_embed
    (r"/lora_a$", P("fsdp", None)),  # [D, r]
    (r"/lora_b$", P(None, "tensor")),  # [r, inner]
    (r"(^|/)(q|k|v|qkv|gate|up|input)/bias$", P("tensor")),  # [inner]
    (r"", P()),
)


def spec_for(path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> P:
    """Return the spec of one array; mesh axes that do not divide their array axis are dropped."""
    rule = next(spec for pattern, spec in RULES if re.search(pattern, path))
    if len(rule) > len(shape):
        return P()
    axes = (None,) * (len(shape) - len(rule)) + tuple(rule)
    kept = [axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(axes, shape, strict=True)]
    return P(*kept)


def shardings_for(tree: PyTree, mesh: Mesh) -> PyTree:
    """Return a tree of ``NamedSharding`` for parameters or a whole state (arrays or shapes)."""

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, spec_for(name, tuple(np.shape(leaf)), mesh))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def batch_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Return the sharding of data whose rows lie along ``axis``: split over ``data`` and ``fsdp`` together."""
    return NamedSharding(mesh, P(*(None,) * axis, ("data", "fsdp")))

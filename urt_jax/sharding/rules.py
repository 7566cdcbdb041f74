"""The sharding rules: a table from logical axes to mesh axes, and a table of the logical axes of weights."""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

PyTree = Any

# Logical axis -> mesh axes. Of the entries of one name, the first whose device count divides the axis is used; if there
# is none the axis is not split. Products are split over `tensor` along their inner width (output of the first matrix,
# input of the second), which needs one sum per block. A row's tokens are split over `sequence`; attention gathers keys
# and values.
MESH_AXES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("rows", ("data", "fsdp")),  # of a batch: sequences, responses, caches
    ("frames", ("data", "fsdp", "sequence")),  # of the tower, which encodes each frame alone
    ("frames", ("data", "fsdp")),
    ("tokens", ("sequence",)),  # of a row; slots of a prompt's cache
    ("heads", ("tensor",)),  # of keys and values
    ("inner", ("tensor",)),  # heads x width, feed-forward
    ("vocabulary", ("tensor",)),
    ("width", ("fsdp", "sequence")),  # of the model, in weights and optimizer; activations do not split it
    ("width", ("fsdp",)),
)

# The logical axes of a parameter's last axes; the first rule whose pattern is found in its path wins. Rules count from
# the *last* axis, so stacked layers [L, ...] and optimizer moments follow the rule of the plain parameter. An adapter's
# rank (None), norms, and biases that are added after the sum over `tensor` are replicated.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"(^|/)(embedding|head)$", ("vocabulary", "width")),
    (r"(^|/)(o|proj|down|output)/kernel$", ("inner", "width")),
    (r"(^|/)(o|proj|down|output)/lora_a$", ("inner", None)),
    (r"(^|/)(o|proj|down|output)/lora_b$", (None, "width")),
    (r"/kernel$", ("width", "inner")),  # q k v qkv gate up input patch_embed
    (r"/lora_a$", ("width", None)),
    (r"/lora_b$", (None, "inner")),
    (r"(^|/)(q|k|v|qkv|gate|up|input)/bias$", ("inner",)),
    (r"", ()),
)


def mesh_axes(logical: str | None, size: int, mesh: Mesh | AbstractMesh) -> tuple[str, ...]:
    """Return the mesh axes that split an array axis of this name and size, without mesh axes of one device."""
    for name, axes in MESH_AXES:
        if name == logical and size and size % math.prod(mesh.shape[axis] for axis in axes) == 0:
            return tuple(axis for axis in axes if mesh.shape[axis] > 1)
    return ()


def spec_of(logical: Sequence[str | None], shape: Sequence[int], mesh: Mesh | AbstractMesh) -> P:
    """Return the spec of an array whose axes have these logical names, None = not split."""
    found = [mesh_axes(name, size, mesh) for name, size in zip(logical, shape, strict=True)]
    return P(*(axes[0] if len(axes) == 1 else axes or None for axes in found))


def is_matrix(path: str) -> bool:
    """Return whether a parameter is a matrix or an embedding, used in the dtype of the computation."""
    return "width" in _axis_names(path)


def spec_for(path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh, *, whole: Sequence[str] = ()) -> P:
    """Return the spec of one parameter, or of its moments; axes named in ``whole`` are not split."""
    names = tuple(None if name in whole else name for name in _axis_names(path))
    if len(names) > len(shape):
        return P()
    return spec_of((None,) * (len(shape) - len(names)) + names, shape, mesh)


def _axis_names(path: str) -> tuple[str | None, ...]:
    return next(names for pattern, names in RULES if re.search(pattern, path))


def name_of(path: tuple[Any, ...]) -> str:
    """Return the name of a tree's leaf that the rules match."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def shardings_for(tree: PyTree, mesh: Mesh, *, whole: Sequence[str] = ()) -> PyTree:
    """Return a tree of ``NamedSharding`` for parameters or a whole state (arrays or shapes), as ``spec_for``."""

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, spec_for(name_of(path), tuple(np.shape(leaf)), mesh, whole=whole))

    return jax.tree_util.tree_map_with_path(sharding, tree)

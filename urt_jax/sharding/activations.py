"""Sharding constraints on activations: each device keeps its own rows through all layers of a program.

Without them the compiler may leave sharded weights in place and gather the activations, which are far larger, so that
every device would hold all rows.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P

from urt_jax.sharding.rules import mesh_axes
from urt_jax.types import Array


def with_mesh(program: Callable[..., Any], mesh: Mesh | None) -> Callable[..., Any]:
    """Return a program that is traced under the mesh, which ``split_rows`` then uses; without a mesh, the program."""
    if mesh is None:
        return program

    @wraps(program)
    def on_mesh(*inputs: Any, **settings: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return program(*inputs, **settings)

    return on_mesh


def compiled_ahead(program: Any, mesh: Mesh | None) -> Callable[..., Any]:
    """Return a function that compiles a jitted program for given inputs and returns the shapes of its results.

    Nothing runs. A later call of the program with inputs of those shapes and shardings finds it compiled.
    """

    def ahead(*inputs: Any, **fixed: Any) -> Any:
        lowered = with_mesh(program.lower, mesh)(*inputs, **fixed)
        places = lowered.compile().output_shardings
        return jax.tree.map(
            lambda out, place: jax.ShapeDtypeStruct(out.shape, out.dtype, sharding=place), lowered.out_info, places
        )

    return ahead


def current_mesh() -> AbstractMesh | None:
    """Return the mesh of the program being traced; None outside ``with_mesh``, and on a single device."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or mesh.size == 1 else mesh


def row_parts() -> int:
    """Return the number of devices that rows are split over; 1 outside ``with_mesh``."""
    mesh = current_mesh()
    return 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]


def token_parts() -> int:
    """Return the number of devices that the tokens of a row are split over; 1 outside ``with_mesh``."""
    mesh = current_mesh()
    return 1 if mesh is None else mesh.shape["sequence"]


def on_one_device() -> bool:
    """Return whether the program runs on one device, where a branch cannot split devices that share a collective."""
    return current_mesh() is None


def pinned(x: jax.Array, *logical: str | None, whole: int | None = None) -> jax.Array:
    """Constrain the sharding of an array's first axes by their logical names, and keep axis ``whole`` gathered.

    The compiler shards the other axes, and those that do not divide. Does nothing on a single device.
    """
    mesh = current_mesh()
    if mesh is None:
        return x
    names = (*logical, *(None,) * (x.ndim - len(logical)))
    axes: list[Any] = [mesh_axes(name, size, mesh) or P.UNCONSTRAINED for name, size in zip(names, x.shape)]
    if whole is not None:
        axes[whole] = None
    free = all(axis is P.UNCONSTRAINED for axis in axes)
    return x if free else jax.lax.with_sharding_constraint(x, P(*axes))


def split_rows(x: jax.Array, axis: int = 0) -> jax.Array:
    """Keep the rows along ``axis`` split over ``data`` and ``fsdp``; the compiler places the other axes.

    Does nothing outside ``with_mesh``, on a single device, and where the rows cannot be split evenly.
    """
    return pinned(x, *(None,) * axis, "rows")


def split_tokens(x_BTX: jax.Array) -> jax.Array:
    """Keep rows split as ``split_rows`` does, and the tokens of each row split over ``sequence``.

    Raises:
        ValueError: the tokens cannot be split evenly.
    """
    tokens, parts = x_BTX.shape[1], token_parts()
    if tokens % parts:
        raise ValueError(
            f"rows of {tokens} tokens cannot be split over sequence={parts} devices; pad them to a multiple of {parts} "
            "(of a stage: lengths and buckets), or give the mesh another sequence axis"
        )
    return pinned(x_BTX, "rows", "tokens")


def gather_tokens(x_BTX: jax.Array, *trailing: str) -> jax.Array:
    """Gather the tokens of each row, split before by ``split_tokens``; the rows stay split.

    ``trailing`` names the axes after the tokens. Does nothing where tokens are not split.
    """
    return x_BTX if token_parts() == 1 else pinned(x_BTX, "rows", None, *trailing, whole=1)


def tokens_as_rows(x_BTX: jax.Array) -> jax.Array:
    """Return ``[parts * B, T / parts, ...]``: each device's tokens of a row become a row; no data moves.

    The parts are the outer index, so that the new rows of a device are contiguous.
    """
    rows, tokens, parts = *x_BTX.shape[:2], token_parts()
    if parts == 1:
        return x_BTX
    apart = x_BTX.reshape(rows, parts, tokens // parts, *x_BTX.shape[2:]).swapaxes(0, 1)
    return pinned(apart, "tokens", "rows").reshape(parts * rows, tokens // parts, *x_BTX.shape[2:])


def rows_as_tokens(x: Array) -> jax.Array:
    """Undo ``tokens_as_rows``."""
    x, parts = jnp.asarray(x), token_parts()
    if parts == 1:
        return x
    apart = pinned(x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), "tokens", "rows").swapaxes(0, 1)
    return apart.reshape(x.shape[0] // parts, parts * x.shape[1], *x.shape[2:])


def gather_columns(matrix_VD: jax.Array) -> jax.Array:
    """Gather the width of an output matrix once, before a loop over it; the vocabulary stays split over ``tensor``.

    Does nothing outside ``with_mesh``.
    """
    return matrix_VD if row_parts() * token_parts() == 1 else pinned(matrix_VD, whole=1)

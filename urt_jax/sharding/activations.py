"""Where the rows of a batch lie inside a program: on the devices that were given them, through all layers.

Nothing else says it: the compiler, left alone, may keep split weights where they are and move the activations instead,
which are far larger, and every device then holds all rows.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P


def with_mesh(program: Callable[..., Any], mesh: Mesh | None) -> Callable[..., Any]:
    """Return the program in whose trace ``split_rows`` knows the mesh; without one, the program itself."""
    if mesh is None:
        return program

    @wraps(program)
    def on_mesh(*inputs: Any, **settings: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return program(*inputs, **settings)

    return on_mesh


def row_parts() -> int:
    """Return over how many devices rows are split; 1 outside ``with_mesh``."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape["data"] * mesh.shape["fsdp"]


def on_one_device() -> bool:
    """Return whether the program has one device, so that a branch in it can part no devices that meet in a sum."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or mesh.size == 1


def split_rows(x: jax.Array, axis: int = 0) -> jax.Array:
    """Keep the rows along ``axis`` split over ``data`` and ``fsdp``; the compiler places the other axes.

    Does nothing outside ``with_mesh``, on a single device, and where the rows cannot be split evenly.
    """
    parts = row_parts()
    if parts == 1 or x.shape[axis] % parts:
        return x
    free = P.UNCONSTRAINED
    spec = P(*(("data", "fsdp") if number == axis else free for number in range(x.ndim)))
    return jax.lax.with_sharding_constraint(x, spec)


def gather_columns(matrix_VD: jax.Array) -> jax.Array:
    """Gather the ``fsdp`` axis of an output matrix once, for a loop that goes over it; rows stay split over ``tensor``.

    Does nothing outside ``with_mesh``.
    """
    if row_parts() == 1:
        return matrix_VD
    return jax.lax.with_sharding_constraint(matrix_VD, P(P.UNCONSTRAINED, None))

"""Putting host trees on the mesh: rows split over the data axes, states by the table of rules."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from urt_jax.sharding.rules import mesh_axes, shardings_for
from urt_jax.types import VisionInput


def place_rows(mesh: Mesh | None, tree: Any) -> Any:
    """Put host arrays on the mesh with their first axis split over the data axes; what does not divide lies whole.

    ``Batch.positions_3BT`` has its rows on the second axis, frames are split further (``rules.MESH_AXES``), and scalars
    have no rows. Without a mesh everything goes to the default device.
    """
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)

    def put(path: tuple[Any, ...], leaf: Any) -> jax.Array:
        name = getattr(path[-1], "name", "") if path else ""
        axis, rows = int(name == "positions_3BT"), "frames" if name in VisionInput._fields else "rows"
        return jax.device_put(leaf, row_sharding(mesh, np.shape(leaf), axis, rows))

    return jax.tree_util.tree_map_with_path(put, tree)


def row_sharding(mesh: Mesh, shape: tuple[int, ...], axis: int = 0, rows: str = "rows") -> NamedSharding:
    """Return where an array with rows (or frames) along ``axis`` lies: split over the data axes, or whole."""
    axes = mesh_axes(rows, shape[axis], mesh) if len(shape) > axis else ()
    return NamedSharding(mesh, P(*(None,) * axis, axes) if axes else P())


def place_state(mesh: Mesh, tree: Any) -> Any:
    """Put parameters or a whole state on the mesh by the sharding table, in one transfer a leaf.

    What lies there already is not copied: a step that takes the state over uses up such arrays too.
    """
    return jax.device_put(tree, shardings_for(tree, mesh))


def mesh_of(params: Any) -> Mesh | None:
    """Return the mesh that a parameter tree was placed on, or None for host arrays and a single device's."""
    sharding = getattr(jax.tree.leaves(params)[0], "sharding", None)
    return sharding.mesh if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh) else None

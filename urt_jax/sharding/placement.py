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


def rows_everywhere(mesh: Mesh | None, params: Any, rows: int) -> tuple[Mesh | None, Any]:
    """Return the mesh and parameters for work that cannot split a row, as decoding: ``sequence`` counts as ``fsdp``.

    Rows are then split over all these devices, and weights lie as they did and are not copied. Does nothing where the
    rows do not divide so.
    """
    if mesh is None or mesh.shape["sequence"] == 1 or rows % (mesh.size // mesh.shape["tensor"]):
        return mesh, params
    data, fsdp, sequence, tensor = mesh.devices.shape
    # Not by ``make_mesh``, which may put the devices of a TPU in another order.
    other = Mesh(mesh.devices.reshape(data, fsdp * sequence, 1, tensor), mesh.axis_names, axis_types=mesh.axis_types)

    def place(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
        if not leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
            return jax.device_put(leaf, sharding)
        parts = [shard.data for shard in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, sharding, parts)

    return other, jax.tree.map(place, params, shardings_for(params, other))


def mesh_of(params: Any) -> Mesh | None:
    """Return the mesh that a parameter tree was placed on, or None for host arrays and a single device's."""
    sharding = getattr(jax.tree.leaves(params)[0], "sharding", None)
    return sharding.mesh if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh) else None

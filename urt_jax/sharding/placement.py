"""Transfer of trees between host and mesh: rows split over the data axes, states by the table of rules.

Where the mesh spans several processes, each transfers the rows of its own share (see ``shares``).
"""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from urt_jax.sharding.rules import is_matrix, mesh_axes, name_of, shardings_for
from urt_jax.sharding.shares import Share, share_of
from urt_jax.types import VisionFeatures, VisionInput


def place_rows(mesh: Mesh | None, tree: Any) -> Any:
    """Put host arrays on the mesh, the first axis split over the data axes, or replicated if it does not divide.

    ``Batch.positions_3BT`` has its rows on the second axis, frames and their features are split further
    (``rules.MESH_AXES``), and scalars have no rows. Without a mesh everything goes to the default device. With several
    processes, each passes its own rows, all the same number.

    Raises:
        ValueError: the rows of one of several processes do not divide by its devices.
    """
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    share = share_of(mesh)

    def put(path: tuple[Any, ...], leaf: Any) -> jax.Array:
        name = getattr(path[-1], "name", "") if path else ""
        axis = int(name in ("positions_3BT", "deep_KED", "newline_D"))  # newline_D has one axis and no rows
        rows = "frames" if name in VisionInput._fields + VisionFeatures._fields else "rows"
        if share.spans:
            return _put_share(mesh, share, np.asarray(leaf), axis, rows)
        return jax.device_put(leaf, row_sharding(mesh, np.shape(leaf), axis, rows))

    return jax.tree_util.tree_map_with_path(put, tree)


def row_sharding(mesh: Mesh, shape: tuple[int, ...], axis: int = 0, rows: str = "rows") -> NamedSharding:
    """Return the sharding of an array with rows (or frames) along ``axis``: split over the data axes, or replicated."""
    axes = mesh_axes(rows, shape[axis], mesh) if len(shape) > axis else ()
    return NamedSharding(mesh, P(*(None,) * axis, axes) if axes else P())


def own_rows(mesh: Mesh | None, tree: Any) -> Any:
    """Return rows on the mesh as host arrays, split along the first axis: each process gets its own rows."""
    share = share_of(mesh)
    if mesh is None or not share.spans:
        return jax.tree.map(np.asarray, tree)

    def get(leaf: jax.Array) -> np.ndarray:
        if not leaf.ndim:
            return np.asarray(leaf)
        parts = {shard.index[0].start or 0: shard.data for shard in leaf.addressable_shards}
        size = leaf.shape[0] // len(share.order)
        return np.concatenate([np.asarray(parts[part * size]) for part in share.parts])

    return jax.tree.map(get, _moved(NamedSharding(mesh, P(("data", "fsdp"))), NamedSharding(mesh, P()))(tree))


def all_rows(mesh: Mesh | None, tree: Any) -> Any:
    """Gather the rows that each process holds into host arrays of all rows, ordered by share."""
    share = share_of(mesh)
    if mesh is None or not share.spans:
        return jax.tree.map(np.asarray, tree)
    whole = NamedSharding(mesh, P())

    def ordered(leaf: Any) -> np.ndarray:
        rows = np.asarray(leaf).reshape(len(share.order), -1, *leaf.shape[1:])
        return rows[list(share.order)].reshape(leaf.shape)

    return jax.tree.map(ordered, _moved(whole, whole)(place_rows(mesh, tree)))


def place_state(mesh: Mesh, tree: Any) -> Any:
    """Put parameters or a whole state on the mesh by the table of rules, in one transfer per leaf.

    Arrays already in place are not copied, so a step that donates the state donates them too. Where the mesh spans
    several processes, each has the same tree and puts the shards of its own devices.
    """
    shardings = shardings_for(tree, mesh)
    if not share_of(mesh).spans:
        return jax.device_put(tree, shardings)

    def put(leaf: Any, sharding: NamedSharding) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(put, tree, shardings)


def on_host(tree: Any) -> Any:
    """Return a tree of arrays as whole host arrays on every process, gathered leaf by leaf."""

    def get(leaf: Any) -> np.ndarray:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
            return np.asarray(leaf)
        mesh = mesh_of(leaf)
        assert mesh is not None
        whole = NamedSharding(mesh, P())
        return np.asarray(_moved(whole, whole)(leaf))

    return jax.tree.map(get, tree)


def rows_everywhere(mesh: Mesh | None, params: Any, rows: int) -> tuple[Mesh | None, Any]:
    """Return mesh and parameters for work that cannot split a row, such as decoding: ``sequence`` joins ``fsdp``.

    Rows are then split over the devices of both axes; the weights are not moved or copied. Returns its inputs if the
    rows do not divide by those devices.
    """
    if mesh is None or mesh.shape["sequence"] == 1 or rows % (mesh.size // mesh.shape["tensor"]):
        return mesh, params
    data, fsdp, sequence, tensor = mesh.devices.shape
    # ``make_mesh`` is not used: it may order a TPU's devices differently.
    other = Mesh(mesh.devices.reshape(data, fsdp * sequence, 1, tensor), mesh.axis_names, axis_types=mesh.axis_types)

    def place(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
        if not leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
            return jax.device_put(leaf, sharding)
        parts = [shard.data for shard in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, sharding, parts)

    return other, jax.tree.map(place, params, shardings_for(params, other))


def for_sampling(mesh: Mesh | None, params: Any, dtype: Any) -> Any | None:
    """Return a jitted cast-and-gather of the weights for decoding, or None if they already have that form.

    It casts matrices to the dtype of the computation and gathers them over ``fsdp`` and ``sequence``; they stay split
    over ``tensor``. Otherwise decoding would gather all of them for every token, and read them in the wider dtype.
    Weights that are used in a wider dtype keep it, so results do not change.
    """
    wanted = sampling_shapes(mesh, params, dtype)
    if all(
        leaf.dtype == shape.dtype and (mesh is None or leaf.sharding.is_equivalent_to(shape.sharding, leaf.ndim))
        for leaf, shape in zip(jax.tree.leaves(params), jax.tree.leaves(wanted))
    ):
        return None
    return _for_sampling(mesh, jnp.dtype(dtype))


def sampling_shapes(mesh: Mesh | None, params: Any, dtype: Any) -> Any:
    """Return the shapes, dtypes and shardings of the weights that ``for_sampling`` returns."""

    def shape(path: tuple[Any, ...], leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, dtype if is_matrix(name_of(path)) else leaf.dtype)

    def placed(shape: jax.ShapeDtypeStruct, place: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=place)

    shapes = jax.tree_util.tree_map_with_path(shape, params)
    return shapes if mesh is None else jax.tree.map(placed, shapes, shardings_for(params, mesh, whole=("width",)))


def mesh_of(params: Any) -> Mesh | None:
    """Return the mesh of a parameter tree, or None for arrays on the host or on a single device."""
    sharding = getattr(jax.tree.leaves(params)[0], "sharding", None)
    return sharding.mesh if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh) else None


def _put_share(mesh: Mesh, share: Share, host: np.ndarray, axis: int, rows: str) -> jax.Array:
    """Put the rows (or frames) of this process into the global array."""
    if host.ndim <= axis or not host.shape[axis]:
        return jax.make_array_from_callback(host.shape, NamedSharding(mesh, P()), lambda index: host[index])
    if host.shape[axis] % len(share.parts):
        raise ValueError(
            f"{host.shape[axis]} rows of one process do not divide by the {len(share.parts)} parts it holds; pad them"
        )
    size = host.shape[axis] // len(share.parts)
    shape = (*host.shape[:axis], size * len(share.order), *host.shape[axis + 1 :])

    def piece(index: Any) -> np.ndarray:
        start, stop, _ = index[axis].indices(shape[axis])
        if stop - start > size:  # all parts, which this process then holds
            return host[index]
        own = share.parts.index(start // size) * size + start % size
        return host[(*index[:axis], slice(own, own + stop - start), *index[axis + 1 :])]

    return jax.make_array_from_callback(shape, row_sharding(mesh, shape, axis, rows), piece)


@lru_cache(16)
def _for_sampling(mesh: Mesh | None, dtype: Any) -> Any:
    """Return the program of ``for_sampling``: it casts before it gathers, so that fewer bytes move."""

    def gather_weights(params: Any) -> Any:
        wanted = sampling_shapes(mesh, params, dtype)
        cast = jax.tree.map(lambda leaf, shape: leaf.astype(shape.dtype), params, wanted)
        if mesh is None:
            return cast
        cast = jax.lax.with_sharding_constraint(cast, shardings_for(params, mesh))
        return jax.lax.with_sharding_constraint(cast, jax.tree.map(lambda shape: shape.sharding, wanted))

    return jax.jit(gather_weights)


@lru_cache(16)
def _moved(rows: NamedSharding, scalars: NamedSharding) -> Any:
    """Return the jitted program that reshards a tree's arrays."""

    def move(tree: Any) -> Any:
        return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, rows if x.ndim else scalars), tree)

    return jax.jit(move)

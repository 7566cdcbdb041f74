"""Parameters that go to another division of the same devices stay where they are."""

import jax
import numpy as np

from tests.tiny import tiny_params
from urt_jax.sharding.mesh import make_mesh
from urt_jax.sharding.placement import mesh_of, place_rows, place_state, rows_everywhere
from urt_jax.types import VisionFeatures


def pointers(tree: object) -> list[int]:
    return [shard.data.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree) for shard in leaf.addressable_shards]


def test_decoding_splits_rows_over_the_sequence_axis_and_copies_no_weights() -> None:
    mesh = make_mesh(1, 2, 2, 2)
    params = place_state(mesh, {"decoder": tiny_params()["decoder"]})
    other, moved = rows_everywhere(mesh, params, 8)
    assert other is not None
    assert dict(other.shape) == {"data": 1, "fsdp": 4, "sequence": 1, "tensor": 2}
    assert mesh_of(moved) == other
    assert pointers(moved) == pointers(params)
    jax.tree.map(np.testing.assert_array_equal, moved, params)


def test_rows_that_do_not_divide_stay_on_their_mesh() -> None:
    mesh, params = make_mesh(2, 1, 1, 4), {"weight": np.zeros(8)}
    assert rows_everywhere(mesh, params, 4) == (mesh, params)
    assert rows_everywhere(make_mesh(8), params, 8)[1] is params
    assert rows_everywhere(None, params, 8) == (None, params)


def test_features_lie_where_their_frames_do() -> None:
    features = VisionFeatures(np.zeros((16, 8)), np.zeros((4, 16, 8)), np.zeros(8))  # type: ignore[arg-type]
    merged, deep, newline = place_rows(make_mesh(data=2, fsdp=2, sequence=2), features)
    assert [x.sharding.shard_shape(x.shape) for x in (merged, deep, newline)] == [(2, 8), (4, 2, 8), (8,)]

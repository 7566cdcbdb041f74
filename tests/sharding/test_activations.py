"""Inside a compiled step the batch stays split: weights travel, rows do not."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import MODEL
from tests.training.tiny_training import GRPO, PLAIN, SUPPRESSED, fresh_state, grpo_batch, sft_batch
from urt_jax.sharding.activations import gather_columns, row_parts, split_rows, with_mesh
from urt_jax.sharding.mesh import make_mesh
from urt_jax.sharding.placement import place_rows
from urt_jax.training.compile import compile_grpo_step, compile_sft_step

MOVED = re.compile(r"= (?:f32|bf16)\[([\d,]+)\]\S* (?:all-reduce|all-gather|reduce-scatter)\(")


def largest_moved(compiled: Any) -> int:
    """Return the entries of the largest float array that one collective of the program gives."""
    shapes = [[int(side) for side in found.split(",")] for found in MOVED.findall(compiled.as_text())]
    return max((int(np.prod(shape)) for shape in shapes), default=0)


def repeated(tree: Any, times: int) -> Any:
    """Return a batch with its rows (and frames) several times: enough to outgrow the weights of the tiny model."""

    def more(path: Any, leaf: Any) -> Any:
        name = getattr(path[-1], "name", "") if path else ""
        axis = 1 if name == "positions_3BT" else 0
        return leaf if np.ndim(leaf) == 0 else np.concatenate([np.asarray(leaf)] * times, axis)

    return jax.tree_util.tree_map_with_path(more, tree)


def test_sft_moves_weights_and_not_rows() -> None:
    mesh, batch = make_mesh(1, 8, 1), repeated(sft_batch(), 8)
    state = fresh_state(mesh=mesh)
    step = compile_sft_step(MODEL, PLAIN, state, mesh).lower(state, place_rows(mesh, batch)).compile()
    weights = max(leaf.size for leaf in jax.tree.leaves(state.params))
    rows = batch.tokens_BT.size * MODEL.config.decoder.width
    assert rows > 2 * weights
    assert 0 < largest_moved(step) <= weights


def test_grpo_moves_weights_and_not_rows() -> None:
    mesh, batch = make_mesh(1, 8, 1), repeated(grpo_batch(np.ones(8)), 16)
    batch = batch._replace(temperature=np.float32(1))
    state = fresh_state(mesh=mesh)
    step = compile_grpo_step(MODEL, PLAIN, state, mesh, GRPO, first_update=True)
    compiled = step.lower(state, place_rows(mesh, batch), SUPPRESSED).compile()
    weights = max(leaf.size for leaf in jax.tree.leaves(state.params))
    assert batch.rows.tokens_BU.size * MODEL.config.decoder.width > 2 * weights
    assert 0 < largest_moved(compiled) <= weights


def test_rows_are_split_where_a_mesh_is_known_and_they_divide() -> None:
    mesh = make_mesh(2, 2, 2)

    def program(x: jax.Array) -> tuple[jax.Array, ...]:
        assert row_parts() == 4
        return split_rows(x), split_rows(x, 1), gather_columns(x)

    first, second, matrix = jax.jit(with_mesh(program, mesh))(place_rows(mesh, np.zeros((8, 3), np.float32)))
    assert {shard.data.shape[0] for shard in first.addressable_shards} == {2}
    assert {shard.data.shape[1] for shard in second.addressable_shards} == {3}  # 3 rows on 4 devices stay whole
    assert {shard.data.shape[1] for shard in matrix.addressable_shards} == {3}
    assert row_parts() == 1


def test_nothing_happens_without_a_mesh() -> None:
    x = jnp.zeros((8, 3))
    assert with_mesh(split_rows, None)(x) is x
    assert gather_columns(x) is x


@pytest.mark.parametrize("axis", [0, 1])
def test_the_values_stay(axis: int) -> None:
    x = jnp.arange(64.0).reshape(8, 8)
    kept = jax.jit(with_mesh(lambda x: split_rows(x, axis) * 2, make_mesh(8)))(x)
    np.testing.assert_array_equal(kept, 2 * x)

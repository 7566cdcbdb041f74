"""Inside a compiled step the batch stays split: weights travel, rows do not."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import MODEL
from tests.training.tiny_training import GRPO, PLAIN, SUPPRESSED, fresh_state, grpo_batch, sft_batch
from urt_jax.sharding.activations import (
    gather_columns,
    gather_tokens,
    row_parts,
    rows_as_tokens,
    split_rows,
    split_tokens,
    token_parts,
    tokens_as_rows,
    with_mesh,
)
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
    for change in (gather_columns, split_tokens, gather_tokens, tokens_as_rows, rows_as_tokens):
        assert change(x) is x
    assert token_parts() == 1


def test_tokens_are_split_gathered_and_become_rows_where_they_lie() -> None:
    mesh, x = make_mesh(1, 2, 1, 4), np.arange(4 * 8 * 3, dtype=np.float32).reshape(4, 8, 3)

    def run(program: Any, x: Any) -> tuple[jax.Array, set[tuple[int, ...]], int]:
        step = jax.jit(with_mesh(program, mesh))
        out = step(x)
        return out, {shard.data.shape for shard in out.addressable_shards}, largest_moved(step.lower(x).compile())

    split, shapes, _ = run(lambda x: split_tokens(2 * x), place_rows(mesh, x))
    assert shapes == {(2, 2, 3)}
    whole, shapes, moved = run(lambda x: gather_tokens(2 * x), split)
    assert (shapes, moved) == ({(2, 8, 3)}, 2 * 8 * 3)
    rows, shapes, moved = run(lambda x: tokens_as_rows(2 * x), split)
    assert (shapes, moved) == ({(2, 2, 3)}, 0)
    np.testing.assert_array_equal(rows, 4 * x.reshape(4, 4, 2, 3).swapaxes(0, 1).reshape(16, 2, 3))
    back, shapes, moved = run(lambda rows: rows_as_tokens(2 * rows), rows)
    assert (shapes, moved) == ({(2, 2, 3)}, 0)
    np.testing.assert_array_equal(back, 8 * x)
    np.testing.assert_array_equal(whole, 4 * x)


def test_tokens_that_do_not_divide_are_refused() -> None:
    message = "rows of 6 tokens cannot be split over sequence=4 devices; pad them to a multiple of 4"
    with pytest.raises(ValueError, match=message):
        jax.jit(with_mesh(split_tokens, make_mesh(2, 1, 1, 4)))(jnp.zeros((2, 6, 3)))


def test_a_long_row_is_split_in_all_layers_and_only_keys_and_values_are_gathered() -> None:
    """Eight rows of 128 tokens: no device holds the hidden states of more than its own tokens, or whole scores."""
    mesh, batch = make_mesh(2, 1, 1, 4), sft_batch(tokens=128, parts=4)
    state = fresh_state(mesh=mesh)
    step = compile_sft_step(MODEL, PLAIN, state, mesh).lower(state, place_rows(mesh, batch)).compile()
    decoder, rows = MODEL.config.decoder, batch.tokens_BT.size // 2
    assert rows * decoder.width > 2 * max(leaf.size for leaf in jax.tree.leaves(state.params))
    assert largest_moved(step) == rows * decoder.kv_heads * decoder.head_width
    shapes = {tuple(map(int, found.split(","))) for found in re.findall(r"f32\[([\d,]+)\]", step.as_text())}
    scores = 4 * decoder.query_heads * 128 * 128
    assert max(int(np.prod(shape)) for shape in shapes) == decoder.layers * scores // 4


@pytest.mark.parametrize("axis", [0, 1])
def test_the_values_stay(axis: int) -> None:
    x = jnp.arange(64.0).reshape(8, 8)
    kept = jax.jit(with_mesh(lambda x: split_rows(x, axis) * 2, make_mesh(8)))(x)
    np.testing.assert_array_equal(kept, 2 * x)

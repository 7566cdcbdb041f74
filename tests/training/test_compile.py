"""Placement on the mesh, and how often a training program is made."""

import jax
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

from tests.tiny import MODEL, tiny_params
from tests.training.tiny_training import TRAINED, assert_same, fresh_state, one_device, sft_batch
from urt_jax.sharding.mesh import make_mesh
from urt_jax.sharding.placement import place_rows, place_state
from urt_jax.training.compile import compile_sft_step
from urt_jax.training.state import init_state


def test_rows_are_split_over_data_and_fsdp() -> None:
    mesh = make_mesh(2, 2, 2)
    placed = place_rows(mesh, sft_batch())
    assert placed.tokens_BT.sharding.spec == P(("data", "fsdp"))
    assert placed.positions_3BT.sharding.spec == P(None, ("data", "fsdp"))
    assert {shard.data.shape for shard in placed.positions_3BT.addressable_shards} == {(3, 2, 16)}
    assert_same(placed, sft_batch())


def test_what_does_not_divide_lies_whole() -> None:
    mesh = make_mesh(8, 1, 1)
    tree = {"three": np.zeros((3, 8)), "none": np.zeros((0, 8)), "scalar": np.float32(1)}
    for leaf in jax.tree.leaves(place_rows(mesh, tree)):
        assert leaf.sharding.is_fully_replicated


def test_the_state_is_split_by_the_table_moments_included() -> None:
    mesh = make_mesh(1, 4, 2)
    state = place_state(mesh, init_state(tiny_params(), optax.adamw(1e-3), TRAINED))
    gate = state.trainable["decoder"]["layers"]["mlp"]["gate"]["kernel"]
    assert {shard.data.shape for shard in gate.addressable_shards} == {(2, 32 // 4, 24 // 2)}
    moments = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)
        if jax.tree_util.keystr(path, simple=True, separator="/").endswith("mlp/gate/kernel")
    ]
    assert len(moments) == 2
    assert all(leaf.sharding == gate.sharding for leaf in moments)


def test_one_program_serves_all_steps_and_the_host_weights_stay_as_they_were() -> None:
    """The step reuses its state's memory; the numpy weights that the state was made of are not part of it."""
    host = jax.tree.map(np.array, tiny_params())
    optimizer = optax.sgd(1.0)
    state = place_state(one_device(), init_state(host, optimizer, TRAINED))
    step = compile_sft_step(MODEL, optimizer, state, one_device())
    for _ in range(3):
        state, _ = step(state, place_rows(one_device(), sft_batch()))
    assert step._cache_size() == 1
    assert_same(host, tiny_params())
    moved = np.asarray(state.trainable["head"]) - host["head"]
    assert np.abs(moved).max() > 0


def test_the_old_state_is_given_up() -> None:
    state = fresh_state(optax.sgd(1.0))
    step = compile_sft_step(MODEL, optax.sgd(1.0), state, one_device())
    step(state, place_rows(one_device(), sft_batch()))
    assert state.trainable["head"].is_deleted()

"""A checkpoint taken on one mesh restores on another, with the same bits, and training goes on there."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

from tests.tiny import MODEL
from tests.training.tiny_training import assert_close, assert_same, fresh_state, one_device, sft_batch
from urt_jax.checkpoints.store import CheckpointStore
from urt_jax.sharding.mesh import make_mesh
from urt_jax.sharding.placement import place_rows
from urt_jax.training.compile import compile_sft_step
from urt_jax.training.loop import train
from urt_jax.training.settings import LoopSettings
from urt_jax.training.skipped import TrainedBatch
from urt_jax.training.state import TrainState

ADAMW = optax.adamw(1e-2)
MESHES = {
    "data=8": lambda: make_mesh(8, 1, 1),
    "fsdp=8": lambda: make_mesh(1, 8, 1),
    "2x2x2": lambda: make_mesh(2, 2, 2),
    "one device": one_device,
}


def go_on(folder: Path, mesh: Mesh, *, steps: int) -> TrainState:
    """Train to ``steps`` on a mesh, from the checkpoint in the folder if there is one."""
    state = fresh_state(ADAMW, mesh)
    step = compile_sft_step(MODEL, ADAMW, state, mesh)
    batch = place_rows(mesh, sft_batch())

    def advance(state: TrainState, number: int) -> Any:
        return *step(state, batch), TrainedBatch([], {})

    return train(folder, state, advance, LoopSettings(steps, save_every=1, keep=8), title="test")


def saved(folder: Path, step: int) -> Any:
    """Return the arrays of a checkpoint as they lie on disk, read without any mesh."""
    state = fresh_state(ADAMW)
    wanted = {"step": state.step, "trainable": state.trainable, "opt_state": state.opt_state}
    with CheckpointStore(folder / "checkpoints", keep=8) as store:
        found = store.restore_latest(jax.tree.map(np.asarray, wanted))
    assert found is not None
    assert found[0] == step
    return found[1]


def test_it_goes_from_mesh_to_mesh(tmp_path: Path) -> None:
    alone = go_on(tmp_path / "alone", one_device(), steps=len(MESHES))
    for number, (name, make) in enumerate(MESHES.items(), 1):
        mesh = make()
        if number > 1:
            taken = saved(tmp_path / "moved", number - 1)
            again = go_on(tmp_path / "moved", mesh, steps=number - 1)  # restores, and takes no step
            assert_same(
                {"trainable": again.trainable, "opt_state": again.opt_state},
                {"trainable": taken["trainable"], "opt_state": taken["opt_state"]},
            )
            shardings = {leaf.sharding.mesh.shape_tuple for leaf in jax.tree.leaves(again.trainable)}
            assert shardings == {mesh.shape_tuple}, name
        moved = go_on(tmp_path / "moved", mesh, steps=number)
    assert_close(jax.tree.map(np.asarray, moved.trainable), jax.tree.map(np.asarray, alone.trainable), atol=1e-4)


@pytest.mark.parametrize("name", ["data=8", "2x2x2"])
def test_a_step_after_restoring_is_the_step_without(tmp_path: Path, name: str) -> None:
    whole = go_on(tmp_path / "whole", MESHES[name](), steps=3)
    go_on(tmp_path / "stopped", MESHES[name](), steps=2)
    assert_same(go_on(tmp_path / "stopped", MESHES[name](), steps=3).trainable, whole.trainable)

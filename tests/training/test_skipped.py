"""Skipped updates: counted over restarts, their batches kept, and the run stopped after so many in a row."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.tiny_training import assert_same
from urt_jax.sharding.mesh import make_mesh
from urt_jax.sharding.placement import place_rows
from urt_jax.training import skipped
from urt_jax.training.loop import train
from urt_jax.training.metrics import read_metrics
from urt_jax.training.settings import LoopSettings
from urt_jax.training.skipped import NonFiniteLossError, TrainedBatch
from urt_jax.training.state import TrainState

STEPS = 9


def small_state() -> TrainState:
    return TrainState(jnp.int32(0), {"w": jnp.ones(3)}, {}, {"m": jnp.zeros(3)})


def batch_of(step: int) -> TrainedBatch:
    return TrainedBatch(
        [f"pair {step}", "pair 7"], {"rows": {"tokens": np.full((2, 4), step)}, "mask": np.ones(2, bool)}
    )


def run(folder: Path, bad: Collection[int], *, max_skipped: int = 3, steps: int = STEPS) -> TrainState:
    """Run steps (1 = the first) of which the bad ones are skipped, as a compiled step tells it."""

    def advance(state: TrainState, step: int) -> tuple[TrainState, dict[str, Any], TrainedBatch]:
        if step + 1 in bad:
            figures = {"loss": jnp.float32(np.nan), "grad_norm": jnp.float32(np.inf), "skipped_updates": jnp.float32(1)}
            return state._replace(step=state.step + 1), figures, batch_of(step)
        trained = {"w": state.trainable["w"] + step}
        figures = {"loss": jnp.float32(1), "grad_norm": jnp.float32(1), "skipped_updates": jnp.float32(0)}
        return TrainState(state.step + 1, trained, {}, state.opt_state), figures, batch_of(step)

    settings = LoopSettings(steps, save_every=2, keep=2, max_skipped=max_skipped)
    return train(folder, small_state(), advance, settings, title="test")


def totals(folder: Path) -> list[float]:
    return [line["skipped_updates"] for line in read_metrics(folder)]


def test_they_are_counted_and_the_run_goes_on(tmp_path: Path) -> None:
    state = run(tmp_path, {2, 3, 5})
    assert totals(tmp_path) == [0, 1, 2, 2, 3, 3, 3, 3, 3]
    assert float(state.trainable["w"][0]) == 1 + sum(step - 1 for step in range(1, STEPS + 1) if step not in (2, 3, 5))


def test_so_many_in_a_row_stop_the_run_with_the_batch_and_the_last_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError) as caught:
        run(tmp_path, {4, 6, 7, 8})
    told = str(caught.value)
    assert "3 updates in a row were skipped (max_skipped is 3)" in told
    assert f"step 8: loss nan, gradient norm inf, batch in {tmp_path / 'skipped' / 'step-000008.npz'}" in told
    assert "lower optimizer.learning_rate" in told
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()) == ["4", "6"]
    with np.load(tmp_path / "skipped" / "step-000008.npz") as batch:
        assert batch["record_ids"].tolist() == ["pair 7", "pair 7"]
        np.testing.assert_array_equal(batch["rows.tokens"], np.full((2, 4), 7))
        assert batch["mask"].all()


def test_stopped_and_called_again_it_counts_on(tmp_path: Path) -> None:
    """The checkpoint of step 6 lies inside the row of bad steps; what it holds is the state before them."""
    with pytest.raises(NonFiniteLossError):
        run(tmp_path, {5, 6, 7, 8}, max_skipped=4)
    with pytest.raises(NonFiniteLossError, match="4 updates in a row were skipped"):
        run(tmp_path, {5, 6, 7, 8}, max_skipped=4)
    more_patient = run(tmp_path, {5, 6, 7, 8}, max_skipped=5)
    assert_same(more_patient, run(tmp_path / "other", {5, 6, 7, 8}, max_skipped=5))
    assert totals(tmp_path) == totals(tmp_path / "other") == [0, 0, 0, 0, 1, 2, 3, 4, 4]


def test_only_the_newest_batches_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skipped, "KEPT_BATCHES", 2)
    run(tmp_path, {1, 3, 5, 7})
    assert sorted(path.name for path in (tmp_path / "skipped").iterdir()) == ["step-000005.npz", "step-000007.npz"]


def test_arrays_on_devices_are_written_as_numbers(tmp_path: Path) -> None:
    rows = place_rows(make_mesh(8), {"a": jnp.arange(8.0), "b": jnp.full((8, 2), 1.5, jnp.bfloat16)})
    counter = skipped.SkippedUpdates(tmp_path, limit=2)
    counter.counted(1, {"loss": np.nan, "skipped_updates": 1.0}, TrainedBatch(["x"], rows))
    with np.load(tmp_path / "step-000001.npz") as batch:
        np.testing.assert_array_equal(batch["a"], np.arange(8.0))
        np.testing.assert_array_equal(batch["b"], jax.device_get(rows["b"]).astype(np.float32))

"""Training that meets numbers that are not finite, and a clock that runs backwards."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.stages.story import (
    LENGTHS,
    OPTIMIZER,
    SHORT,
    assert_same_weights,
    metric_lines,
    run_in_process,
    weights,
    write_config,
)
from urt_jax.checkpoints.store import CheckpointStore
from urt_jax.feeds import batches
from urt_jax.main import main
from urt_jax.stages import grpo
from urt_jax.training.skipped import NonFiniteLossError

STEPS = 6


@pytest.fixture(scope="module")
def learning(tmp_path_factory: pytest.TempPathFactory, coin_judge: Path, reasonings: Path) -> Path:
    return write_config(
        tmp_path_factory.mktemp("lasting") / "sft.py",
        "sft",
        **{"data": {"path": str(reasonings)}, "model": {"path": str(coin_judge)}, "steps": STEPS, "batch_size": 8},
        **{"optimizer": OPTIMIZER, "lengths": LENGTHS, "save_every": 2},
    )


@pytest.fixture(scope="module")
def sampling(tmp_path_factory: pytest.TempPathFactory, coin_judge: Path) -> Path:
    return write_config(
        tmp_path_factory.mktemp("lasting") / "grpo.py",
        "grpo",
        **{"data": {"count": 8, "seed": 2}, "eval_data": {"count": 4}},
        **{"model": {"path": str(coin_judge)}, "steps": STEPS, "questions_per_step": 4, "responses_per_question": 4},
        **{"updates_per_rollout": 2, "optimizer": OPTIMIZER, "lengths": SHORT, "save_every": 2},
    )


def blackened(batch: Any) -> Any:
    """Return a batch whose pictures, or what they were encoded to, hold no numbers."""

    def spoil(path: tuple[Any, ...], leaf: Any) -> Any:
        return np.full_like(leaf, np.nan) if getattr(path[-1], "name", "") in ("patches_IPC", "merged_ED") else leaf

    return jax.tree_util.tree_map_with_path(spoil, batch)


def spoil_sft(patch: pytest.MonkeyPatch, bad: set[int]) -> None:
    """Spoil the batches of these steps (0 = the first)."""
    plain = batches.SftFeed.prepare

    def prepare(feed: batches.SftFeed, n: int) -> batches.Prepared:
        prepared = plain(feed, n)
        return prepared._replace(batch=blackened(prepared.batch)) if n in bad else prepared

    patch.setattr(batches.SftFeed, "prepare", prepare)


def spoil_grpo(patch: pytest.MonkeyPatch, bad: set[int], spoil: Callable[[Any], Any]) -> None:
    """Spoil the batches of these steps (0 = the first)."""
    plain = grpo.GrpoTrainer._batch

    def made(trainer: grpo.GrpoTrainer, rollout: Any, advantage_B: Any, step: int) -> Any:
        batch = plain(trainer, rollout, advantage_B, step)
        return spoil(batch) if step in bad else batch

    patch.setattr(grpo.GrpoTrainer, "_batch", made)


def without_advantage(batch: Any) -> Any:
    return batch._replace(advantage_B=np.full_like(batch.advantage_B, np.nan))


def test_sft_goes_on_after_a_batch_without_numbers(learning: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_sft(monkeypatch, {2, 3})
    run = run_in_process(learning, learning.parent / "two-bad")
    assert [line["skipped_updates"] for line in metric_lines(run)] == [0, 0, 1, 2, 2, 2]
    assert [line["loss"] is None for line in metric_lines(run)] == [False, False, True, True, False, False]
    assert all(np.isfinite(tensor).all() for tensor in weights(run / "model").values())
    with np.load(run / "skipped" / "step-000003.npz") as batch:
        assert len(batch["record_ids"]) == 8
        (pictures,) = (batch[name] for name in batch.files if name.endswith("patches_IPC"))
        assert np.isnan(pictures).all()


def test_sft_stops_after_three_in_a_row_and_says_which_records(learning: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = learning.parent / "three-bad"
    with monkeypatch.context() as patch:
        spoil_sft(patch, {2, 3, 4})
        with pytest.raises(NonFiniteLossError, match=r"3 updates in a row were skipped .*step-000005\.npz"):
            main([f"--config={learning}", f"--workdir={run}"])
    assert sorted(path.name for path in (run / "checkpoints").iterdir() if path.name.isdigit()) == ["2", "4"]
    assert not (run / "model").exists()


@pytest.mark.parametrize("spoil", [blackened, pytest.param(without_advantage, marks=pytest.mark.slow)])
def test_grpo_goes_on_after_a_rollout_without_numbers(
    sampling: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Any], Any]
) -> None:
    """Pictures without numbers leave trainer and sampler nothing to agree on; that is counted, and no disagreement."""
    spoil_grpo(monkeypatch, {3}, spoil)
    run = run_in_process(sampling, sampling.parent / spoil.__name__)
    assert [line["skipped_updates"] for line in metric_lines(run)] == [0, 0, 0, 2, 2, 2]  # two updates a rollout
    assert all(np.isfinite(tensor).all() for tensor in weights(run / "model").values())
    with np.load(run / "skipped" / "step-000004.npz") as batch:
        assert len(batch["record_ids"]) == 4
        assert all(name.startswith("image_gen") or "image_gen" in name for name in batch["record_ids"].tolist())


def test_a_clock_that_jumps_changes_nothing(learning: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is set a day forward, then two back, at every step: while checkpoints are being written, too."""
    whole = run_in_process(learning, learning.parent / "whole")
    real, plain, jumps = time.time, batches.SftFeed.prepare, []

    def prepare(feed: batches.SftFeed, step: int) -> batches.Prepared:
        jumps.append(86400 * (1, -1)[step % 2])
        return plain(feed, step)

    with monkeypatch.context() as patch:
        patch.setattr(batches.SftFeed, "prepare", prepare)
        patch.setattr(time, "time", lambda: real() + sum(jumps[-1:]))
        jumped = run_in_process(learning, learning.parent / "jumped")
    assert len(jumps) == STEPS
    assert_same_weights(jumped, whole)
    assert [line["loss"] for line in metric_lines(jumped)] == [line["loss"] for line in metric_lines(whole)]
    assert sorted(path.name for path in (jumped / "checkpoints").iterdir() if path.name.isdigit()) == ["4", "6"]


def test_a_clock_set_forward_during_a_save_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, later = time.time, [0.0]
    with CheckpointStore(tmp_path, keep=3) as store:
        for step in range(1, 4):
            store.save(step, {"a": jnp.full((1024, 1024), float(step))}, {})
            later[0] += 7200.0
            monkeypatch.setattr(time, "time", lambda: real() + later[0])
    with CheckpointStore(tmp_path, keep=3) as store:
        assert store.steps() == [1, 2, 3]

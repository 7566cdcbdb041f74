"""The loop: a run that was stopped and called again is the run that was not, and its metrics have no gap."""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.tiny import MODEL
from tests.training.tiny_training import assert_same, fresh_state, one_device, sft_batch
from urt_jax.runs.preemption import Preempted
from urt_jax.training.compile import compile_sft_step
from urt_jax.training.loop import Advance, train
from urt_jax.training.metrics import read_metrics
from urt_jax.training.settings import LoopSettings
from urt_jax.training.skipped import NonFiniteLossError, TrainedBatch
from urt_jax.training.state import TrainState

STEPS = 9
SETTINGS = LoopSettings(STEPS, save_every=4, keep=2)


class Killed(Exception):
    """Stands for a kill at any moment."""


def small_state() -> TrainState:
    return TrainState(jnp.int32(0), {"w": jnp.ones(3)}, {"fixed": jnp.ones(2)}, {"m": jnp.zeros(3)})


@jax.jit
def small_step(state: TrainState, step: int) -> tuple[TrainState, dict[str, jax.Array]]:
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), step), (3,))
    moment = 0.9 * state.opt_state["m"] + noise
    trained = {"w": state.trainable["w"] - 0.1 * moment}
    return TrainState(state.step + 1, trained, state.frozen, {"m": moment}), {"loss": (trained["w"] ** 2).sum()}


NOTHING = TrainedBatch([], {})


def small_advance(state: TrainState, step: int) -> tuple[TrainState, Any, TrainedBatch]:
    return *small_step(state, step), NOTHING


def broken_at(step: int, action: Callable[[], Any], inner: Advance = small_advance) -> Advance:
    """Return an advance that does something before it takes ``step``."""

    def advance(state: TrainState, number: int) -> tuple[TrainState, Any, TrainedBatch]:
        if number == step:
            action()
        return inner(state, number)

    return advance


def kill() -> None:
    raise Killed


def run(folder: Path, advance: Advance = small_advance, settings: LoopSettings = SETTINGS, **more: Any) -> TrainState:
    return train(folder, small_state(), advance, settings, title="test", **more)


def lines(folder: Path) -> list[tuple[int, float]]:
    return [(int(line["step"]), line["loss"]) for line in read_metrics(folder)]


class Counter:
    """A carried number that every step depends on and adds to."""

    def __init__(self) -> None:
        self.number = 0

    def saved(self) -> dict[str, int]:
        return {"number": self.number}

    def restore(self, saved: Mapping[str, Any]) -> None:
        self.number = saved["number"]

    def advance(self, state: TrainState, step: int) -> tuple[TrainState, Any, TrainedBatch]:
        self.number = 3 * self.number + step
        return small_advance(state, self.number % 1000)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainState, list[tuple[int, float]]]:
    folder = tmp_path_factory.mktemp("whole")
    return run(folder), lines(folder)


def test_every_step_has_one_line_with_the_figures_of_that_step(whole: Any) -> None:
    state, written = whole
    assert [step for step, _ in written] == list(range(1, STEPS + 1))
    expected = small_state()
    for step, loss in written:
        expected, figures = small_step(expected, step - 1)
        np.testing.assert_allclose(loss, figures["loss"], rtol=1e-6)
    assert_same(state, expected)


@pytest.mark.parametrize("killed_at", [1, 4, 6, 7, 8])
def test_a_killed_run_called_again_ends_as_the_uninterrupted_one(tmp_path: Path, whole: Any, killed_at: int) -> None:
    with pytest.raises(Killed):
        run(tmp_path, broken_at(killed_at, kill))
    started: list[int] = []
    state = run(tmp_path, lambda state, step: (started.append(step), small_advance(state, step))[1])
    assert started[0] == killed_at // 4 * 4, "it goes on from the newest checkpoint"
    assert_same(state, whole[0])
    assert lines(tmp_path) == whole[1]


def test_a_finished_run_called_again_takes_no_step(tmp_path: Path, whole: Any) -> None:
    run(tmp_path)
    assert_same(run(tmp_path, broken_at(STEPS, kill)), whole[0])
    assert lines(tmp_path) == whole[1]


def test_sft_of_the_model_resumes_bit_for_bit(tmp_path: Path) -> None:
    optimizer = optax.adamw(1e-2)
    step_fn = compile_sft_step(MODEL, optimizer, fresh_state(optimizer), one_device())
    batch = sft_batch()
    settings = LoopSettings(3, save_every=2, keep=1)

    def advance(state: TrainState, step: int) -> Any:
        tokens = (7 + (batch.tokens_BT + step) % 31).astype(np.int32)
        return *step_fn(state, batch._replace(tokens_BT=tokens)), NOTHING

    def go(folder: Path, advance: Advance) -> TrainState:
        return train(folder, fresh_state(optimizer), advance, settings, title="sft")

    whole = go(tmp_path / "whole", advance)
    with pytest.raises(Killed):
        go(tmp_path / "stopped", broken_at(2, kill, advance))
    assert_same(go(tmp_path / "stopped", advance), whole)
    assert lines(tmp_path / "stopped") == lines(tmp_path / "whole")


def test_a_sigterm_saves_and_leaves(tmp_path: Path, whole: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match=f"saved after step 6 of {STEPS} in "):
        run(tmp_path, broken_at(5, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert signal.getsignal(signal.SIGTERM) is before
    assert [step for step, _ in lines(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert (tmp_path / "checkpoints" / "6").is_dir()
    assert_same(run(tmp_path), whole[0])
    assert lines(tmp_path) == whole[1]


def test_a_sigterm_in_the_last_step_lets_the_run_finish(tmp_path: Path, whole: Any) -> None:
    assert_same(run(tmp_path, broken_at(STEPS - 1, lambda: os.kill(os.getpid(), signal.SIGTERM))), whole[0])


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(tmp_path: Path) -> None:
    def advance(state: TrainState, step: int) -> Any:
        state, figures = small_step(state, step)
        return state, {"loss": jnp.float32(np.nan)} if step == 7 else figures, NOTHING

    with pytest.raises(NonFiniteLossError, match=r"loss of step 8 is nan and its update was applied\. Look at"):
        run(tmp_path, advance)
    assert [int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()] == [4]


def test_a_sigterm_in_the_last_step_is_handed_on_once_the_state_is_saved(tmp_path: Path) -> None:
    heard: list[bool] = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append((tmp_path / "checkpoints" / str(STEPS)).is_dir()))
    try:
        run(tmp_path, broken_at(STEPS - 1, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [True]


def test_frozen_parameters_are_not_saved(tmp_path: Path) -> None:
    run(tmp_path)
    moved = small_state()._replace(frozen={"fixed": jnp.zeros(2)})
    state = train(tmp_path, moved, small_advance, SETTINGS, title="test")
    np.testing.assert_array_equal(state.frozen["fixed"], 0.0)


def test_what_a_stage_carries_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    carried = Counter()
    expected = run(tmp_path / "whole", carried.advance, carried=carried)
    first = Counter()
    with pytest.raises(Killed):
        run(tmp_path / "killed", broken_at(6, kill, first.advance), carried=first)
    again = Counter()
    assert_same(run(tmp_path / "killed", again.advance, carried=again), expected)
    assert again.number == carried.number

"""The loop of every training stage: advance, log one step late, save checkpoints, stop at a preemption notice.

1. restore the newest checkpoint, if there is one, and delete the metrics after its step;
2. dispatch step n, then read and log the figures of step n-1, so that the host never waits for the device;
3. save the state on schedule, at the end, and after a preemption notice to any of the processes.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from urt_jax.checkpoints.store import CheckpointStore
from urt_jax.progress import progress
from urt_jax.runs import processes
from urt_jax.runs.agreement import Agreement
from urt_jax.runs.preemption import Preempted, PreemptionNotice
from urt_jax.sharding.placement import mesh_of
from urt_jax.training.metrics import MetricsWriter
from urt_jax.training.settings import LoopSettings
from urt_jax.training.skipped import SkippedUpdates, TrainedBatch
from urt_jax.training.state import TrainState

# state, step -> the next state, the metrics of the step (device scalars are fine), and its batch
Advance = Callable[[TrainState, int], tuple[TrainState, Mapping[str, Any], TrainedBatch]]


@runtime_checkable
class Carried(Protocol):
    """A stage's own values from step to step, beside the train state; its ``advance`` depends on them too."""

    def saved(self) -> dict[str, Any]:
        """Return the values as JSON, to be saved with a checkpoint."""

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Resume from the values that ``saved`` returned for the checkpoint."""


def train(
    folder: Path,
    state: TrainState,
    advance: Advance,
    settings: LoopSettings,
    *,
    title: str,
    shown: tuple[str, ...] = ("loss",),
    carried: Carried | None = None,
) -> TrainState:
    """Advance ``state`` to ``settings.steps``, resuming from ``folder/checkpoints``, and return it.

    A run that is killed at any time and resumed ends with the same parameters, bit for bit: ``advance`` must depend
    only on the state, the step number and the ``carried`` values. Frozen parameters are not saved; they come from the
    model that the run started from. An update whose loss or gradient is not finite is skipped and counted, and its
    batch is written to ``folder/skipped``. The progress bar shows the figures named in ``shown``.

    Raises:
        Preempted: after a SIGTERM, once the state is saved.
        NonFiniteLossError: ``settings.max_skipped`` updates in a row were skipped, or an update with a loss that is not
            finite was applied; the checkpoint before it is kept.
    """
    skipped = SkippedUpdates(folder / "skipped", limit=settings.max_skipped)
    with (
        PreemptionNotice() as notice,
        CheckpointStore(folder / "checkpoints", keep=settings.keep, every=settings.save_every) as store,
    ):
        state, start = _resumed(store, state, skipped, carried)
        bar = progress(total=settings.steps, initial=start, title=title, unit="step")
        leaving = Agreement(mesh_of(state.trainable))
        with MetricsWriter(folder, resume_step=start, active=processes.is_first()) as writer, bar:
            waiting: tuple[int, Mapping[str, Any], TrainedBatch] | None = None
            then = time.perf_counter()
            for step in range(start, settings.steps):
                state, figures, batch = advance(state, step)
                if waiting:
                    _log(writer, bar, skipped, *waiting, shown)
                now = time.perf_counter()
                waiting, then = (step + 1, {**figures, "step_time": now - then}, batch), now
                last, told = step + 1 == settings.steps, leaving.found(notice.arrived)
                if last or told or (step + 1) % settings.save_every == 0:
                    _log(writer, bar, skipped, *waiting, shown)
                    waiting = None
                    beside = {"step": step + 1, "skipped": skipped.saved()}
                    if carried is not None:
                        beside["carried"] = carried.saved()
                    store.save(step + 1, _saved(state), beside)
                if told and not last:
                    raise Preempted(f"saved after step {step + 1} of {settings.steps} in {folder}")
    return state


def _resumed(
    store: CheckpointStore, state: TrainState, skipped: SkippedUpdates, carried: Carried | None
) -> tuple[TrainState, int]:
    """Return the newest saved state, or the one given, and the step at which the loop resumes."""
    found = store.restore_latest(_saved(state))
    if found is None:
        return state, 0
    start, kept, beside = found
    if carried is not None:
        carried.restore(beside["carried"])
    skipped.restore(beside.get("skipped", {}))
    # The start is not state.step, which counts updates: one step of this loop may take several.
    return state._replace(step=kept["step"], trainable=kept["trainable"], opt_state=kept["opt_state"]), start


def _saved(state: TrainState) -> dict[str, Any]:
    return {"step": state.step, "trainable": state.trainable, "opt_state": state.opt_state}


def _log(
    writer: MetricsWriter,
    bar: Any,
    skipped: SkippedUpdates,
    step: int,
    figures: Mapping[str, Any],
    batch: TrainedBatch,
    shown: tuple[str, ...],
) -> None:
    values = skipped.counted(step, {name: float(value) for name, value in figures.items()}, batch)
    writer.write(step, values)
    bar.update(step - bar.n)
    bar.set_postfix({name: f"{values[name]:.3g}" for name in shown if name in values}, refresh=False)
    skipped.stop_if_hopeless()

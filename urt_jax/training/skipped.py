"""Updates skipped because their loss or gradient is not finite: their count, their batches, and when the run stops."""

import io
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from urt_jax.files.whole import write_whole

KEPT_BATCHES = 8  # batches kept on disk, of the newest skipped updates
_log = logging.getLogger(__name__)


class NonFiniteLossError(RuntimeError):
    """Training diverged: a loss or a gradient was NaN or infinite."""


class TrainedBatch(NamedTuple):
    """The batch of a step: the ids of its records, and its arrays on the host or on devices."""

    record_ids: Sequence[str]
    arrays: Any


class SkippedUpdates:
    """Counts the skipped updates of a run; the counts are saved with each checkpoint."""

    def __init__(self, folder: Path, *, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self.total = self.in_row = 0
        self._told = ""

    def saved(self) -> dict[str, int]:
        """Return the counts, as JSON."""
        return {"total": self.total, "in_row": self.in_row}

    def restore(self, saved: Mapping[str, int]) -> None:
        """Resume from the counts that ``saved`` returned."""
        self.total, self.in_row = saved.get("total", 0), saved.get("in_row", 0)

    def counted(self, step: int, figures: Mapping[str, float], batch: TrainedBatch) -> dict[str, float]:
        """Return the figures of a step (1 = the first), with ``skipped_updates`` as the run's total so far.

        Raises:
            NonFiniteLossError: the loss is not finite, but the update was applied.
        """
        loss, here = figures.get("loss", 0.0), int(figures.get("skipped_updates", 0))
        if not here and not math.isfinite(loss):
            raise NonFiniteLossError(f"the loss of step {step} is {loss} and its update was applied. {_REMEDY}")
        self.total += here
        self.in_row = self.in_row + here if here else 0
        if here:
            norm = figures.get("grad_norm", math.nan)
            written = self._write_batch(step, batch)
            self._told = f"step {step}: loss {loss}, gradient norm {norm}{written}"
            _log.warning("update skipped, %d in a row: %s", self.in_row, self._told)
        return {**figures, "skipped_updates": float(self.total)} if "skipped_updates" in figures else dict(figures)

    def stop_if_hopeless(self) -> None:
        """Raise when too many updates in a row were skipped.

        Raises:
            NonFiniteLossError: the message gives the last skipped step's figures and the file of its batch.
        """
        if self.in_row >= self._limit:
            raise NonFiniteLossError(
                f"{self.in_row} updates in a row were skipped (max_skipped is {self._limit}): their loss or gradient "
                f"was not finite. Parameters and optimizer are unchanged since; {self._told}. {_REMEDY}"
            )

    def _write_batch(self, step: int, batch: TrainedBatch) -> str:
        """Write a step's batch, delete the oldest beyond ``KEPT_BATCHES``, and return a clause that names the file."""
        leaves = jax.tree_util.tree_flatten_with_path(batch.arrays)[0]
        arrays = {jax.tree_util.keystr(path, simple=True, separator="."): _on_host(leaf) for path, leaf in leaves}
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, record_ids=np.array(list(batch.record_ids), np.str_), **arrays)
        several = f"-process-{jax.process_index()}" if jax.process_count() > 1 else ""
        path = self._folder / f"step-{step:06d}{several}.npz"
        write_whole(path, content.getvalue())
        for old in sorted(self._folder.glob(f"step-*{several}.npz"))[:-KEPT_BATCHES]:
            old.unlink()
        return f", batch in {path}"


_REMEDY = (
    "Look at the records of that step; lower optimizer.learning_rate or give another dtype in another --workdir. The "
    "last checkpoint before it is kept; a resumed run repeats the steps after it"
)


def _on_host(leaf: Any) -> np.ndarray:
    """Return a leaf as an array that numpy can save; of a leaf sharded over processes, this process's shards."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        leaf = np.concatenate([np.atleast_1d(shard.data) for shard in leaf.addressable_shards])
    found = np.asarray(leaf)
    return found.astype(np.float32) if found.dtype.name == "bfloat16" else found

"""Updates skipped for a loss or gradient that is not finite: counted, their batches written down, and when to stop."""

import io
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from urt_jax.files.whole import write_whole

KEPT_BATCHES = 8  # of the newest skipped updates
_log = logging.getLogger(__name__)


class NonFiniteLossError(RuntimeError):
    """Training diverged: a loss or a gradient was NaN or infinite."""


class TrainedBatch(NamedTuple):
    """The batch of a step: the ids of its records, and its arrays on the host or on devices."""

    record_ids: Sequence[str]
    arrays: Any


class SkippedUpdates:
    """Follows ``skipped_updates`` of the steps; the count fits a checkpoint's JSON."""

    def __init__(self, folder: Path, *, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self.total = self.in_row = 0
        self._told = ""

    def saved(self) -> dict[str, int]:
        """Return the counts, as JSON."""
        return {"total": self.total, "in_row": self.in_row}

    def restore(self, saved: Mapping[str, int]) -> None:
        """Go on from what ``saved`` returned."""
        self.total, self.in_row = saved.get("total", 0), saved.get("in_row", 0)

    def counted(self, step: int, figures: Mapping[str, float], batch: TrainedBatch) -> dict[str, float]:
        """Return the figures of a step (1 = the first) with ``skipped_updates`` of the run so far.

        Raises:
            NonFiniteLossError: the loss is not finite and the update was taken all the same.
        """
        loss, here = figures.get("loss", 0.0), int(figures.get("skipped_updates", 0))
        if not here and not math.isfinite(loss):
            raise NonFiniteLossError(f"the loss of step {step} is {loss} and its update was taken. {_REMEDY}")
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
            NonFiniteLossError: with the figures of the last of them, and where its batch lies.
        """
        if self.in_row >= self._limit:
            raise NonFiniteLossError(
                f"{self.in_row} updates in a row were skipped (max_skipped is {self._limit}), their loss or gradient "
                f"was not finite, parameters and optimizer are those before them; {self._told}. {_REMEDY}"
            )

    def _write_batch(self, step: int, batch: TrainedBatch) -> str:
        """Write the batch of a step and drop the oldest; return the message about it."""
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
    "last checkpoint before it is kept; calling again repeats the steps after it"
)


def _on_host(leaf: Any) -> np.ndarray:
    """Return an array as numpy can save it; of one that several processes share, this process's part."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        leaf = np.concatenate([np.atleast_1d(shard.data) for shard in leaf.addressable_shards])
    found = np.asarray(leaf)
    return found.astype(np.float32) if found.dtype.name == "bfloat16" else found

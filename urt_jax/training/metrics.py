"""Metrics of a run: one JSON line per step, and the same figures for TensorBoard."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, SupportsFloat

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from urt_jax.files.fields import Fields
from urt_jax.files.json_text import whole_lines
from urt_jax.files.whole import write_whole

MAX_STEP = 2**53  # the largest step of a line read back: a larger one is damage, and a float would not hold it


class MetricsWriter:
    """Appends figures to ``<folder>/metrics.jsonl`` and ``<folder>/tb``, also when a stopped run resumes.

    Lines after ``resume_step`` (and a half-written last one) belong to steps that will be repeated, so they are
    deleted; -1 deletes all lines. The figures of a checkpoint's step must be written before the checkpoint is saved.
    With ``active=False``, for every process but the first, nothing is written.
    """

    def __init__(self, folder: str | Path, *, resume_step: int = -1, active: bool = True) -> None:
        self.active = active
        if not active:
            return
        path = Path(folder) / "metrics.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_after(path, resume_step)
        self._lines = path.open("a", encoding="utf-8")
        self._board = _open_board(path.parent / "tb", start=resume_step + 1)

    def write(self, step: int, figures: Mapping[str, SupportsFloat]) -> None:
        """Write the figures of one step: numbers of any kind that ``float()`` accepts (device arrays are fetched)."""
        if not self.active:
            return
        values = {name: float(value) for name, value in figures.items()}
        for name, value in values.items():
            self._board.write_event(Event(summary=scalar(name, value), step=int(step), wall_time=time.time()))
        self._board.flush()
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._lines.write(json.dumps({"step": int(step), **finite}) + "\n")
        self._lines.flush()

    def close(self) -> None:
        """Flush and close the files."""
        if self.active:
            self._lines.close()
            self._board.close()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(folder: str | Path) -> list[dict[str, float]]:
    """Read the lines of a run's metrics. A figure that was not finite is read as NaN, a missing file as no lines.

    Raises:
        BadInputError: a line is damaged.
    """
    return [
        {name: math.nan if value is None else value for name, value in line.items()}
        for line in _read_lines(Path(folder) / "metrics.jsonl")
    ]


def _open_board(folder: Path, *, start: int) -> EventsWriter:
    """Open a new event file; its events replace those of earlier files from step ``start`` on.

    tensorboardX's SummaryWriter is not used: its thread dies on a full disk, and the run would wait for it forever.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The file name holds the time in seconds, which repeats if the clock is set back; a count keeps the names apart.
    board = EventsWriter(str(folder / "events"), f".{len(list(folder.iterdir()))}")
    board.write_event(Event(step=start, session_log=SessionLog(status=SessionLog.START), wall_time=time.time()))
    return board


def _cut_after(path: Path, step: int) -> None:
    if path.exists():
        kept = [line for line in _read_lines(path) if line["step"] <= step]
        write_whole(path, "".join(json.dumps(line) + "\n" for line in kept))


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Return all complete lines, each a step with its figures; a kill leaves at most the last line incomplete."""
    lines: list[dict[str, Any]] = []
    for number, line in whole_lines(path) if path.exists() else ():
        fields = Fields(line, f"{path} line {number}")
        figures = {name: fields.number(name, None) for name in line if name != "step"}
        lines.append({"step": fields.integer("step", at_most=MAX_STEP), **figures})
    return lines

"""Metrics of a run: one JSON line a step and the same figures for TensorBoard."""

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

MAX_STEP = 2**53  # of a line that is read: a larger number is damage, and no float holds it


class MetricsWriter:
    """Append figures to ``<folder>/metrics.jsonl`` and ``<folder>/tb``, going on where a stopped run left off.

    Lines after ``resume_step`` (and a half-written last one) belong to steps that will be run again, so they are cut
    off; -1 starts anew. Figures of a checkpoint's own step must be written before that checkpoint is saved.
    ``active=False`` writes nothing: give it on every process but the first.
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
        """Write the figures of one step; numbers of any kind that ``float()`` takes (a device array is fetched)."""
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
        """Write out what TensorBoard still holds."""
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
    """Read the lines of a run's metrics; a figure that was not finite comes back as NaN, no file as no lines.

    Raises:
        BadInputError: a line is damaged.
    """
    return [
        {name: math.nan if value is None else value for name, value in line.items()}
        for line in _read_lines(Path(folder) / "metrics.jsonl")
    ]


def _open_board(folder: Path, *, start: int) -> EventsWriter:
    """Open a new file of events that replace those of earlier files from step ``start`` on.

    Not tensorboardX's SummaryWriter: its thread dies on a full disk, and the run would wait for it forever.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Its name holds the second, which a clock that was set back can give twice; a count keeps the older file.
    board = EventsWriter(str(folder / "events"), f".{len(list(folder.iterdir()))}")
    board.write_event(Event(step=start, session_log=SessionLog(status=SessionLog.START), wall_time=time.time()))
    return board


def _cut_after(path: Path, step: int) -> None:
    if path.exists():
        kept = [line for line in _read_lines(path) if line["step"] <= step]
        write_whole(path, "".join(json.dumps(line) + "\n" for line in kept))


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Return all lines that end, each a step with its figures; a kill leaves at most the last one without its end."""
    lines: list[dict[str, Any]] = []
    for number, line in whole_lines(path) if path.exists() else ():
        fields = Fields(line, f"{path} line {number}")
        figures = {name: fields.number(name, None) for name in line if name != "step"}
        lines.append({"step": fields.integer("step", at_most=MAX_STEP), **figures})
    return lines

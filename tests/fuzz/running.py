"""Take in many inputs and note what came of each: a result, a clear error, or something that must not be."""

import faulthandler
import os
import re
import shutil
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.targets import Target
from urt_jax.errors import BadInputError

LONGEST_S = 10.0
MOST_BYTES = 1 << 30
_ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")


@dataclass
class Found:
    """How many inputs ended how, and of each kind of fault the first input and its trace."""

    ended: Counter[str] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)
    longest_s: float = 0.0
    most_bytes: int = 0

    def add(self, other: "Found") -> None:
        """Take in what was found elsewhere."""
        self.ended.update(other.ended)
        self.faults.update(other.faults)
        self.longest_s = max(self.longest_s, other.longest_s)
        self.most_bytes = max(self.most_bytes, other.most_bytes)

    def told(self) -> str:
        """Return all in a few lines."""
        counts = ", ".join(f"{count} {name}" for name, count in self.ended.most_common())
        lines = [f"{counts}; longest {self.longest_s:.1f} s, most memory {self.most_bytes >> 20} MB"]
        return "\n".join(lines + [f"--- {kind}\n{trace}" for kind, trace in self.faults.items()])


def run(target: Target, folder: Path, *, number: int, count: int, current: TextIO | None = None) -> Found:
    """Have a target take in ``count`` inputs drawn from the seed ``number``; ``current`` is told each before."""
    found = Found()
    target.prepare(folder)

    @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @seed(number)
    @given(target.cases)
    def one(case: Any) -> None:
        take(target, case, folder, found, current)

    one()
    return found


def take(target: Target, case: Any, folder: Path, found: Found, current: TextIO | None = None) -> None:
    """Have a target take in one input, and note how it ended; where ``current`` is given, no longer than allowed."""
    if current is not None:
        current.seek(0)
        current.truncate()
        current.write(repr(case)[:20_000] + "\n")
        current.flush()
        faulthandler.dump_traceback_later(LONGEST_S + 5, exit=True, file=current)
    before, started = _reset_peak(), perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            target.take(folder, case)
        ended = "taken"
    except BadInputError as error:
        ended = "refused"
        if _ADDRESS.search(str(error)) or len(str(error)) > 5000:
            ended = "told badly"
            found.faults.setdefault(f"told badly: {str(error)[:60]!r}", f"{case!r:.2000}\n{error!s:.5000}")
    except Exception as error:
        ended = "not caught"
        place = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in place if "urt_jax" in frame.filename] or place
        kind = f"{type(error).__name__} at {Path(own[-1].filename).name}:{own[-1].name}"
        found.faults.setdefault(kind, f"{case!r:.2000}\n{''.join(traceback.format_exception(error, limit=-4))}")
    finally:
        if current is not None:
            faulthandler.cancel_dump_traceback_later()
    found.ended[ended] += 1
    seconds, taken = perf_counter() - started, _peak() - before
    found.longest_s, found.most_bytes = max(found.longest_s, seconds), max(found.most_bytes, taken)
    if seconds > LONGEST_S:
        found.faults.setdefault("too long", f"{seconds:.1f} s: {case!r:.2000}")
    if taken > MOST_BYTES:
        found.faults.setdefault("too much memory", f"{taken >> 20} MB: {case!r:.2000}")


def scratch(folder: Path) -> Path:
    """Return an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _reset_peak() -> int:
    """Let the peak of resident memory begin anew, and return what is resident."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    text = Path(f"/proc/{os.getpid()}/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) << 10  # type: ignore[index]

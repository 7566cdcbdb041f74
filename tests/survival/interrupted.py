"""Run a pipeline as a user does, interrupt it at given moments, call it again until it ends, compare what it left."""

import hashlib
import json
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.processes.together import REPOSITORY, Ended, run_together
from urt_jax.main import EXIT_BAD_INPUT
from urt_jax.runs.processes import CONNECT_S, LEAVING, LOST_S

# Files of a run in the order in which they appear; before the first, its start.
MOMENTS = (
    "", "1-distill/config.json", "2-sft/config.json", "2-sft/metrics.jsonl", "3-reject/config.json",
    "3-reject/metrics.jsonl", "4-grpo/config.json", "4-grpo/metrics.jsonl", "4-grpo/model/config.json",
    "5-evaluate/config.json",
)  # fmt: skip
TIMES = ("step_time", "timing_s/")  # figures of a clock, by how their names start
LOADED_S = 15  # that a busy machine takes longer


@dataclass(frozen=True)
class Blow:
    """An interruption: a signal to one of the processes, that many seconds after a file of the run is there."""

    number: signal.Signals
    after_s: float
    moment: str  # one of ``MOMENTS``
    process: int = 0


@dataclass(frozen=True)
class Runs:
    """Runs of one pipeline below a folder; ``whole`` is the uninterrupted one.

    A run folder is named relative to its own place, so that what a run writes does not tell one from another.
    """

    folder: Path
    processes: int = 1
    config: str = f"{REPOSITORY / 'configs' / 'pipeline.py'}:quick"
    flags: str = ""  # of XLA

    def whole(self) -> float:
        """Run the pipeline without an interruption and return its seconds."""
        started = time.monotonic()
        self._check_whole("whole")
        return time.monotonic() - started

    def interrupted(self, name: str, blows: list[Blow]) -> list[list[int]]:
        """Call the pipeline again and again, one blow a call, then to its end; return the exit codes of each call."""
        return [self._struck(name, blow) for blow in blows] + [self._check_whole(name)]

    def _check_whole(self, name: str) -> list[int]:
        ended = self._call(name)
        assert [one.code for one in ended] == [0] * self.processes, _told(ended)
        return [one.code for one in ended]

    def _struck(self, name: str, blow: Blow) -> list[int]:
        """Call the pipeline once, interrupt it if it is still there, and check that all processes end as they should.

        Of several the others must end by themselves, and in time.
        """
        run, stage, struck_at = self.folder / name / "run", "", time.monotonic()

        def strike(processes: list[subprocess.Popen[bytes]]) -> None:
            nonlocal stage, struck_at
            _wait(processes, blow, run)
            processes[blow.process].send_signal(blow.number)
            stage, struck_at = max((path.name for path in run.glob("?-*")), default="start"), time.monotonic()

        ended = self._call(name, strike)
        took = time.monotonic() - struck_at
        codes = [one.code for one in ended]
        print(f"{blow}, in {stage}, gave exit codes {codes} after {took:.1f} s", flush=True)
        told = f"{blow} gave exit codes {codes} after {took:.0f} s:\n{_told(ended)}"
        assert codes[blow.process] in _allowed(blow), told
        others = [one for number, one in enumerate(ended) if number != blow.process]
        if codes[blow.process] in (0, LEAVING):
            assert {one.code for one in others} <= {codes[blow.process]}, told
        elif others:
            late = [one for one in others if one.code == EXIT_BAD_INPUT and "did not find each other" in one.told]
            assert {one.code for one in others if one not in late} <= {0, 1, -signal.SIGABRT}, told
            assert took < (CONNECT_S if late else LOST_S) + LOADED_S, told
        return codes

    def _call(self, name: str, meanwhile: Any = None) -> list[Ended]:
        arguments = (f"--config={self.config}", "--workdir=run")
        return run_together(self.processes, arguments, self.folder / name, flags=self.flags, meanwhile=meanwhile)


def _allowed(blow: Blow) -> tuple[int, ...]:
    """Return how a process that is struck may end: done before, by the signal, or saved."""
    early = -blow.number  # a SIGTERM before Python has begun ends it as the system does
    return (0, early) if blow.number == signal.SIGKILL else (0, early, LEAVING)


def _wait(processes: list[subprocess.Popen[bytes]], blow: Blow, run: Path) -> None:
    """Wait for the moment of a blow, or for the end of all processes."""
    until = None
    while until is None or time.monotonic() < until:
        if all(process.poll() is not None for process in processes):
            return
        if until is None and (not blow.moment or (run / blow.moment).exists()):
            until = time.monotonic() + blow.after_s
        time.sleep(0.01)


def _told(ended: list[Ended]) -> str:
    return "\n".join(f"process {number}: {one.told[-2000:]}" for number, one in enumerate(ended))


def draw_blows(rng: random.Random, *, count: int, seconds: float, processes: int) -> list[Blow]:
    """Draw interruptions of a run that takes ``seconds``, anywhere from its start to its end."""
    return [
        Blow(
            rng.choice((signal.SIGKILL, signal.SIGTERM)),
            rng.uniform(0.0, 1.5 * seconds / len(MOMENTS)),
            rng.choice(MOMENTS),
            rng.randrange(processes),
        )
        for _ in range(count)
    ]


def differences(one: Path, other: Path) -> list[str]:
    """Return what two run folders do not have in common, times and the files of TensorBoard and orbax apart."""
    first, second = left_behind(one), left_behind(other)
    told = [f"{name}: only in {one if name in first else other}" for name in sorted(first.keys() ^ second.keys())]
    return told + [f"{name} differs" for name in sorted(first.keys() & second.keys()) if first[name] != second[name]]


def left_behind(folder: Path) -> dict[str, Any]:
    """Return by name what every file of a run says; of a checkpoint its step, data position and sums of bits."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if (
            path.is_dir() or "/tb/" in name or path.name == ".owner"
        ):  # who holds the folder, or held it when it was killed
            continue
        if "/checkpoints/" in name:
            if name.endswith("extra/metadata"):
                found[name] = json.loads(path.read_text())
        elif path.name == "metrics.jsonl":
            found[name] = [_without_times(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.name == "replies.jsonl":
            found[name] = sorted(map(_reply, path.read_text().split("\n")[:-1]))  # several are under way at a time
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _without_times(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if not name.startswith(TIMES)}


def _reply(line: str) -> str:
    said = json.loads(line)
    return json.dumps({name: said[name] for name in said if name not in ("latency_s", "attempts")})

"""Run a pipeline as a user does, interrupt it at given moments, call it again until it ends, compare what it left."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

REPOSITORY = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "urt_jax.main", "--config", str(REPOSITORY / "configs" / "pipeline.py") + ":quick")
PREEMPTED = 75
TIMES = ("step_time", "timing_s/")  # figures of a clock, by how their names start
END_S = 600  # of one call, many times what it takes


@dataclass(frozen=True)
class Blow:
    """An interruption: a signal, that many seconds after the call started."""

    number: signal.Signals
    after_s: float


def run_call(runs: Path, name: str, blow: Blow | None = None) -> int:
    """Call the pipeline once in ``runs/<name>``, interrupt it if it is still there, and return its exit code.

    The run folder is named relative to ``runs``, so that what the run writes does not tell one folder from another.
    """
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "XLA_FLAGS": "", **cache_settings()}
    (runs / name).mkdir(parents=True, exist_ok=True)
    with (
        (runs / f"{name}.log").open("ab") as log,
        subprocess.Popen(
            [*COMMAND, "--workdir=run"], env=environment, cwd=runs / name, stdout=log, stderr=log
        ) as process,
    ):
        try:
            return process.wait(END_S if blow is None else blow.after_s)
        except subprocess.TimeoutExpired:
            assert blow is not None, f"still running after {END_S} s: {(runs / f'{name}.log').read_text()[-2000:]}"
            process.send_signal(blow.number)
            return process.wait(END_S)
        finally:
            process.kill()


def cache_settings() -> dict[str, str]:
    """Return one compile cache for all calls; not that of the tests, which a kill could leave a torn entry in."""
    return {
        "JAX_COMPILATION_CACHE_DIR": f"{jax.config.jax_compilation_cache_dir}-survival",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def compiled_programs() -> int:
    """Return how many programs the compile cache of the calls holds."""
    folder = Path(cache_settings()["JAX_COMPILATION_CACHE_DIR"])
    return len(list(folder.glob("*-cache"))) if folder.is_dir() else 0


def run_whole(runs: Path) -> float:
    """Run the pipeline in ``runs/whole`` without an interruption and return its seconds."""
    started = time.monotonic()
    assert run_call(runs, "whole") == 0, (runs / "whole.log").read_text()[-2000:]
    return time.monotonic() - started


def run_interrupted(runs: Path, name: str, blows: list[Blow]) -> list[int]:
    """Call the pipeline again and again, one blow a call, then to its end; return the exit codes."""
    codes = [run_call(runs, name, blow) for blow in blows]
    for blow, code in zip(blows, codes):
        early = -blow.number  # a SIGTERM before Python has begun ends it as the system does
        allowed = (0, early) if blow.number == signal.SIGKILL else (0, early, PREEMPTED)
        assert code in allowed, f"{blow} gave exit code {code}:\n{(runs / f'{name}.log').read_text()[-2000:]}"
    codes.append(run_call(runs, name))
    assert codes[-1] == 0, (runs / f"{name}.log").read_text()[-2000:]
    return codes


def draw_blows(rng: random.Random, *, count: int, seconds: float) -> list[Blow]:
    """Draw interruptions of a run that takes ``seconds``; later ones come soon, while less is left."""
    return [
        Blow(rng.choice((signal.SIGKILL, signal.SIGTERM)), rng.uniform(1.0, max(0.8 * seconds / (1 + n), 5.0)))
        for n in range(count)
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
        if path.is_dir() or "/tb/" in name:
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

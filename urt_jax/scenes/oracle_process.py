"""Start the built-in teacher in a process of its own, and stop it even if the parent process is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from urt_jax.scenes.pool import OracleSettings

PACKAGE_FOLDER = Path(__file__).parents[2]  # the folder that holds urt_jax


@contextmanager
def running_oracle(settings: OracleSettings, *, start_s: float = 120.0, stop_s: float = 5.0) -> Iterator[str]:
    """Run the built-in teacher while the block runs; yields its base URL, ``http://127.0.0.1:<port>/v1``.

    The server ends when its standard input closes, which the operating system does even if this process is killed.

    Raises:
        RuntimeError: the server printed no port within ``start_s`` seconds; the message holds its stderr.
    """
    # The package must be importable from any working directory, installed or not.
    path = os.pathsep.join(filter(None, (str(PACKAGE_FOLDER), os.environ.get("PYTHONPATH", ""))))
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "urt_jax.scenes.oracle", "--until-stdin-closes", *_arguments(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": path},
        )
        with process:
            try:
                yield f"http://127.0.0.1:{_read_port(process, errors, start_s)}/v1"
            finally:
                _stop(process, stop_s)


def _arguments(settings: OracleSettings) -> list[str]:
    tasks = [part for task, count in settings.counts.items() for part in ("--task", f"{task}={count}")]
    names = ("seed", "error_seed", "split", "difficulty", "error_rate", "busy_rate", "broken_rate", "latency_s")
    return tasks + [part for name in names for part in (f"--{name.replace('_', '-')}", str(getattr(settings, name)))]


def _read_port(process: subprocess.Popen[bytes], errors: IO[bytes], start_s: float) -> int:
    assert process.stdout is not None
    alarm = threading.Timer(start_s, process.kill)  # so that the read below ends if the server hangs
    alarm.start()
    line = process.stdout.readline()
    alarm.cancel()
    if not line.strip().isdigit():
        process.wait()
        errors.seek(0)
        told = errors.read().decode(errors="replace").strip()[-2000:]
        raise RuntimeError(f"the built-in teacher did not start within {start_s:g} s; it said:\n{told or '(nothing)'}")
    return int(line)


def _stop(process: subprocess.Popen[bytes], stop_s: float) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(stop_s)
    except subprocess.TimeoutExpired:
        process.kill()

"""Run the command line in several processes of one run, on one machine over loopback, as a cluster would start them."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

REPOSITORY = Path(__file__).parents[2]
END_S = 1500  # of one run, many times what it takes
MAIN = (sys.executable, "-m", "urt_jax.main")
FAST_COMPILE = "--xla_backend_optimization_level=0"  # for runs that compile much and compute little
WORKER = (sys.executable, str(Path(__file__).with_name("worker.py")))


class Ended(NamedTuple):
    """How one of the processes ended and what it wrote."""

    code: int
    out: str
    told: str


def run_together(
    count: int,
    arguments: Sequence[str],
    folder: Path,
    *,
    command: Sequence[str] = MAIN,
    flags: str = "",
    slurm: Mapping[str, str] | None = None,
    meanwhile: Callable[[list[subprocess.Popen[bytes]]], None] | None = None,
) -> list[Ended]:
    """Start ``count`` processes with these arguments, do something ``meanwhile``, and wait until all have ended.

    What they write is kept in ``folder``. One process is started as a user starts it alone. They are told how to find
    each other, or have to read it from the environment of ``slurm``. ``flags`` are those of XLA.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ, "PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, **cache_settings(),
    }  # fmt: skip
    address = f"127.0.0.1:{free_port()}"
    processes = []
    for number in range(count):
        several = [f"--distributed={address},{count},{number}"] if count > 1 else []
        if slurm is not None:
            several = ["--distributed=auto"]
            environment |= {**slurm, "SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)}
        out, err = (folder / f"{kind}-{number}.log" for kind in ("out", "err"))
        with out.open("wb") as out_file, err.open("wb") as err_file:
            processes.append(
                subprocess.Popen(
                    [*command, *arguments, *several], env=environment, cwd=folder, stdout=out_file, stderr=err_file
                )
            )
    try:
        if meanwhile is not None:
            meanwhile(processes)
        until = time.monotonic() + END_S
        codes = [process.wait(max(until - time.monotonic(), 1)) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        Ended(code, (folder / f"out-{number}.log").read_text(), (folder / f"err-{number}.log").read_text())
        for number, code in enumerate(codes)
    ]


def run_to_end(
    count: int, arguments: Sequence[str], folder: Path, *, command: Sequence[str] = MAIN, flags: str = ""
) -> list[Ended]:
    """Run processes that are all to end well."""
    ended = run_together(count, arguments, folder, command=command, flags=flags)
    assert [one.code for one in ended] == [0] * count, "\n".join(one.told[-3000:] for one in ended)
    return ended


def cache_settings() -> dict[str, str]:
    """Return one compile cache for all calls; not that of the tests, which a kill could leave a torn entry in."""
    return {
        "JAX_COMPILATION_CACHE_DIR": f"{jax.config.jax_compilation_cache_dir}-survival",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_until(
    ready: Callable[[], bool], processes: Sequence[subprocess.Popen[bytes]], *, seconds: float = 300
) -> None:
    """Wait for something that the processes do; they must not end before."""
    until = time.monotonic() + seconds
    while not ready():
        assert all(process.poll() is None for process in processes), "a process has ended"
        assert time.monotonic() < until, f"not ready after {seconds} s"
        time.sleep(0.02)

"""Measured rates of the machine: matrix products and memory traffic, with its description."""

import os
import platform
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

STREAM_BYTES = 2**29  # read and written by the traffic probe on a CPU: usually more than its caches hold
REPEATS = 12


def best_seconds(call: Callable[[], Any], *, repeats: int = REPEATS) -> float:
    """Return the shortest seconds of several runs of a call that returns device arrays, after one that compiles."""
    jax.block_until_ready(call())
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(call())
        taken.append(time.perf_counter() - started)
    return min(taken)


def matrix_rate(dtype: Any, *, side: int, repeats: int = REPEATS) -> float:
    """Return operations per second of a square matrix product: operands in ``dtype``, sums and result in float32."""
    x = jnp.ones((side, side), dtype)
    product = jax.jit(lambda a, b: jnp.einsum("MK,KN->MN", a, b, preferred_element_type=jnp.float32))
    return 2 * side**3 / best_seconds(lambda: product(x, x), repeats=repeats)


def bandwidth(size: int, *, repeats: int = REPEATS) -> float:
    """Return bytes per second, by the faster of two programs over ``size`` bytes.

    One adds two arrays into a third (the triad of McCalpin's STREAM). The other only reads: it multiplies a float32
    matrix of ``size`` bytes by a few vectors.
    """
    third = max(size // 12, 1024)
    a, b = jnp.ones(third, jnp.float32), jnp.ones(third, jnp.float32)
    triad = jax.jit(lambda a, b: a + 2.0 * b)
    rows = max(size // 4 // 1024, 1)
    matrix, vectors = jnp.ones((rows, 1024), jnp.float32), jnp.ones((8, 1024), jnp.float32)
    read = jax.jit(lambda m, v: jnp.einsum("XD,VD->XV", v, m))
    return max(
        12 * third / best_seconds(lambda: triad(a, b), repeats=repeats),
        4096 * rows / best_seconds(lambda: read(matrix, vectors), repeats=repeats),
    )


def probe_machine(working_sets: Sequence[int], *, quick: bool = False) -> dict[str, Any]:
    """Return the machine's description and rates; ``working_sets`` are sizes in bytes whose traffic is measured too.

    A model smaller than the caches is read from them: its floor uses the bandwidth of its own working set. ``quick``
    makes the probes small, for tests.
    """
    device = jax.devices()[0]
    accelerator = device.platform != "cpu"
    side, stream = (8192, 8 * STREAM_BYTES) if accelerator else (2048, STREAM_BYTES)
    repeats = REPEATS
    if quick:
        side, stream, repeats = 256, 2**20, 3
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "jax": jax.__version__,
        "platform": device.platform,
        "device": device.device_kind,
        "devices": len(jax.devices()),
        "flops": {name: matrix_rate(name, side=side, repeats=repeats) for name in ("float32", "bfloat16")},
        "stream_bytes": stream,
        "bandwidth": bandwidth(stream, repeats=repeats),
        "bandwidth_by_size": {str(size): bandwidth(size, repeats=repeats) for size in sorted(set(working_sets))},
    }


def peak_memory() -> int:
    """Return the peak memory of the device in bytes; if it keeps no count (a CPU), that of this process.

    On Linux the latter is read from ``/proc``: ``getrusage`` of a new process starts with its parent's peak.
    """
    counted = [stats["peak_bytes_in_use"] for d in jax.local_devices() if (stats := d.memory_stats())]
    if counted:
        return max(counted)
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())

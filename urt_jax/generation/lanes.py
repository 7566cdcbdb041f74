"""The number of responses decoded at a time and of threads that decode them, by a CPU's cores and cache sizes."""

import os
from typing import Any

import jax
from jax.sharding import Mesh

from urt_jax.generation.schedule import Schedule
from urt_jax.models.tuning import Tuning, tuning


def cpu_rows(params: Any, tuned: Tuning) -> int:
    """Return the number of rows that one CPU core decodes at a time: few if its caches hold the weights.

    With few rows, the caches hold the keys and values too. If the weights are read from memory, many rows share each
    read.
    """
    parts = (params[name] for name in ("decoder", "embedding", "head") if name in params)
    weights = sum(leaf.size * leaf.dtype.itemsize for part in parts for leaf in jax.tree.leaves(part))
    return tuned.few_rows if weights <= tuned.cached_weights else tuned.many_rows


def make_plan(
    questions: int, responses: int, *, params: Any, mesh: Mesh | None, at_once: int | None
) -> tuple[int, Schedule]:
    """Return the number of threads that decode in parallel, and the schedule of each.

    By default a CPU decodes ``cpu_rows`` at a time and splits whole questions over one thread per core: one program of
    a small model cannot keep two cores busy. Other devices decode all responses at once.
    """
    total = questions * responses
    splits = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
    parts = splits if questions % splits == 0 else 1
    tuned = tuning()
    if (mesh is not None and mesh.size > 1) or at_once is not None or not tuned.few_rows:
        return 1, Schedule.of(questions=questions, responses=responses, rows=at_once or total, parts=parts)
    rows = cpu_rows(params, tuned)
    most = max(min(cores(), total // rows), 1)
    lanes = next(count for count in range(most, 0, -1) if questions % count == 0)
    return lanes, Schedule.of(questions=questions // lanes, responses=responses, rows=rows)


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

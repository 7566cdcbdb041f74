"""Values that all layers read, computed once."""

from collections.abc import Callable
from typing import TypeVar

import jax
from jax import Array

from urt_jax.models.tuning import CPU
from urt_jax.sharding.activations import on_one_device

Result = TypeVar("Result")


def once(fn: Callable[[Array], Result], rows: Array) -> Result:
    """Return ``fn(rows)``, materialised once; ``fn`` must treat the rows of the first axis independently.

    XLA for CPUs recomputes an elementwise value, even a sine, inside every fusion that reads it, and ignores
    optimization barriers; it cannot recompute the result of a loop. So a single CPU device computes the rows in a loop
    of the fewest equal passes (2 or more). A GRPO step of urt-tiny, which had computed masks and rotations some sixty
    times, took 1.13 s instead of 1.24.
    """
    count = rows.shape[0]
    passes = next((n for n in range(2, count + 1) if count % n == 0), 1)
    if passes == 1 or not on_one_device() or not CPU.looped:
        return fn(rows)

    def looped(rows: Array) -> Result:
        parts = jax.lax.map(fn, rows.reshape(passes, -1, *rows.shape[1:]))
        joined: Result = jax.tree.map(lambda part: part.reshape(count, *part.shape[2:]), parts)
        return joined

    found: Result = jax.lax.platform_dependent(rows, cpu=looped, default=fn)
    return found

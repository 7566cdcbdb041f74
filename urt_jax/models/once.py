"""What all layers read, computed once for them."""

from collections.abc import Callable
from typing import TypeVar

import jax
from jax import Array

from urt_jax.models.tuning import CPU
from urt_jax.sharding.activations import on_one_device

Result = TypeVar("Result")


def once(fn: Callable[[Array], Result], rows: Array) -> Result:
    """Return ``fn(rows)``, which computes each row of the first axis alone, written to memory before anything reads it.

    XLA for CPUs computes what is elementwise anew inside every fusion that reads it, a sine as well as a sum, and obeys
    no optimization barrier; it cannot do so with what a loop gives. So one CPU device computes the rows in a loop of as
    few passes as divide them: a GRPO step of urt-tiny, whose masks and rotations were computed some sixty times, took
    1.13 s in place of 1.24.
    """
    count = rows.shape[0]
    passes = next((n for n in range(2, count + 1) if count % n == 0), 1)
    if passes == 1 or not on_one_device() or not CPU.looped:
        return fn(rows)

    def looped(rows: Array) -> Result:
        parts = jax.lax.map(fn, rows.reshape(passes, -1, *rows.shape[1:]))
        return jax.tree.map(lambda part: part.reshape(count, *part.shape[2:]), parts)

    return jax.lax.platform_dependent(rows, cpu=looped, default=fn)

"""What is computed once: the same values, one sine in a program with four readers, no loop where none is needed."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from urt_jax.models.once import once
from urt_jax.ops.masking import segment_mask
from urt_jax.ops.rope import rotation


def read_four_times(angles: jax.Array, *, kept: bool) -> jax.Array:
    turn = once(rotation, angles) if kept else rotation(angles)
    x = angles
    for _ in range(4):
        x = (x * turn.sin) @ jnp.ones((x.shape[-1], x.shape[-1]))
    return x


def sines(kept: bool) -> int:
    program = jax.jit(read_four_times, static_argnames="kept").lower(jnp.ones((6, 1, 32)), kept=kept).compile()
    return len(re.findall(r" sine\(", program.as_text() or ""))


def test_a_program_that_reads_it_four_times_holds_it_once() -> None:
    assert sines(kept=False) == 4, "XLA keeps it by itself: this module can go"
    assert sines(kept=True) == 1


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 12])
def test_values_are_those_of_a_plain_call(rows: int) -> None:
    angles = jnp.linspace(0.0, 9.0, rows * 10).reshape(rows, 5, 2)
    for found, wanted in zip(jax.jit(lambda x: once(rotation, x))(angles), rotation(angles)):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    segments = jnp.asarray(np.random.default_rng(0).integers(0, 3, (rows, 6)))
    mask = lambda x: jnp.asarray(segment_mask(x, x, jnp.arange(6), jnp.arange(6)))  # noqa: E731
    np.testing.assert_array_equal(jax.jit(lambda x: once(mask, x))(segments), mask(segments))


@pytest.mark.parametrize(("platform", "looped"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_only_a_cpu_loops(platform: str, looped: bool) -> None:
    traced = jax.jit(lambda x: once(rotation, x)).trace(jnp.ones((4, 3, 2)))
    assert ("while" in traced.lower(lowering_platforms=(platform,)).as_text()) == looped

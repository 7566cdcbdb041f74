"""Slices by name, and what their links carry."""

import pytest

from urt_jax.errors import BadInputError
from urt_jax.planning.chips import CHIPS, larger, topology


def test_a_name_gives_the_slice() -> None:
    found = topology("v5p:4x4x8")
    assert (found.chip.name, found.shape, found.chips, found.name) == ("v5p", (4, 4, 8), 128, "v5p:4x4x8")
    assert topology("h100:2x8").chips == 16


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5q:4x4", r"chip 'v5q' is unknown; did you mean 'v5p'\? known: v4, v5e, v5p, v6e, h100, h200"),
        ("v5p:4x4", "v5p takes 3 numbers of chips, such as v5p:2x2x4"),
        ("v6e:8x", "v6e takes 2 numbers of chips, such as v6e:2x4"),
        ("h100:8", "h100 takes nodes x GPUs of a node, such as h100:1x8"),
        ("v6e:16x32", "has 512 chips, a slice of v6e has at most 256"),
    ],
)
def test_a_wrong_name_is_told_with_a_right_one(name: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        topology(name)


def test_the_shortest_axis_grows_first() -> None:
    assert [larger(topology("v5p:2x2x2"), n).name for n in (1, 2, 4, 8, 128)] == [  # type: ignore[union-attr]
        "v5p:2x2x2", "v5p:2x2x4", "v5p:2x4x4", "v5p:4x4x4", "v5p:8x8x16",
    ]  # fmt: skip
    assert larger(topology("h100:1x8"), 4) == topology("h100:4x8")
    assert larger(topology("v6e:16x16"), 2) is None


def test_a_ring_moves_both_ways_and_a_line_one() -> None:
    v6e, h100 = CHIPS["v6e"], CHIPS["h100"]
    assert v6e.slice_bandwidth(16, axes=1, length=16) == 2 * 100e9
    assert v6e.slice_bandwidth(8, axes=1, length=8) == 100e9
    assert v6e.slice_bandwidth(64, axes=2, length=8) == 2 * 100e9
    assert h100.slice_bandwidth(8, axes=0, length=8) == 450e9
    assert h100.slice_bandwidth(16, axes=0, length=8) == 50e9

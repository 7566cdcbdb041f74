"""Learned grids stretched over frames: corners, places between rows, frames of several sizes, padding."""

import jax.numpy as jnp
import numpy as np
import pytest

from urt_jax.ops.sampling_grid import bilinear_rows

# A table of 3 x 3 whose row (y, x) holds 10 y + x and a constant.
TABLE = jnp.array([[10.0 * y + x, 1.0] for y in range(3) for x in range(3)])


def positions(rows: int, columns: int) -> np.ndarray:
    return np.stack(np.divmod(np.arange(rows * columns), columns), axis=-1).astype(np.int32)


def stretched(rows: int, columns: int) -> np.ndarray:
    """Return the first number that each place of a frame gets, as a grid."""
    found = bilinear_rows(TABLE, positions(rows, columns)[None], np.ones((1, rows * columns), bool), side=3)
    np.testing.assert_allclose(found[..., 1], 1.0, rtol=1e-6, err_msg="the four weights sum to one")
    return np.asarray(found[0, :, 0]).reshape(rows, columns)


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        (3, 3, [[0, 1, 2], [10, 11, 12], [20, 21, 22]]),
        (2, 2, [[0, 2], [20, 22]]),
        (2, 5, [[0, 0.5, 1, 1.5, 2], [20, 20.5, 21, 21.5, 22]]),
        (5, 1, [[0], [5], [10], [15], [20]]),
        (1, 1, [[0]]),
    ],
)
def test_corners_meet_corners_and_places_between_are_mixed(
    rows: int, columns: int, expected: list[list[float]]
) -> None:
    np.testing.assert_allclose(stretched(rows, columns), expected, rtol=1e-6)


def test_the_weights_of_both_axes_multiply() -> None:
    """(0.5, 0.5) between four rows that no plane goes through."""
    table = jnp.array([[1.0], [0.0], [0.0], [0.0]])
    found = bilinear_rows(table, positions(3, 3)[None], np.ones((1, 9), bool), side=2)
    np.testing.assert_allclose(found[0, :, 0], [1, 0.5, 0, 0.5, 0.25, 0, 0, 0, 0], rtol=1e-6)


def test_every_frame_has_its_own_grid_and_padding_gets_nothing() -> None:
    """A frame of 2 x 2 among nine slots; what stands in the others moves nothing."""
    both = np.zeros((2, 9, 2), np.int32)
    both[0, :4], both[0, 4:], both[1] = positions(2, 2), 7, positions(3, 3)
    mask = np.ones((2, 9), bool)
    mask[0, 4:] = False
    found = np.asarray(bilinear_rows(TABLE, both, mask, side=3))
    np.testing.assert_allclose(found[0, :4, 0], [0, 2, 20, 22], rtol=1e-6)
    np.testing.assert_array_equal(found[0, 4:], 0)
    np.testing.assert_allclose(found[1, :, 0], TABLE[:, 0], rtol=1e-6)


def test_an_empty_frame_gets_nothing() -> None:
    found = bilinear_rows(TABLE, np.zeros((1, 4, 2), np.int32), np.zeros((1, 4), bool), side=3)
    np.testing.assert_array_equal(found, np.zeros((1, 4, 2)))


def test_sums_are_float32_whatever_the_table() -> None:
    assert bilinear_rows(TABLE.astype(jnp.bfloat16), positions(2, 2)[None], np.ones((1, 4), bool), side=3).dtype == (
        jnp.float32
    )

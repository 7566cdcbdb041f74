"""Tiles by hand: which grid, where the borders lie, the order of tiles and patches, windows, pooling, resampling."""

import numpy as np
import pytest

from urt_jax.data.anyres import (
    PUBLISHED_GRIDS,
    TileGeometry,
    best_grid,
    bilinear_taps,
    cut_tiles,
    pooled_size,
    shown_window,
    square_tile,
    tile_patches,
)
from urt_jax.errors import BadInputError

# Tiles of 4 pixels, 2 x 2 patches of 2 pixels each.
GEOMETRY = TileGeometry(tile_size=4, patch_size=2, grids=((4, 4), (4, 8), (8, 4), (8, 8)), mean=(0.2, 0.4, 0.6))


def grey(height: int, width: int, level: int = 200) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def test_the_published_grids_are_all_of_1_to_6_by_1_to_6_tiles() -> None:
    assert len(set(PUBLISHED_GRIDS)) == 36
    assert PUBLISHED_GRIDS[:2] == ((384, 384), (384, 768))
    assert PUBLISHED_GRIDS[-1] == (2304, 2304)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((4, 8), (4, 8)),  # fits as it is
        ((3, 3), (4, 4)),  # every grid shows all of it, the smallest wastes least
        ((80, 80), (8, 8)),  # shown smaller
        ((40, 80), (4, 8)),  # 4 x 8 pixels in two grids: the flat one wastes less
        ((80, 40), (8, 4)),
        ((4, 100), (4, 4)),  # thinner than a pixel in all of them
    ],
)
def test_the_grid_shows_most_and_wastes_least(size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert best_grid(*size, GEOMETRY.grids) == grid


def test_the_order_of_grids_decides_between_equal_ones_only() -> None:
    assert best_grid(3, 3, ((8, 8), (4, 8), (4, 4))) == (4, 4)
    assert best_grid(4, 4, ((4, 8), (8, 4))) == (4, 8)
    assert best_grid(4, 4, ((8, 4), (4, 8))) == (8, 4)


def test_the_whole_picture_comes_first_and_tiles_follow_row_by_row() -> None:
    picture = np.repeat(np.repeat(np.arange(4, dtype=np.uint8).reshape(2, 2) * 60, 4, axis=0), 4, axis=1)
    tiles = cut_tiles(np.repeat(picture[..., None], 3, axis=-1), GEOMETRY)
    assert tiles.shape == (5, 4, 4, 3)
    for number, tile in enumerate(tiles[1:]):
        np.testing.assert_array_equal(tile, grey(4, 4, 60 * number))
    np.testing.assert_allclose(tiles[0, [0, 0, 3, 3], [0, 3, 0, 3], 0], [0, 60, 120, 180], atol=4)


def test_the_border_is_black_and_its_odd_pixel_right_or_below() -> None:
    wide, tall = cut_tiles(grey(3, 8), GEOMETRY), cut_tiles(grey(8, 3), GEOMETRY)
    for tile in wide[1:]:
        np.testing.assert_array_equal(tile[:, :, 0], [[200] * 4] * 3 + [[0] * 4])
    for tile in tall[1:]:
        np.testing.assert_array_equal(tile[:, :, 0], [[200, 200, 200, 0]] * 4)
    assert (wide[0] == 200).all(), "the whole picture is stretched, without a border"


def test_one_of_several_is_bordered_to_a_square_in_the_mean_colour() -> None:
    (tile,) = square_tile(grey(1, 4), GEOMETRY)
    np.testing.assert_array_equal(tile[[0, 2, 3]], np.broadcast_to(np.uint8([51, 102, 153]), (3, 4, 3)))
    np.testing.assert_array_equal(tile[1], grey(4, 1)[:, 0])
    (tile,) = square_tile(grey(4, 2), GEOMETRY)
    np.testing.assert_array_equal(tile[:, :, 0], [[51, 200, 200, 51]] * 4)


def test_patches_run_row_by_row_and_list_channels_first() -> None:
    """The fifth row and column of a tile of 5 pixels fill no patch of 2 and are not seen."""
    geometry = TileGeometry(tile_size=5, patch_size=2, mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3)
    tile = np.arange(75, dtype=np.uint8).reshape(1, 5, 5, 3)
    patches = tile_patches(tile, geometry)
    assert patches.shape == (1, 4, 12)
    for place, (row, column) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2)]):
        block = tile[0, row : row + 2, column : column + 2]
        np.testing.assert_allclose(patches[0, place].reshape(3, 2, 2), block.transpose(2, 0, 1), rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [
        ((10, 10), slice(0, 4), slice(0, 4)),
        ((5, 10), slice(1, 3), slice(0, 4)),  # 2 of 4 rows
        ((10, 5), slice(0, 4), slice(1, 3)),
        ((8, 10), slice(0, 4), slice(0, 4)),  # 3.2 rows: the border of less than a row is shown
        ((1, 100), slice(2, 2), slice(0, 4)),  # thinner than any patch
    ],
)
def test_the_window_leaves_whole_patches_of_border_out(size: tuple[int, int], rows: slice, columns: slice) -> None:
    assert shown_window(*size, 4, 4) == (rows, columns)


def test_an_odd_row_of_border_is_shown() -> None:
    assert shown_window(5, 10, 3, 4) == (slice(0, 3), slice(0, 4))  # 2 of 3 rows


def test_what_rounding_leaves_just_below_a_whole_row_is_one() -> None:
    """49 * (54 / 98) is 26.999999999999996 in floating point."""
    assert shown_window(49, 98, 54, 54) == (slice(13, 41), slice(0, 54))
    assert shown_window(98, 49, 54, 54) == (slice(0, 54), slice(13, 41))


@pytest.mark.parametrize(
    ("lines", "line", "tiles", "pooled"),
    [
        (4, 4, 4, (4, 4)),
        (4, 4, 1, (2, 2)),  # sqrt(16 / 4) = 2
        (2, 2, 1, (2, 2)),
        (6, 10, 9, (4, 7)),  # sqrt(60 / 36) = 1.29
        (6, 7, 9, (6, 7)),  # sqrt(42 / 36) = 1.08 is let pass
        (0, 4, 1, (0, 4)),
    ],
)
def test_pooling_brings_too_many_patches_to_the_most_allowed(
    lines: int, line: int, tiles: int, pooled: tuple[int, int]
) -> None:
    assert pooled_size(lines, line, 2, tiles) == pooled


@pytest.mark.parametrize(
    ("length", "wanted", "low", "high", "share"),
    [
        (4, 2, [0, 2], [1, 3], [0.5, 0.5]),
        (2, 4, [0, 0, 0, 1], [1, 1, 1, 1], [0, 0.25, 0.75, 0.25]),
        (3, 3, [0, 1, 2], [1, 2, 2], [0, 0, 0]),
        (0, 0, [], [], []),
    ],
)
def test_taps_by_hand(length: int, wanted: int, low: list[int], high: list[int], share: list[float]) -> None:
    found = bilinear_taps(length, wanted)
    for part, expected in zip(found, (low, high, share)):
        np.testing.assert_array_equal(part, expected)


def test_max_pixels_leaves_the_larger_grids_out() -> None:
    assert GEOMETRY.within(None, None) is GEOMETRY
    assert GEOMETRY.within(None, 32).grids == ((4, 4), (4, 8), (8, 4))
    with pytest.raises(BadInputError, match="max_pixels is 15, the smallest grid has 16 pixels; raise it"):
        GEOMETRY.within(None, 15)
    with pytest.raises(BadInputError, match="min_pixels is set, but this family cuts tiles of a fixed size"):
        GEOMETRY.within(1, None)


def test_a_too_long_prompt_gives_up_the_largest_grids_of_a_picture_alone() -> None:
    smaller = GEOMETRY.smaller([grey(9, 9)], [])
    assert smaller is not None
    assert smaller.grids == ((4, 4), (4, 8), (8, 4))
    least = smaller.smaller([grey(9, 9)], [])
    assert least is not None
    assert least.grids == ((4, 4),)
    assert least.smaller([grey(9, 9)], []) is None
    assert GEOMETRY.smaller([grey(9, 9)] * 2, []) is None, "one of several is one tile whatever the grids"
    assert GEOMETRY.smaller([], [np.zeros((2, 9, 9, 3), np.uint8)]) is None

"""Pictures as square tiles: the any-resolution rule of LLaVA-OneVision (arXiv 2408.03326, section 3.2)."""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, UInt8

from urt_jax.data.patches import normalize, resize_image
from urt_jax.errors import BadInputError

# Every grid of 1 to 6 by 1 to 6 tiles of 384 pixels, (height, width), row by row.
PUBLISHED_GRIDS = tuple((384 * rows, 384 * columns) for rows in range(1, 7) for columns in range(1, 7))


@dataclass(frozen=True, kw_only=True)
class TileGeometry:
    """A checkpoint's picture settings: tiles of ``tile_size`` pixels, cut into patches, and the allowed grids of tiles.

    ``grids`` are (height, width) in pixels; a picture of more than ``max_tiles`` tiles is pooled to that many after
    the projector. ``mean`` and ``std`` are per channel (RGB) on the scale 0..1.
    """

    tile_size: int = 384
    patch_size: int = 14
    grids: tuple[tuple[int, int], ...] = PUBLISHED_GRIDS
    max_tiles: int = 9
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def side(self) -> int:
        """Patches along one side of a tile; a remainder of pixels at the right and bottom is dropped."""
        return self.tile_size // self.patch_size

    def within(self, min_pixels: int | None, max_pixels: int | None) -> "TileGeometry":
        """Return settings with the grids of at most ``max_pixels`` pixels; one tile is always allowed.

        Raises:
            BadInputError: ``min_pixels`` is given, or one tile has more than ``max_pixels``.
        """
        if min_pixels is not None:
            raise BadInputError("min_pixels is set, but this family cuts tiles of a fixed size; leave it unset")
        if max_pixels is None:
            return self
        kept = tuple(grid for grid in self.grids if math.prod(grid) <= max_pixels)
        if not kept:
            raise BadInputError(
                f"max_pixels is {max_pixels}, the smallest grid has {min(map(math.prod, self.grids))} pixels; raise it"
            )
        return replace(self, grids=kept)

    def smaller(self, images: list[np.ndarray], clips: list[np.ndarray]) -> "TileGeometry | None":
        """Return settings without the largest grids, or None if that changes nothing or would leave none."""
        areas = sorted({math.prod(grid) for grid in self.grids})
        if len(images) != 1 or len(areas) == 1:
            return None
        return replace(self, grids=tuple(grid for grid in self.grids if math.prod(grid) < areas[-1]))


def best_grid(height: int, width: int, grids: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """Return the grid that keeps most pixels of a picture, then the one that wastes fewest, then the first."""

    def merit(grid: tuple[int, int]) -> tuple[int, int]:
        scale = min(grid[1] / width, grid[0] / height)
        shown = min(int(width * scale) * int(height * scale), width * height)
        return shown, shown - math.prod(grid)

    return max(grids, key=merit)


def cut_tiles(image: UInt8[np.ndarray, "H W 3"], geometry: TileGeometry) -> UInt8[np.ndarray, "n S S 3"]:
    """Return the whole picture as one tile, then the tiles of its best grid row by row.

    The picture is scaled to fit the grid and centred on black; an odd pixel of padding is at the right or bottom.
    """
    size, (height, width) = geometry.tile_size, image.shape[:2]
    grid = best_grid(height, width, geometry.grids)
    by_width, by_height = grid[1] / width, grid[0] / height
    if by_width < by_height:
        fitted = min(math.ceil(height * by_width), grid[0]), grid[1]
    else:
        fitted = grid[0], min(math.ceil(width * by_height), grid[1])
    canvas = np.zeros((*grid, 3), np.uint8)
    top, left = (grid[0] - fitted[0]) // 2, (grid[1] - fitted[1]) // 2
    canvas[top : top + fitted[0], left : left + fitted[1]] = resize_image(image, fitted)
    rows, columns = grid[0] // size, grid[1] // size
    tiles = canvas.reshape(rows, size, columns, size, 3).swapaxes(1, 2).reshape(-1, size, size, 3)
    return np.concatenate([resize_image(image, (size, size))[None], tiles])


def square_tile(image: UInt8[np.ndarray, "H W 3"], geometry: TileGeometry) -> UInt8[np.ndarray, "1 S S 3"]:
    """Return a picture as one tile, padded to a square with the mean colour."""
    height, width = image.shape[:2]
    side = max(height, width)
    canvas = np.empty((side, side, 3), np.uint8)
    canvas[:] = [int(255 * level) for level in geometry.mean]
    top, left = (side - height) // 2, (side - width) // 2
    canvas[top : top + height, left : left + width] = image
    return resize_image(canvas, (geometry.tile_size, geometry.tile_size))[None]


def tile_patches(tiles: UInt8[np.ndarray, "n S S 3"], geometry: TileGeometry) -> Float32[np.ndarray, "n P C"]:
    """Normalise tiles and cut them into patches, row by row; a patch's values are ordered channel, row, column."""
    side, patch = geometry.side, geometry.patch_size
    seen = normalize(tiles[:, : side * patch, : side * patch], geometry.mean, geometry.std)
    cut = seen.reshape(len(tiles), side, patch, side, patch, 3).transpose(0, 1, 3, 5, 2, 4)
    return np.ascontiguousarray(cut.reshape(len(tiles), side * side, 3 * patch * patch))


def shown_window(height: int, width: int, rows: int, columns: int) -> tuple[slice, slice]:
    """Return the rows and columns of a patch grid that a picture of height x width fills; the rest is padding."""
    if width / height > columns / rows:
        border = (rows - int(round(height * (columns / width), 7))) // 2
        return slice(border, rows - border), slice(0, columns)
    border = (columns - int(round(width * (rows / height), 7))) // 2
    return slice(0, rows), slice(border, columns - border)


def pooled_size(rows: int, columns: int, side: int, max_tiles: int) -> tuple[int, int]:
    """Return the size to which rows x columns patches are pooled, of about ``max_tiles`` tiles."""
    ratio = math.sqrt(rows * columns / (max_tiles * side**2))
    return (int(rows // ratio), int(columns // ratio)) if ratio > 1.1 else (rows, columns)


def bilinear_taps(length: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each of ``wanted`` points the two neighbours on an axis of ``length`` and the second one's weight.

    Centres are aligned (``align_corners=False`` of torch); points before the first centre take the first. As in torch,
    a coordinate is rounded to float32 once, after product and difference.
    """
    scale = np.float64(np.float32(length) / np.float32(max(wanted, 1)))
    place = np.maximum((scale * (np.arange(wanted) + 0.5) - 0.5).astype(np.float32), 0)
    low = np.minimum(place.astype(np.int64), length - 1)
    return low, np.minimum(low + 1, length - 1), (place - low).astype(np.float32)

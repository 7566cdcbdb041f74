"""The layout of tile patches in a prompt: joined grids, removed borders, pooling, line ends."""

import math

import numpy as np

from urt_jax.data.anyres import TileGeometry, best_grid, bilinear_taps, pooled_size, shown_window
from urt_jax.families.family import MediaLayout, Piece
from urt_jax.types import NEWLINE, FramePatches


def lay_out_square(patches: np.ndarray, geometry: TileGeometry) -> MediaLayout:
    """Lay out one of several pictures, patches float32 [1, P, C]: all its patches and a line end."""
    slots = np.concatenate([_whole_tile(0, geometry.side), [(NEWLINE, NEWLINE)]])
    return MediaLayout(_frames(patches, geometry.side), (_piece(slots),))


def lay_out_tiles(patches: np.ndarray, size: tuple[int, int], geometry: TileGeometry) -> MediaLayout:
    """Lay out a picture of (height, width) from its tiles float32 [1 + rows * columns, P, C], whole picture first.

    The patches of the tiles are joined to one grid, its borders are removed, a grid that is too large is pooled, and
    every line ends with a line end token::

        whole picture (side * side)   a b c d   then the grid line by line   e f g h ; i j k l ;
    """
    side = geometry.side
    rows, columns = (edge // geometry.tile_size for edge in best_grid(*size, geometry.grids))
    high, wide = shown_window(*size, rows * side, columns * side)
    lines, line = high.stop - high.start, wide.stop - wide.start
    taps = [bilinear_taps(length, wanted) for length, wanted in
            zip((lines, line), pooled_size(lines, line, side, geometry.max_tiles))]  # fmt: skip
    sources, weights = _grid_blend(taps, (high.start, wide.start), columns, side)
    base = _whole_tile(0, side)
    slots = np.concatenate([base, _with_line_ends(sources[..., 0, :]).reshape(-1, 2)])
    blend = _plain_blend(base), (_with_line_ends(sources, 0), _with_line_ends(weights, 0))
    joined = [np.concatenate([first, later.reshape(-1, *first.shape[1:])]) for first, later in zip(*blend)]
    return MediaLayout(_frames(patches, side), (_piece(slots, (joined[0], joined[1])),))


def lay_out_frames(patches: np.ndarray, geometry: TileGeometry) -> MediaLayout:
    """Lay out a clip from the tiles of its frames float32 [F, P, C]: each pooled by two, then one line end in all."""
    side = geometry.side
    taps = [bilinear_taps(side, math.ceil(side / 2))] * 2
    sources, weights = _grid_blend(taps, (0, 0), 1, side)
    sources, weights = sources.reshape(-1, 4, 2), weights.reshape(-1, 4)
    first = int(sources[0, 0, 0])
    all_sources = np.concatenate([sources + np.array([frame - first, 0]) for frame in range(len(patches))])
    slots = np.concatenate([all_sources[:, 0], [(NEWLINE, NEWLINE)]])
    blend = (
        np.concatenate([all_sources, np.zeros((1, 4, 2), np.int64)]),
        np.concatenate([np.tile(weights, (len(patches), 1)), np.zeros((1, 4), np.float32)]),
    )
    return MediaLayout(_frames(patches, side), (_piece(slots, blend),))


def _whole_tile(frame: int, side: int) -> np.ndarray:
    """Return the (frame, slot) of every patch of a tile."""
    return np.stack([np.full(side * side, frame), np.arange(side * side)], axis=-1)


def _grid_blend(
    taps: list[tuple[np.ndarray, np.ndarray, np.ndarray]], start: tuple[int, int], columns: int, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return sources [h, w, 4, 2] and weights [h, w, 4] of a resampled window of a tile grid (frames from 1)."""
    (low, high, share), (left, right, across) = taps
    sources, weights = [], []
    for row, row_weight in ((low, 1 - share), (high, share)):
        for column, weight in ((left, 1 - across), (right, across)):
            y, x = np.meshgrid(row + start[0], column + start[1], indexing="ij")
            frame = 1 + (y // side) * columns + x // side
            sources.append(np.stack([frame, (y % side) * side + x % side], axis=-1))
            weights.append(row_weight[:, None] * weight[None])
    return np.stack(sources, axis=2), np.stack(weights, axis=2).astype(np.float32)


def _with_line_ends(grid: np.ndarray, end: int = NEWLINE) -> np.ndarray:
    """Append a column of line ends, filled with ``end``."""
    return np.concatenate([grid, np.full((len(grid), 1, *grid.shape[2:]), end, grid.dtype)], axis=1)


def _plain_blend(slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the blend of tokens that show one patch each."""
    weights = np.zeros((len(slots), 4), np.float32)
    weights[:, 0] = 1
    return np.repeat(slots[:, None], 4, axis=1), weights


def _piece(slots: np.ndarray, blend: tuple[np.ndarray, np.ndarray] | None = None) -> Piece:
    """Return a piece whose positions are consecutive, like those of text."""
    if blend is None:
        sources, weights = _plain_blend(np.maximum(slots, 0))
        blend = sources, np.where(slots[:, :1] >= 0, weights, 0)
    places = np.broadcast_to(np.arange(len(slots), dtype=np.int32), (3, len(slots)))
    sources, weights = blend
    return Piece(slots.astype(np.int32), places, len(slots), (sources.astype(np.int32), weights.astype(np.float32)))


def _frames(patches: np.ndarray, side: int) -> tuple[FramePatches, ...]:
    position = np.stack(np.divmod(np.arange(side * side), side), axis=-1).astype(np.int32)
    return tuple(FramePatches(tile, position, np.ones(side * side, bool)) for tile in patches)

"""Tiles, grids and token counts equal those of transformers' LLaVA-OneVision processors, resampling that of torch."""

from types import SimpleNamespace

import numpy as np
import pytest
import transformers
from PIL import Image
from transformers.image_processing_utils import select_best_resolution

from tests.families.llava_reference import cut
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
from urt_jax.families.tile_layout import lay_out_frames, lay_out_square, lay_out_tiles

# The 36 published grids with small tiles, and few grids of tiles that leave a rest of 4 pixels.
SMALL = TileGeometry(tile_size=42, grids=tuple((42 * row, 42 * col) for row in range(1, 7) for col in range(1, 7)))
REST = TileGeometry(
    tile_size=60,
    grids=((60, 120), (120, 60), (120, 120), (60, 180), (180, 60)),
    max_tiles=2,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
EXTREMES = [(1, 1), (2, 50), (60, 2), (7, 5), (41, 43), (1000, 19), (12, 400), (300, 301), (600, 500)]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng([height, width]).integers(0, 256, (height, width, 3), np.uint8)


def reference_processor(geometry: TileGeometry) -> transformers.LlavaOnevisionImageProcessorPil:
    return transformers.LlavaOnevisionImageProcessorPil(
        size={"height": geometry.tile_size, "width": geometry.tile_size},
        image_grid_pinpoints=[list(grid) for grid in geometry.grids],
        image_mean=list(geometry.mean),
        image_std=list(geometry.std),
    )


def counting_processor(geometry: TileGeometry) -> transformers.LlavaOnevisionProcessor:
    """Return what counts tokens; a whole processor needs torchvision."""
    processor = object.__new__(transformers.LlavaOnevisionProcessor)
    processor.image_processor = SimpleNamespace(image_grid_pinpoints=[list(grid) for grid in geometry.grids])
    processor.num_image_tokens = geometry.side**2
    processor.vision_aspect_ratio = f"anyres_max_{geometry.max_tiles}"
    processor.vision_feature_select_strategy = "full"
    processor.image_token, processor.video_token = "i", "v"
    return processor


def assert_tiles_equal(array: np.ndarray, geometry: TileGeometry) -> None:
    made = reference_processor(geometry)(images=[Image.fromarray(array)], return_tensors="np")
    (expected,) = made["pixel_values"]
    patches = tile_patches(cut_tiles(array, geometry), geometry)
    np.testing.assert_allclose(patches, cut(expected, geometry), rtol=0, atol=1e-6)


@pytest.mark.parametrize("grid", SMALL.grids, ids=lambda grid: f"{grid[0] // 42}x{grid[1] // 42}")
def test_tiles_of_every_grid_equal_the_pillow_processor(grid: tuple[int, int]) -> None:
    """Borders are odd or even by turns, some at the bottom and some at the right."""
    height, width = grid[0] - grid[1] // 42 % 4, grid[1] - grid[0] // 42 % 3
    assert best_grid(height, width, SMALL.grids) == grid
    assert_tiles_equal(noise(height, width), SMALL)


@pytest.mark.parametrize("geometry", [SMALL, REST], ids=["small", "rest"])
@pytest.mark.parametrize("size", EXTREMES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_tiles_of_any_picture_equal_the_pillow_processor(geometry: TileGeometry, size: tuple[int, int]) -> None:
    assert_tiles_equal(noise(*size), geometry)


@pytest.mark.parametrize("size", [(480, 640), (1200, 333), (2400, 2500)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_tiles_of_the_published_size_equal_the_pillow_processor(size: tuple[int, int]) -> None:
    assert_tiles_equal(noise(*size), TileGeometry())


@pytest.mark.parametrize("geometry", [SMALL, REST], ids=["small", "rest"])
def test_squares_of_several_pictures_equal_the_pillow_processor(geometry: TileGeometry) -> None:
    arrays = [noise(*size) for size in ((40, 61), (90, 31), (42, 42), (1, 200), (3, 2))]
    made = reference_processor(geometry)(images=[[Image.fromarray(array) for array in arrays]], return_tensors="np")
    assert made["pixel_values"].shape[:2] == (5, 1)
    for array, expected in zip(arrays, made["pixel_values"]):
        patches = tile_patches(square_tile(array, geometry), geometry)
        np.testing.assert_allclose(patches, cut(expected, geometry), rtol=0, atol=1e-6)


def random_sizes(count: int, longest: int) -> list[tuple[int, int]]:
    """Return sizes of at most 1 : 100; thinner ones show no pixel in any grid, which transformers cannot do."""
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.uniform(0, np.log(longest), (count, 2))).astype(int).tolist()
    sizes += (rng.integers(1, 13, (count // 4, 2)) * 192).tolist()  # edges of grids and of half tiles, where ties are
    return [(height, width) for height, width in sizes if max(height, width) <= 100 * min(height, width)]


def test_the_best_grid_is_that_of_transformers() -> None:
    ties = ((200, 400), (100, 200), (200, 100), (200, 200), (100, 200), (300, 300))
    found = set()
    for grids in (PUBLISHED_GRIDS, ties):
        for size in random_sizes(1200, 5000):
            expected = select_best_resolution(size, [list(grid) for grid in grids])
            assert best_grid(*size, grids) == expected
            found.add(expected)
    assert found == {*PUBLISHED_GRIDS, *ties}


@pytest.mark.parametrize("tiles", [1, 4, 9])
def test_token_counts_are_those_of_transformers(tiles: int) -> None:
    geometry = TileGeometry(max_tiles=tiles)
    processor, side, pooled = counting_processor(geometry), geometry.side, 0
    for height, width in random_sizes(1200, 5000):
        grid = best_grid(height, width, geometry.grids)
        shown = shown_window(height, width, grid[0] // 384 * side, grid[1] // 384 * side)
        lines, line = (window.stop - window.start for window in shown)
        rows, columns = pooled_size(lines, line, side, tiles)
        assert side**2 + rows * (columns + 1) == processor._get_number_of_features(height, width, 384, 384)
        pooled += (rows, columns) != (lines, line)
    assert 0 < pooled < 1300


@pytest.mark.parametrize("geometry", [SMALL, REST], ids=["small", "rest"])
def test_layouts_have_the_tokens_of_transformers(geometry: TileGeometry) -> None:
    processor, tile = counting_processor(geometry), geometry.tile_size
    for size in (*EXTREMES, (42, 42), (61, 60), (200, 90)):
        grid = best_grid(*size, geometry.grids)
        patches = np.zeros((1 + grid[0] * grid[1] // tile**2, geometry.side**2, 3 * 14 * 14), np.float32)
        (piece,) = lay_out_tiles(patches, size, geometry).pieces
        inputs = {"batch_num_images": [1], "image_sizes": [size], "pixel_values": np.zeros((1, 1, 3, tile, tile))}
        assert len(piece.slots_E2) == len(processor.replace_image_token(inputs, 0))
    (piece,) = lay_out_square(patches[:1], geometry).pieces
    assert len(piece.slots_E2) == len(processor.replace_image_token({"batch_num_images": [3]}, 1))
    for frames in (1, 4):
        clip = np.zeros((frames, *patches.shape[1:]), np.float32)
        (piece,) = lay_out_frames(clip, geometry).pieces
        assert len(piece.slots_E2) == len(processor.replace_video_token({"pixel_values_videos": [clip]}, 0))


@pytest.mark.parity
def test_taps_are_those_of_bilinear_interpolation() -> None:
    torch = pytest.importorskip("torch", reason="torch is missing: its interpolation is the reference")
    rng = np.random.default_rng(0)
    for length, wanted in [(27, 14), (162, 81), (135, 99), (81, 73), (5, 9), (1, 3), (4, 1), (7, 7), (161, 80)]:
        values = rng.standard_normal((length, 6)).astype(np.float32)
        image = torch.from_numpy(values.T.copy())[None, :, None]
        stretched = torch.nn.functional.interpolate(image, size=(1, wanted), mode="bilinear")
        expected = stretched[0, :, 0].numpy().T
        low, high, share = bilinear_taps(length, wanted)
        found = values[low] * (1 - share[:, None]) + values[high] * share[:, None]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)

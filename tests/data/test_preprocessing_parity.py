"""Patches and grids equal those of transformers' processors, for pictures and clips."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image

from tests.families.llava_reference import cut
from tests.torchvision_process import run_with_torchvision
from urt_jax.checkpoints.model_folder import read_geometry
from urt_jax.data.anyres import TileGeometry, tile_patches
from urt_jax.data.clip_budget import ClipGeometry, clip_patches, clip_size
from urt_jax.data.frame_resizing import resize_frames
from urt_jax.data.patches import PictureGeometry, image_patches, smart_resize
from urt_jax.data.video import video_patches
from urt_jax.errors import BadInputError
from urt_jax.families import qwen2_5_vl, qwen3_vl

GEOMETRY = PictureGeometry(
    min_pixels=56 * 56,
    max_pixels=28 * 28 * 1280,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    video_min_pixels=128 * 28 * 28,
    video_max_pixels=768 * 28 * 28,
)
SMALL = PictureGeometry(
    patch_size=4,
    temporal_patch_size=3,
    merge_size=3,
    min_pixels=12 * 12,
    max_pixels=12 * 12 * 9,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.4, 0.3),
    video_min_pixels=12 * 12 * 2,
    video_max_pixels=12 * 12 * 7,
)
# What the files of the published Qwen3-VL embedding model say.
QWEN3 = ClipGeometry(
    patch_size=16,
    min_pixels=4096,
    max_pixels=1_310_720,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    video_min_pixels=4096,
    video_max_pixels=25_165_824,
)
QWEN3_SHORT = replace(QWEN3, video_min_pixels=128 * 32 * 32, video_max_pixels=768 * 32 * 32)  # transformers' defaults

SMALL_CLIPS = ClipGeometry(**vars(SMALL))

# (frames, height, width) of the clips: odd and even counts, off the grid and, last, on it
CLIPS = {
    "qwen2_5_vl": [(1, 370, 401), (4, 333, 517), (5, 90, 120), (2, 700, 1300), (2, 1300, 500), (3, 336, 504)],
    "qwen3_vl": [(4, 333, 517), (5, 90, 120), (9, 200, 617), (2, 700, 1300), (2, 20, 700), (3, 320, 512)],
    "llava_onevision": [(3, 200, 500), (1, 700, 611), (2, 384, 384)],
}

REFERENCE = """
half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
size = {"shortest_edge": 128 * 32 * 32, "longest_edge": 768 * 32 * 32}
processors = {
    "qwen2_5_vl": transformers.Qwen2VLVideoProcessor(),
    "qwen3_vl": transformers.Qwen3VLVideoProcessor(size=size, do_sample_frames=False, **half),
    "llava_onevision": transformers.LlavaOnevisionVideoProcessor(**half),
}
for name, frames in given.items():
    clip = torch.from_numpy(frames.transpose(0, 3, 1, 2).copy())
    made = processors[name.split("/")[0]](videos=[clip], return_tensors="pt")
    results[name] = made["pixel_values_videos"].numpy()
    if "video_grid_thw" in made:
        results[name + "/grid"] = made["video_grid_thw"].numpy()
"""


def picture(height: int, width: int) -> np.ndarray:
    """Return smooth colours with noise on them, so that resampling has both to get right."""
    rng = np.random.default_rng(height * 10_007 + width)
    rows, columns = np.mgrid[0:height, 0:width]
    smooth = np.stack([rows * 255 / height, columns * 255 / width, (rows + columns) % 256], axis=-1)
    return np.clip(smooth + rng.normal(0, 40, smooth.shape), 0, 255).astype(np.uint8)


def reference_processor(geometry: PictureGeometry) -> transformers.Qwen2VLImageProcessorPil:
    return transformers.Qwen2VLImageProcessorPil(
        size={"shortest_edge": geometry.min_pixels, "longest_edge": geometry.max_pixels},
        patch_size=geometry.patch_size,
        temporal_patch_size=geometry.temporal_patch_size,
        merge_size=geometry.merge_size,
        image_mean=list(geometry.mean),
        image_std=list(geometry.std),
    )


@pytest.mark.parametrize("geometry", [GEOMETRY, SMALL, QWEN3], ids=["qwen2.5", "small", "qwen3"])
@pytest.mark.parametrize(
    ("height", "width"),
    [(56, 56), (1, 1), (3, 5), (13, 2000), (1999, 11), (241, 333), (70, 98), (480, 640), (1311, 1733), (84, 84)],
)
def test_pictures_equal_the_pillow_processor(height: int, width: int, geometry: PictureGeometry) -> None:
    array = picture(height, width)
    expected = reference_processor(geometry)(images=[Image.fromarray(array)], return_tensors="np")
    patches, grid = image_patches(array, geometry=geometry)
    assert [list(grid)] == expected["image_grid_thw"].tolist()
    np.testing.assert_allclose(patches, expected["pixel_values"], rtol=0, atol=1e-6)


def test_sizes_equal_the_published_rule() -> None:
    rule = transformers.models.qwen2_vl.image_processing_pil_qwen2_vl.smart_resize
    rng = np.random.default_rng(0)
    for factor, low, high in [
        (28, 3136, 28 * 28 * 1280),
        (28, 128 * 784, 768 * 784),
        (32, 4096, 2**24),
        (12, 144, 1296),
    ]:
        sizes = np.exp(rng.uniform(0, np.log(5000), (2000, 2))).astype(int).tolist()
        # sides that meet a multiple or half of one exactly, where the order of operations shows
        sizes += (rng.integers(1, 80, (1000, 2)) * factor // 2).tolist()
        for height, width in sizes:
            if max(height, width) <= 200 * min(height, width):
                ours = smart_resize(height, width, factor=factor, min_pixels=low, max_pixels=high)
                assert ours == rule(height, width, factor=factor, min_pixels=low, max_pixels=high)


def test_the_published_settings_are_read(test_data: Path) -> None:
    for family, name, expected in (
        (qwen2_5_vl.FAMILY, "qwen2_5_vl_7b", replace(GEOMETRY, max_pixels=12_845_056)),
        (qwen3_vl.FAMILY, "qwen3_vl_8b_embedding", QWEN3),
    ):
        assert read_geometry(test_data / "qwen-tokenizer" / name, family, {}) == expected


@pytest.mark.parity
@pytest.mark.parametrize("geometry", [QWEN3, QWEN3_SHORT, SMALL_CLIPS], ids=["published", "short", "small"])
def test_sizes_of_clips_equal_the_published_rule(geometry: ClipGeometry) -> None:
    pytest.importorskip("torch", reason="the rule lies in a module of transformers that imports torch")
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize as rule

    step, factor, refused = geometry.temporal_patch_size, geometry.factor, 0
    settings = {"min_pixels": geometry.video_min_pixels, "max_pixels": geometry.video_max_pixels}
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.uniform(0, np.log(4000), (3000, 2))).astype(int).tolist()
    sizes += (rng.integers(1, 60, (1000, 2)) * factor // 2).tolist()
    for height, width in sizes:
        frames = int(rng.integers(step, 40))
        try:
            expected = rule(frames, height, width, temporal_factor=step, factor=factor, **settings)
        except ValueError:
            refused += 1
            with pytest.raises(BadInputError, match="one side may be at most 200 times the other"):
                clip_size(frames, height, width, geometry)
        else:
            assert clip_size(frames, height, width, geometry) == expected
    assert 0 < refused < 0.2 * len(sizes)


@pytest.fixture(scope="module")
def reference_clips(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, np.ndarray]:
    """Return what transformers' torchvision processors make of ``CLIPS``."""
    given = {f"{family}/{i}": clip(*shape) for family, shapes in CLIPS.items() for i, shape in enumerate(shapes)}
    return run_with_torchvision(REFERENCE, given, tmp_path_factory.mktemp("clips"))


def clip(frames: int, height: int, width: int) -> np.ndarray:
    return np.stack([np.roll(picture(height, width), 7 * i, axis=1) for i in range(frames)])


def clips_of(family: str) -> pytest.MarkDecorator:
    shapes = CLIPS[family]
    return pytest.mark.parametrize("index", range(len(shapes)), ids=["x".join(map(str, shape)) for shape in shapes])


def assert_close(patches: np.ndarray, expected: np.ndarray, *, on_grid: bool) -> None:
    """Pillow's and torchvision's bicubic filters round differently, by up to two of 256 levels."""
    np.testing.assert_allclose(patches, expected, rtol=0, atol=0.035)
    if on_grid:  # nothing is resampled
        np.testing.assert_allclose(patches, expected, rtol=0, atol=1e-6)


@pytest.mark.parity
@clips_of("qwen2_5_vl")
def test_clips_equal_the_torchvision_processor_of_qwen2_5(
    reference_clips: Mapping[str, np.ndarray], index: int
) -> None:
    shape = CLIPS["qwen2_5_vl"][index]
    patches, grid = video_patches(clip(*shape), geometry=GEOMETRY)
    assert [list(grid)] == reference_clips[f"qwen2_5_vl/{index}/grid"].tolist()
    assert_close(patches, reference_clips[f"qwen2_5_vl/{index}"], on_grid=shape == (3, 336, 504))


@pytest.mark.parity
@clips_of("qwen3_vl")
def test_clips_equal_the_torchvision_processor_of_qwen3(reference_clips: Mapping[str, np.ndarray], index: int) -> None:
    shape = CLIPS["qwen3_vl"][index]
    patches, grid = clip_patches(clip(*shape), QWEN3_SHORT, name="clip")
    assert [list(grid)] == reference_clips[f"qwen3_vl/{index}/grid"].tolist()
    assert_close(patches, reference_clips[f"qwen3_vl/{index}"], on_grid=shape == (3, 320, 512))


@pytest.mark.parity
@clips_of("llava_onevision")
def test_clips_equal_the_torchvision_processor_of_onevision(
    reference_clips: Mapping[str, np.ndarray], index: int
) -> None:
    shape, geometry = CLIPS["llava_onevision"][index], TileGeometry()
    tiles = resize_frames(clip(*shape), (384, 384))
    (expected,) = reference_clips[f"llava_onevision/{index}"]
    assert_close(tile_patches(tiles, geometry), cut(expected, geometry), on_grid=shape == (2, 384, 384))

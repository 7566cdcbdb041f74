"""Patches and grids equal those of transformers' processors, for pictures and clips."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image

from urt_jax.data.images import PictureGeometry, image_patches, smart_resize
from urt_jax.data.video import video_patches

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

# (frames, height, width) of the clips: odd and even counts, off the grid and, last, on it
CLIPS = [(1, 370, 401), (4, 333, 517), (5, 90, 120), (2, 700, 1300), (3, 336, 504)]

# Runs where torchvision is: writes what transformers makes of the clips. CPU torch lacks two operators that torchvision
# registers itself with, so they are declared first.
REFERENCE = """
import sys
import torch
library = torch.library.Library("torchvision", "DEF")
for op in ("nms", "qnms"):
    library.define(f"{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import numpy as np
import transformers
processor = transformers.Qwen2VLVideoProcessor()
results = {}
for name, frames in np.load(sys.argv[1]).items():
    made = processor(videos=[torch.from_numpy(frames.transpose(0, 3, 1, 2).copy())], return_tensors="pt")
    results[name + "_patches"] = made["pixel_values_videos"].numpy()
    results[name + "_grid"] = made["video_grid_thw"].numpy()
np.savez(sys.argv[2], **results)
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


@pytest.mark.parametrize("geometry", [GEOMETRY, SMALL], ids=["published", "small"])
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


@pytest.fixture(scope="module")
def reference_clips(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, np.ndarray]:
    """Return what transformers' torchvision processor makes of ``CLIPS``, computed in a process of its own."""
    pytest.importorskip("torch", reason="torch is missing: clips are not compared with transformers")
    folder = os.environ.get("URT_TORCHVISION", "")
    if not folder:
        pytest.skip(
            "URT_TORCHVISION is not set: give a folder made by pip install --no-deps --target, with torchvision"
        )
    if not (Path(folder) / "torchvision").is_dir():
        pytest.fail(f"URT_TORCHVISION={folder} holds no torchvision")
    work = tmp_path_factory.mktemp("clips")
    np.savez(work / "in.npz", **{f"clip{i}": clip(*shape) for i, shape in enumerate(CLIPS)})
    command = [sys.executable, "-c", REFERENCE, str(work / "in.npz"), str(work / "out.npz")]
    run = subprocess.run(command, env={**os.environ, "PYTHONPATH": folder}, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return np.load(work / "out.npz")


def clip(frames: int, height: int, width: int) -> np.ndarray:
    return np.stack([np.roll(picture(height, width), 7 * i, axis=1) for i in range(frames)])


@pytest.mark.parity
@pytest.mark.parametrize("index", range(len(CLIPS)), ids=["x".join(map(str, shape)) for shape in CLIPS])
def test_clips_equal_the_torchvision_processor(reference_clips: Mapping[str, np.ndarray], index: int) -> None:
    patches, grid = video_patches(clip(*CLIPS[index]), geometry=GEOMETRY)
    expected = reference_clips[f"clip{index}_patches"]
    assert [list(grid)] == reference_clips[f"clip{index}_grid"].tolist()
    np.testing.assert_allclose(patches, expected, rtol=0, atol=0.035)
    if index == len(CLIPS) - 1:  # on the grid nothing is resampled
        np.testing.assert_array_equal(patches, expected)

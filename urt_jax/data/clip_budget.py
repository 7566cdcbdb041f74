"""Resizing of clips under one pixel budget for all frames, as in Qwen3-VL (arXiv 2511.21631)."""

import math
from dataclasses import dataclass, replace

import numpy as np

from urt_jax.data.frame_resizing import resize_frames
from urt_jax.data.patches import MAX_ASPECT_RATIO, SHRINK, PictureGeometry, frame_patches
from urt_jax.errors import BadInputError


@dataclass(frozen=True, kw_only=True)
class ClipGeometry(PictureGeometry):
    """The Qwen picture settings, with a video pixel budget for the whole clip (frames x h x w).

    ``keep_wrapper``: a clip's time stamps go inside the vision start and end tokens that the chat template writes
    around the clip (transformers 5), or replace them (transformers 4, which wrote the first checkpoints).
    """

    keep_wrapper: bool = False

    def smaller(self, images: list[np.ndarray], clips: list[np.ndarray]) -> "ClipGeometry | None":
        """Return settings under which these media have fewer pixels, or None if all are at their minimum."""
        longest = max((int(np.prod(frames.shape[:3])) for frames in clips), default=0)
        clip_pixels = min(self.video_max_pixels, longest) if longest else self.video_min_pixels
        pictures = super().smaller(images, [])
        if pictures is None and clip_pixels <= self.video_min_pixels:
            return None
        smaller = max(int(clip_pixels * SHRINK), self.video_min_pixels)
        return replace(self, max_pixels=pictures.max_pixels if pictures else self.max_pixels, video_max_pixels=smaller)


def clip_size(frames: int, height: int, width: int, geometry: ClipGeometry) -> tuple[int, int]:
    """Return the (height, width) of the frames of a clip: multiples of the factor within the clip's pixel budget.

    The budget counts whole temporal patches; sides below the factor are scaled up first (transformers 5, Qwen3-VL).

    Raises:
        BadInputError: one side is more than 200 times the other.
    """
    factor, step = geometry.factor, geometry.temporal_patch_size
    if min(height, width) < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise BadInputError(
            f"frames of {height}x{width} (height x width): one side may be at most {MAX_ASPECT_RATIO} times the other; "
            "crop or pad them"
        )
    counted = round(frames / step) * step
    rounded = round(height / factor) * factor, round(width / factor) * factor
    if counted * math.prod(rounded) > geometry.video_max_pixels:
        ratio = math.sqrt(frames * height * width / geometry.video_max_pixels)
        rows, columns = math.floor(height / ratio / factor), math.floor(width / ratio / factor)
        return max(rows, 1) * factor, max(columns, 1) * factor
    if counted * math.prod(rounded) < geometry.video_min_pixels:
        ratio = math.sqrt(geometry.video_min_pixels / (frames * height * width))
        return math.ceil(height * ratio / factor) * factor, math.ceil(width * ratio / factor) * factor
    return rounded


def clip_patches(frames: np.ndarray, geometry: ClipGeometry, *, name: str) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Resize, normalise and cut a clip uint8 [F, H, W, 3]; return float32 patches [P, C] and the grid (t, h, w).

    A clip shorter than one temporal patch counts as one.

    Raises:
        BadInputError: as ``clip_size``, naming the clip.
    """
    count = max(len(frames), geometry.temporal_patch_size)
    try:
        size = clip_size(count, frames.shape[1], frames.shape[2], geometry)
    except BadInputError as error:
        raise BadInputError(f"{name}: {error}") from None
    return frame_patches(resize_frames(frames, size), geometry)

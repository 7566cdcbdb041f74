"""From RGB arrays to the flat patches of the Qwen vision towers: resizing, normalisation, cutting."""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from urt_jax.errors import BadInputError

SHRINK = 0.8  # share of the pixels that each retry of a too long prompt keeps
MAX_ASPECT_RATIO = 200  # longer strips are refused, as in the published processors


@dataclass(frozen=True, kw_only=True)
class PictureGeometry:
    """A checkpoint's picture settings: patch sizes in pixels and frames, pixel budgets of a picture or video frame.

    ``mean`` and ``std`` are per channel (RGB) on the scale 0..1.
    """

    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    min_pixels: int
    max_pixels: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    video_min_pixels: int
    video_max_pixels: int

    def __post_init__(self) -> None:
        for prefix in ("", "video_"):
            least, most = getattr(self, f"{prefix}min_pixels"), getattr(self, f"{prefix}max_pixels")
            if not 1 <= least <= most:
                raise BadInputError(
                    f"{prefix}min_pixels={least} and {prefix}max_pixels={most}: need 1 <= min <= max; these are counts "
                    "of pixels (height x width) of one picture, fix the preprocessor settings of the checkpoint"
                )

    @property
    def factor(self) -> int:
        """Pixels along one side of a merged patch; both sides of a resized picture are multiples of it."""
        return self.patch_size * self.merge_size

    def within(self, min_pixels: int | None, max_pixels: int | None) -> "PictureGeometry":
        """Return settings with the given pixel bounds of a picture; None keeps a bound.

        Raises:
            BadInputError: the lower bound is above the upper one.
        """
        low, high = min_pixels or self.min_pixels, max_pixels or self.max_pixels
        if low > high:
            raise BadInputError(f"min_pixels {low} is above max_pixels {high}; set both pixels knobs")
        return replace(self, min_pixels=low, max_pixels=high)

    def smaller(self, images: list[np.ndarray], clips: list[np.ndarray]) -> "PictureGeometry | None":
        """Return settings under which these media have fewer pixels, or None if all are at their minimum."""
        largest_image = max((image.shape[0] * image.shape[1] for image in images), default=0)
        largest_frame = max((frames.shape[1] * frames.shape[2] for frames in clips), default=0)
        image_pixels = min(self.max_pixels, largest_image) if largest_image else self.min_pixels
        frame_pixels = min(self.video_max_pixels, largest_frame) if largest_frame else self.video_min_pixels
        if image_pixels <= self.min_pixels and frame_pixels <= self.video_min_pixels:
            return None
        return replace(
            self,
            max_pixels=max(int(image_pixels * SHRINK), self.min_pixels),
            video_max_pixels=max(int(frame_pixels * SHRINK), self.video_min_pixels),
        )


def smart_resize(height: int, width: int, *, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Return the (height, width) to which a picture is resized: multiples of ``factor`` within a pixel budget.

    The rule of Qwen2-VL and Qwen2.5-VL: round each side to the nearest multiple (half to even); outside the budget,
    scale both sides by one ratio and round towards the budget.

    Raises:
        BadInputError: one side is more than 200 times the other, or a side is 0.
    """
    short, long = sorted((height, width))
    if short < 1 or long / short > MAX_ASPECT_RATIO:
        raise BadInputError(
            f"the picture is {height}x{width} (height x width), one side may be at most {MAX_ASPECT_RATIO} times the "
            "other; crop or pad it"
        )

    rounded = round(height / factor) * factor, round(width / factor) * factor
    # In the published order of operations: close to a multiple, another order rounds differently.
    if math.prod(rounded) > max_pixels:
        ratio = math.sqrt(height * width / max_pixels)
        rows, columns = math.floor(height / ratio / factor), math.floor(width / ratio / factor)
        return max(rows, 1) * factor, max(columns, 1) * factor
    if math.prod(rounded) < min_pixels:
        ratio = math.sqrt(min_pixels / (height * width))
        return math.ceil(height * ratio / factor) * factor, math.ceil(width * ratio / factor) * factor
    return rounded


def resize_image(array: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """Resize to (height, width) by Pillow's bicubic filter; a picture of that size is returned itself."""
    if array.shape[:2] == size:
        return array
    return np.asarray(Image.fromarray(array).resize((size[1], size[0]), resample=Image.Resampling.BICUBIC))


def normalize(
    array: UInt8[np.ndarray, "... 3"], mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Float32[np.ndarray, "... 3"]:
    """Return ``(x - 255 mean) / (255 std)`` per channel, in float32 on the scale 0..255.

    The order of operations is that of the fused torchvision processors, bit for bit; the Pillow ones differ by 3e-7.
    """
    # Whole rows of pixels at once, since numpy is slow over a last axis of three.
    offset, spread = (np.tile(np.asarray(part, np.float32) * np.float32(255), array.shape[-2]) for part in (mean, std))
    result = array.reshape(*array.shape[:-2], -1).astype(np.float32)
    result -= offset
    result /= spread
    return result.reshape(array.shape)


def patchify(
    frames: Float32[np.ndarray, "F H W C"], *, patch_size: int, temporal_patch_size: int, merge_size: int
) -> tuple[Float32[np.ndarray, "P K"], tuple[int, int, int]]:
    """Cut frames into flat patches and return them with their grid (t, h, w) in patches, ``P = t*h*w``.

    The last frame is repeated until the frames fill whole temporal patches, so a picture is one frame. The patches of a
    merge block are consecutive; a patch's values are ordered channel, frame, row, column. With ``merge_size=2``::

        order of the patches of one frame    0 1 | 4 5
                                             2 3 | 6 7

    Raises:
        ValueError: a side is not a multiple of ``patch_size * merge_size``.
    """
    count, height, width, channels = frames.shape
    factor = patch_size * merge_size
    if height % factor or width % factor:
        raise ValueError(f"frames of {height}x{width} are no multiples of {factor}; resize them by smart_resize first")
    if missing := -count % temporal_patch_size:
        frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
    grid = len(frames) // temporal_patch_size, height // patch_size, width // patch_size
    blocks = frames.reshape(
        grid[0],
        temporal_patch_size,
        *(grid[1] // merge_size, merge_size, patch_size),
        *(grid[2] // merge_size, merge_size, patch_size),
        channels,
    )
    # (t, frame, row block, row, y, column block, column, x, channel)
    ordered = blocks.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return ordered.reshape(math.prod(grid), channels * temporal_patch_size * patch_size**2), grid


def image_patches(
    array: UInt8[np.ndarray, "H W 3"], *, geometry: PictureGeometry, name: str = "image"
) -> tuple[Float32[np.ndarray, "P K"], tuple[int, int, int]]:
    """Resize, normalise and cut one picture; return its patches and grid (1, h, w).

    Raises:
        BadInputError: the picture's aspect ratio is too large; ``name`` is in the message.
    """
    low, high = geometry.min_pixels, geometry.max_pixels
    try:
        size = smart_resize(*array.shape[:2], factor=geometry.factor, min_pixels=low, max_pixels=high)
    except BadInputError as error:
        raise BadInputError(f"{name}: {error}") from None
    return frame_patches(resize_image(array, size)[None], geometry)


def frame_patches(
    frames: UInt8[np.ndarray, "F H W 3"], geometry: PictureGeometry
) -> tuple[Float32[np.ndarray, "P K"], tuple[int, int, int]]:
    """Normalise and cut frames that already have their final size."""
    return patchify(
        normalize(frames, geometry.mean, geometry.std),
        patch_size=geometry.patch_size,
        temporal_patch_size=geometry.temporal_patch_size,
        merge_size=geometry.merge_size,
    )

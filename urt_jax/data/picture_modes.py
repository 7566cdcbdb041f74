"""Conversion of all pixel formats to upright RGB, strip by strip, so that a large picture is not copied twice."""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from urt_jax.errors import BadInputError

_STRIP_PIXELS = 1 << 22  # pixels per strip; smaller pictures are converted whole
_EXIF_ORIENTATION = 0x0112
# EXIF orientation -> the upright picture as a view of the stored array (EXIF 2.3), so that rotating copies nothing.
_STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


def upright_rgb(picture: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """Return a decoded picture upright and as RGB, transparency over white, 16 bits scaled to 8.

    Raises:
        BadInputError: pixels without a fixed range.
    """
    width, height = picture.size
    turn = _orientation(picture)
    upright = np.empty((width, height, 3) if turn in (5, 6, 7, 8) else (height, width, 3), np.uint8)
    stored = _STORED[turn](upright) if turn in _STORED else upright
    rows = max(_STRIP_PIXELS // width, 1)
    for top in range(0, height, rows):
        whole = rows >= height
        strip = picture if whole else picture.crop((0, top, width, min(top + rows, height)))
        stored[top : top + rows] = np.asarray(_to_rgb(strip))
    return upright


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # damaged metadata with valid pixels: keep the stored orientation
        return 1


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        return _eight_bits(np.asarray(picture)).convert("RGB")
    if picture.mode == "F":
        raise BadInputError("its pixels are floating-point numbers (mode F), of no fixed range; save it with 8 bits")
    if not picture.has_transparency_data:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture.convert("RGBA"))
    return white.convert("RGB")


def _eight_bits(values: np.ndarray) -> Image.Image:
    if values.min() < 0 or values.max() > 65535:
        raise BadInputError(
            f"its grey values reach from {values.min()} to {values.max()}, 16-bit values are 0 to 65535; "
            "save it with 8 bits"
        )
    return Image.fromarray(((values.astype(np.int64) + 128) // 257).astype(np.uint8))

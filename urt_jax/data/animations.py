"""Decoding of GIF, WebP and PNG animations by Pillow."""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from urt_jax.data.containers import gif_frames
from urt_jax.data.frame_picking import MAX_CLIP_SECONDS, Timeline, measured_timeline
from urt_jax.data.images import check_pixels, decode_picture, quiet, without_addresses
from urt_jax.errors import BadInputError

_ANIMATED_FORMATS = {"GIF", "WEBP", "PNG"}  # other formats with several pictures per file (TIFF, MPO) are not clips
# Each frame is decoded to reach the next. These are 8 minutes at 16 frames a second, longer than animations in use.
MAX_ANIMATION_FRAMES = 2**13
MAX_ANIMATION_PIXELS = 2**29  # of all its frames: 1,700 of 640 x 480; decoding them takes a few seconds
_MILLISECOND = Fraction(1, 1000)


def animation_timeline(picture: Image.Image, *, name: str, data: bytes = b"") -> Timeline:
    """Return the number of frames of a picture and, if it is animated, their times.

    ``data`` are its bytes, if known: they bound the work of counting a GIF's frames, for which Pillow seeks the file.

    Raises:
        BadInputError: a cut or broken file, more than ``MAX_DECODED_PIXELS`` in a frame, or more than
            ``MAX_ANIMATION_FRAMES`` or ``MAX_ANIMATION_PIXELS`` in all.
    """
    check_pixels(picture, name=name)
    _check_count(picture, gif_frames(data, MAX_ANIMATION_FRAMES + 1) if picture.format == "GIF" else 1, name)
    count = _count(picture, name)
    if count == 1:
        return Timeline(1)
    _check_count(picture, count, name)
    lasting = [_milliseconds(frame) for frame in _frames(picture, range(count), name)]
    shown = np.concatenate([[0], np.cumsum(lasting[:-1])])
    rate = Fraction(1000) / Fraction(lasting[0]) if lasting[0] > 0 else None
    return measured_timeline(np.round(shown).astype(np.int64), tick=_MILLISECOND, rate=rate)


def read_animation(picture: Image.Image, kept: Sequence[int], *, name: str) -> UInt8[np.ndarray, "F H W 3"]:
    """Decode the kept frames, ascending indices.

    Raises:
        BadInputError: a cut or broken file.
    """
    if _count(picture, name) == 1:
        return decode_picture(picture, name=f"{name}: frame 1")[None]
    frames = _frames(picture, kept, name)
    return np.stack([decode_picture(frame, name=f"{name}: frame {n + 1}") for n, frame in zip(kept, frames)])


def _check_count(picture: Image.Image, count: int, name: str) -> None:
    """Refuse an animation whose header states too many frames or pixels."""
    pixels = count * picture.width * picture.height
    if count > MAX_ANIMATION_FRAMES or (count > 1 and pixels > MAX_ANIMATION_PIXELS):
        told = f"more than {MAX_ANIMATION_FRAMES}" if count > MAX_ANIMATION_FRAMES else str(count)
        raise BadInputError(
            f"{name}: the {picture.format} animation has {told} frames of {picture.height}x{picture.width}; at most "
            f"{MAX_ANIMATION_FRAMES} frames and {MAX_ANIMATION_PIXELS} pixels in all are decoded; write it as mp4"
        )


def _milliseconds(frame: Image.Image) -> float:
    """Return the duration of a frame; 0 if the file states none or an invalid one."""
    lasting = frame.info.get("duration", 0)
    sound = isinstance(lasting, int | float) and math.isfinite(lasting) and lasting > 0
    return min(lasting, MAX_CLIP_SECONDS * 1000) if sound else 0


def _count(picture: Image.Image, name: str) -> int:
    if picture.format not in _ANIMATED_FORMATS:
        return 1
    try:
        with quiet():
            return int(getattr(picture, "n_frames", 1))
    except Exception as error:  # decoders raise anything for damaged bytes
        raise _broken(name, picture, 1, error) from None


def _frames(picture: Image.Image, indices: Sequence[int], name: str) -> Iterator[Image.Image]:
    """Yield the picture seeked to each of these frames, with pixels and duration loaded."""
    for index in indices:
        try:
            with quiet():
                picture.seek(index)
                picture.load()  # for WebP, this sets the frame's duration
        except Exception as error:  # as above
            raise _broken(name, picture, index + 1, error) from None
        yield picture


def _broken(name: str, picture: Image.Image, frame: int, error: Exception) -> BadInputError:
    return BadInputError(
        f"{name}: the {picture.format} animation breaks off at frame {frame} ({type(error).__name__}: "
        f"{without_addresses(error)}); save it again"
    )

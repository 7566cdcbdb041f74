"""Frames of a GIF, WebP or PNG animation, by Pillow."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from urt_jax.data.frame_picking import Timeline, measured_timeline
from urt_jax.data.images import check_pixels, decode_picture
from urt_jax.errors import BadInputError

_ANIMATED_FORMATS = {"GIF", "WEBP", "PNG"}  # others with several pictures in a file (TIFF, MPO) are no clips
_MILLISECOND = Fraction(1, 1000)


def animation_timeline(picture: Image.Image, *, name: str) -> Timeline:
    """Return the number of frames of a picture and, where it moves, their times.

    Raises:
        BadInputError: a cut or broken file, or more than ``MAX_DECODED_PIXELS``.
    """
    check_pixels(picture, name=name)
    count = _count(picture, name)
    if count == 1:
        return Timeline(1)
    lasting = [frame.info.get("duration", 0) for frame in _frames(picture, range(count), name)]
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


def _count(picture: Image.Image, name: str) -> int:
    if picture.format not in _ANIMATED_FORMATS:
        return 1
    try:
        return int(getattr(picture, "n_frames", 1))
    except Exception as error:  # decoders raise anything on broken bytes
        raise _broken(name, picture, 1, error) from error


def _frames(picture: Image.Image, indices: Sequence[int], name: str) -> Iterator[Image.Image]:
    """Yield the picture standing at each of its frames, pixels and duration loaded."""
    for index in indices:
        try:
            picture.seek(index)
            picture.load()  # a WebP knows the duration of a frame only then
        except Exception as error:  # as above
            raise _broken(name, picture, index + 1, error) from error
        yield picture


def _broken(name: str, picture: Image.Image, frame: int, error: Exception) -> BadInputError:
    return BadInputError(
        f"{name}: the {picture.format} animation breaks off at frame {frame} ({type(error).__name__}: {error}); "
        "save it again"
    )

"""Decoding of pictures of any form to RGB arrays, with Pillow alone."""

import base64
import re
import warnings
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from urt_jax.data.containers import HEAD_BYTES
from urt_jax.data.examples import Media
from urt_jax.data.media_bytes import check_kind, kind_of, read_bytes
from urt_jax.data.picture_modes import upright_rgb
from urt_jax.data.stored import Stored
from urt_jax.errors import BadInputError, shown

# Most pixels (width x height) of a decoded picture: above common cameras, 200 MB as RGB, and below the size at which
# Pillow starts to warn.
MAX_DECODED_PIXELS = 2**26
# Most pixels of a JPEG that is decoded at a half, a quarter or an eighth of its sides: the largest cameras have 102 to
# 108 million pixels, and Pillow refuses more than 178 million.
MAX_REDUCED_PIXELS = 2**27
# Most pixels of all pictures and frames of one prompt: two of the largest pictures, or two clips of 32 frames of
# 1920 x 1080; they are 400 MB as RGB, which leaves room to decode the next one below 1 GB.
MAX_RECORD_PIXELS = 2**27
# Accepted picture formats, all decoded inside this process. Pillow's other formats start programs (EPS, WMF), are
# documents (PDF), or match only by mistake. Pillow loads the first five first.
PICTURE_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF")  # MPO comes with JPEG

_ADDRESS = re.compile(r"<[^>]* at 0x[0-9a-fA-F]+>")  # memory address of an object, in an error message
_BYTES = re.compile(r"""b(?:'[^']*'|"[^"]*")""")
_READ_FORMATS = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or PPM"


class PixelBudget:
    """The rest of one prompt's ``MAX_RECORD_PIXELS``."""

    def __init__(self) -> None:
        self._left = MAX_RECORD_PIXELS

    def take(self, pixels: int, *, name: str) -> None:
        """Count pixels before they are decoded.

        Raises:
            BadInputError: there are more than the budget has left.
        """
        self._left -= pixels
        if self._left < 0:
            raise BadInputError(
                f"{name}: the pictures and frames of the record have {MAX_RECORD_PIXELS - self._left} pixels up to "
                f"here, at most {MAX_RECORD_PIXELS} are decoded for one; give fewer or smaller ones (clips: max_frames)"
            )


def load_image(media: Any, *, name: str, budget: PixelBudget | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """Decode one picture to RGB; ``name`` is the picture's name in errors.

    ``media`` is a ``Media``, a path, encoded bytes, a data URL, a PIL image, or a ``uint8`` array ``[H, W]`` or
    ``[H, W, 1 | 3 | 4]`` (an ``[H, W, 3]`` array is returned itself, not copied). The EXIF orientation is applied,
    transparency is composited over white, 16-bit grey is scaled to 8 bits, and of an animation the first frame is
    used; colour profiles are ignored. A JPEG of more than ``MAX_DECODED_PIXELS`` is decoded at a reduced size.

    Raises:
        BadInputError: missing, empty or unreadable file, a web address, more pixels than ``MAX_DECODED_PIXELS`` or
            than the ``budget`` has left (checked before decoding), an array of another dtype or shape.
    """
    if isinstance(media, Media):
        if media.kind != "image":
            raise BadInputError(f"{name}: a {media.kind} was given where one image is needed; give a single picture")
        media = media.source
    if isinstance(media, (str, Path, bytes, bytearray, Stored)):
        media = open_picture(read_bytes(media, name=name), name=name)
    if isinstance(media, Image.Image):
        check_pixels(media, name=name)
        if budget:
            budget.take(media.width * media.height, name=name)
        return decode_picture(media, name=name)
    if hasattr(media, "__array__"):
        array = _rgb_of_array(array_of(media, name=name), name=name)
        if budget:
            budget.take(array.shape[0] * array.shape[1], name=name)
        return array
    raise BadInputError(
        f"{name}: a picture cannot be read from {type(media).__name__}; give a path, encoded bytes, a data URL, "
        "a PIL image or a uint8 array [H, W, 3]"
    )


def open_picture(data: bytes, *, name: str) -> Image.Image:
    """Read the header of an encoded picture of ``PICTURE_FORMATS``; its pixels are decoded later.

    Raises:
        BadInputError: not such a picture, or too many pixels.
    """
    try:
        with quiet():
            picture = Image.open(BytesIO(data), formats=PICTURE_FORMATS)
    except Image.DecompressionBombError as error:
        raise BadInputError(f"{name}: {error}; {_too_many_pixels()}") from None
    except (UnidentifiedImageError, KeyError):  # KeyError: an old Pillow without AVIF
        kind = kind_of(data[:HEAD_BYTES])
        check_kind(kind, name=name, wanted="picture")
        found = f"it begins as {kind.name} but breaks off or is damaged" if kind else f"none of {_READ_FORMATS}"
        raise BadInputError(
            f"{name}: not a readable picture ({len(data)} bytes, {found}); download or save it again as PNG or JPEG"
        ) from None
    except Exception as error:  # decoders raise anything for damaged bytes
        raise _unreadable(name, error, f"{len(data)} bytes") from None
    if _is_reducible(picture):
        with quiet():
            _reduce(picture)
    check_pixels(picture, name=name)
    return picture


def decode_picture(picture: Image.Image, *, name: str) -> UInt8[np.ndarray, "H W 3"]:
    """Decode the current frame of a PIL image, upright and as RGB over white.

    Raises:
        BadInputError: damaged or cut pixel data, more than ``MAX_DECODED_PIXELS``, or pixels without a fixed range.
    """
    check_pixels(picture, name=name)
    try:
        with quiet():
            picture.load()
            return upright_rgb(picture)
    except BadInputError as error:
        raise BadInputError(f"{name}: {error}") from None
    except Exception as error:  # decoders raise anything for damaged bytes
        raise _unreadable(name, error, f"{picture.format or 'PIL'} picture, mode {picture.mode}") from None


def check_pixels(picture: Image.Image, *, name: str) -> None:
    """Check by its header that a picture has pixels, and at most ``MAX_DECODED_PIXELS``.

    Raises:
        BadInputError: it does not; the message has its size.
    """
    if not picture.width * picture.height:
        raise BadInputError(f"{name}: the picture is {picture.height}x{picture.width} pixels; give one with pixels")
    if picture.width * picture.height > MAX_DECODED_PIXELS:
        raise BadInputError(f"{name}: the picture is {picture.height}x{picture.width} pixels; {_too_many_pixels()}")


def quiet() -> AbstractContextManager[Any]:
    """Silence Pillow's warnings (odd tags, cut metadata): a picture is either decoded or refused."""
    return warnings.catch_warnings(action="ignore")


def without_addresses(error: Exception) -> str:
    """Return a decoder's error message, shortened, without memory addresses and without bytes of a file."""
    return _BYTES.sub("some bytes", _ADDRESS.sub("the bytes", str(error)))[:200]


def encode_png(array: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """Return a picture as PNG: lossless, and the same bytes for the same pixels."""
    stream = BytesIO()
    Image.fromarray(array).save(stream, format="PNG")
    return stream.getvalue()


def encode_data_url(array: UInt8[np.ndarray, "H W 3"]) -> str:
    """Return a picture as a PNG data URL: lossless, and the same string for the same pixels."""
    return "data:image/png;base64," + base64.b64encode(encode_png(array)).decode("ascii")


def array_of(media: Any, *, name: str) -> np.ndarray:
    """Convert an object with an array interface to a numpy array.

    Raises:
        BadInputError: the conversion fails.
    """
    try:
        return np.asarray(media)
    except Exception as error:  # of the user's own object
        raise BadInputError(f"{name}: {shown(media)} cannot be read as an array ({type(error).__name__})") from None


def _rgb_of_array(array: np.ndarray, *, name: str) -> np.ndarray:
    colours = 1 if array.ndim == 2 else array.shape[-1] if array.ndim == 3 else 0
    if array.dtype != np.uint8 or colours not in (1, 3, 4) or not array.size:
        raise BadInputError(
            f"{name}: an array of {array.dtype} {list(array.shape)} was given, a picture is uint8 [H, W, 3] with "
            "values 0..255 (also [H, W], [H, W, 1] and [H, W, 4]); convert it first"
        )
    if colours == 3:
        return array
    flat = array.reshape(array.shape[:2]) if colours == 1 else array
    return decode_picture(Image.fromarray(flat), name=name)


def _is_reducible(picture: Image.Image) -> bool:
    """Return whether a picture is a JPEG that can be decoded at a reduced size; a progressive one cannot."""
    pixels = picture.width * picture.height
    baseline = picture.format in ("JPEG", "MPO") and not picture.info.get("progressive")
    return baseline and MAX_DECODED_PIXELS < pixels <= MAX_REDUCED_PIXELS


def _reduce(picture: Image.Image) -> None:
    """Set a JPEG to be decoded at the largest reduced size of at most ``MAX_DECODED_PIXELS``."""
    width, height = picture.size
    for part in (2, 4, 8):
        if -(-width // part) * -(-height // part) <= MAX_DECODED_PIXELS:
            picture.draft(picture.mode, (-(-width // part), -(-height // part)))
            return


def _too_many_pixels() -> str:
    return f"at most {MAX_DECODED_PIXELS} pixels are decoded, make it smaller or remove it"


def _unreadable(name: str, error: Exception, given: str) -> BadInputError:
    return BadInputError(
        f"{name}: not a readable picture ({given}; {type(error).__name__}: "
        f"{without_addresses(error)}); download or save it again as PNG or JPEG"
    )

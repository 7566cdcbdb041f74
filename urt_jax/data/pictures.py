"""Pictures of any form in, upright RGB arrays out, by Pillow; what a file promises is capped before it is believed."""

import base64
import binascii
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from urt_jax.data.containers import HEAD_BYTES, PICTURE_FORMATS, what_it_is
from urt_jax.data.examples import Media
from urt_jax.errors import BadInputError, shown
from urt_jax.files.reading import open_regular

# Width times height allowed to be decoded: above any camera in common use, 200 MB as RGB, and below the size at which
# Pillow itself begins to warn.
MAX_DECODED_PIXELS = 2**26
# A JPEG can be decoded at a half of its sides: larger ones than above are, up to this (beyond the largest cameras); not
# progressive ones, which libjpeg holds whole.
MAX_DRAFTED_PIXELS = 2**28
MAX_PICTURE_BYTES = 2**29  # of an encoded picture: twice what the pixels above take uncompressed
# Of a larger picture than this, so many rows are turned to RGB at a time, so that no second copy of it is held.
WHOLE_PIXELS, BAND_ROWS = 2**22, 256
_EXIF_ORIENTATION = 0x0112
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda rgb: rgb,
    2: lambda rgb: rgb[:, ::-1],
    3: lambda rgb: rgb[::-1, ::-1],
    4: lambda rgb: rgb[::-1],
    5: lambda rgb: rgb.swapaxes(0, 1),
    6: lambda rgb: rgb[::-1].swapaxes(0, 1),
    7: lambda rgb: rgb[::-1, ::-1].swapaxes(0, 1),
    8: lambda rgb: rgb[:, ::-1].swapaxes(0, 1),
}


def load_image(media: Any, *, name: str) -> UInt8[np.ndarray, "H W 3"]:
    """Decode one picture to RGB; ``name`` says in every error which picture it was.

    ``media`` is a ``Media``, a path, encoded bytes, a data URL, a PIL image, or a ``uint8`` array ``[H, W]`` or
    ``[H, W, 1 | 3 | 4]`` (an ``[H, W, 3]`` array is returned itself, not copied). The EXIF orientation is applied,
    transparency is laid over white, 16-bit grey is scaled to 8 bits, of an animation the first frame is taken; colour
    profiles are ignored.

    Raises:
        BadInputError: missing, empty or unreadable file, a web address, more than ``MAX_DECODED_PIXELS`` (found before
            decoding), an array of another type or shape.
    """
    if isinstance(media, Media):
        if media.kind != "image":
            raise BadInputError(f"{name}: a {media.kind} was given where one image is needed; give a single picture")
        media = media.source
    if isinstance(media, (str, Path, bytes, bytearray)):
        media = open_picture(read_bytes(media, name=name), name=name)
    if isinstance(media, Image.Image):
        return decode_picture(media, name=name)
    if hasattr(media, "__array__"):
        return _rgb_of_array(np.asarray(media), name=name)
    raise BadInputError(
        f"{name}: a picture can not be read from {type(media).__name__}; give a path, encoded bytes, a data URL, "
        "a PIL image or a uint8 array [H, W, 3]"
    )


def read_bytes(source: str | Path | bytes | bytearray, *, name: str, most: int = -1) -> bytes:
    """Return the encoded bytes behind a path or a data URL, or the bytes themselves; of a file only the first ``most``.

    Raises:
        BadInputError: a web address, a missing or unreadable file, a pipe or device, more than ``MAX_PICTURE_BYTES``, a
            broken data URL, or no bytes at all.
    """
    given = shown(str(source), 120) if isinstance(source, (str, Path)) else "the given bytes"
    try:
        if isinstance(source, (bytes, bytearray)):
            data = bytes(source)
        elif isinstance(source, str) and source[:5].lower() == "data:":
            data = decode_data_url(source)
        elif isinstance(source, str) and source.lower().startswith(("http://", "https://")):
            raise BadInputError(f"{given} is a web address and nothing is fetched; download it and give the file")
        else:
            with open_regular(source) as file:
                data = file.read(MAX_PICTURE_BYTES + 1 if most < 0 else most)
    except FileNotFoundError:
        if isinstance(source, str) and looks_like_base64(source):
            raise BadInputError(
                f"{name}: {given} looks like base64 without its head; write data:image/png;base64,... (or jpeg) in "
                "front of it"
            ) from None
        raise BadInputError(
            f"{name}: there is no file {given} (relative paths start at {str(Path.cwd())!r}); check the path or the "
            "media folder"
        ) from None
    except IsADirectoryError:
        raise BadInputError(f"{name}: {given} is a folder; give one file in it") from None
    except BadInputError as error:
        raise BadInputError(f"{name}: {error}") from None
    except (OSError, ValueError) as error:  # no permission, a name too long, a zero byte in a name
        if isinstance(source, str) and looks_like_base64(source):
            raise BadInputError(
                f"{name}: {given} looks like base64 without its head; write data:image/png;base64,... (or jpeg) in "
                "front of it"
            ) from None
        reason = getattr(error, "strerror", None) or error  # an OSError's own text repeats the whole path
        raise BadInputError(f"{name}: {given} can not be read ({reason}); check path and permissions") from error
    if not data:
        raise BadInputError(f"{name}: {given} is empty (0 bytes); download or write it again")
    if len(data) > MAX_PICTURE_BYTES:
        raise BadInputError(f"{name}: {given} has more than {MAX_PICTURE_BYTES:,} bytes; make it smaller")
    return data


def open_picture(data: bytes, *, name: str) -> Image.Image:
    """Read the header of an encoded picture; its pixels are decoded later.

    Raises:
        BadInputError: none of ``PICTURE_FORMATS``, or more than ``MAX_DECODED_PIXELS``.
    """
    try:
        with quiet_pillow():
            picture = Image.open(BytesIO(data), formats=PICTURE_FORMATS)
    except Image.DecompressionBombError:
        raise BadInputError(f"{name}: the picture has far too many pixels; {_too_many_pixels()}") from None
    except Exception:  # decoders raise anything on broken bytes
        raise BadInputError(f"{name}: it is {what_it_is(data[:HEAD_BYTES])}") from None
    if picture.width * picture.height > MAX_DECODED_PIXELS:
        _draft(picture)
    check_pixels(picture, name=name)
    return picture


def _draft(picture: Image.Image) -> None:
    """Have a huge JPEG decoded at a part of its size, where that suffices; its draft size is then its size."""
    if picture.format != "JPEG" or picture.info.get("progressive"):
        return
    if picture.width * picture.height <= MAX_DRAFTED_PIXELS:
        picture.draft("RGB" if picture.mode == "YCbCr" else picture.mode, (picture.width // 2, picture.height // 2))


def decode_picture(picture: Image.Image, *, name: str) -> UInt8[np.ndarray, "H W 3"]:
    """Decode the frame a PIL image stands at, upright and as RGB over white.

    Raises:
        BadInputError: broken or cut pixel data, more than ``MAX_DECODED_PIXELS``, or pixels without a fixed range.
    """
    check_pixels(picture, name=name)
    try:
        with quiet_pillow():
            picture.load()
            turn = _turn_of(picture)
            whole = picture.width * picture.height <= WHOLE_PIXELS
            rgb = np.array(_to_rgb(picture)) if whole else _in_bands(picture)
    except BadInputError as error:
        raise BadInputError(f"{name}: {error}") from None
    except Exception as error:  # decoders raise anything on broken bytes
        raise _unreadable(name, error, f"{picture.format or 'PIL'} picture, mode {picture.mode}") from error
    return np.ascontiguousarray(turn(rgb))


def _in_bands(picture: Image.Image) -> np.ndarray:
    """Turn a large picture to RGB band by band, as ``_to_rgb`` does the whole."""
    rgb = np.empty((picture.height, picture.width, 3), np.uint8)
    for top in range(0, picture.height, BAND_ROWS):
        bottom = min(top + BAND_ROWS, picture.height)
        band = picture.crop((0, top, picture.width, bottom))
        band.info = picture.info  # a transparent colour stands there
        rgb[top:bottom] = np.asarray(_to_rgb(band))
    return rgb


def check_pixels(picture: Image.Image, *, name: str) -> None:
    """Refuse a picture of more than ``MAX_DECODED_PIXELS`` by its header.

    Raises:
        BadInputError: it is larger; the message has its size.
    """
    if picture.width * picture.height > MAX_DECODED_PIXELS:
        raise BadInputError(f"{name}: the picture is {picture.height}x{picture.width} pixels; {_too_many_pixels()}")


def looks_like_base64(text: str) -> bool:
    """Whether a text begins as the base64 of a PNG, JPEG, GIF or WebP does."""
    return len(text) >= 24 and text.startswith(("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR"))


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence what Pillow warns of odd files: they are read, or refused with an error of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def encode_data_url(array: UInt8[np.ndarray, "H W 3"]) -> str:
    """Return a picture as a PNG data URL, lossless and the same string for the same pixels."""
    stream = BytesIO()
    Image.fromarray(array).save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def decode_data_url(url: str) -> bytes:
    """Return the bytes of a data URL (RFC 2397), base64 or percent-encoded.

    Raises:
        BadInputError: no data URL, or broken base64.
    """
    head, comma, body = url.partition(",")
    if head[:5].lower() != "data:" or not comma:
        raise BadInputError(f"{url[:60]!r} is no data URL; it must look like data:image/png;base64,<base64>")
    raw = unquote_to_bytes(body)
    if not head.lower().endswith(";base64"):
        return raw
    try:
        return base64.b64decode(b"".join(raw.split()), validate=True)
    except binascii.Error as error:
        raise BadInputError(f"the data URL {url[:60]!r}... holds broken base64 ({error}); encode it again") from error


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


def _turn_of(picture: Image.Image) -> Callable[[np.ndarray], np.ndarray]:
    """Return what brings the rows and columns of a picture upright, by its EXIF note."""
    try:
        return _TURNS.get(picture.getexif().get(_EXIF_ORIENTATION, 1), _TURNS[1])
    except Exception:  # a broken note beside sound pixels: shown as stored
        return _TURNS[1]


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        return _eight_bits(np.asarray(picture)).convert("RGB")
    if picture.mode == "F":
        raise BadInputError("its pixels are floating-point numbers (mode F), of no fixed range; save it with 8 bits")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
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


def _too_many_pixels() -> str:
    return f"at most {MAX_DECODED_PIXELS} pixels are decoded, make it smaller or remove it"


def _unreadable(name: str, error: Exception, given: str) -> BadInputError:
    told = _ADDRESS.sub("", " ".join(str(error).split())[:200])
    return BadInputError(
        f"{name}: not a readable picture ({given}; {type(error).__name__}: {told}); download or save it again as PNG "
        "or JPEG"
    )

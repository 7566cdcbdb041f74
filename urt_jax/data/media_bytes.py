"""The encoded bytes of a picture or clip from any source, and their file type."""

import base64
import binascii
import os
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from urt_jax.data.containers import video_suffix
from urt_jax.data.stored import Stored
from urt_jax.errors import BadInputError, shown
from urt_jax.files.reading import open_regular

# Limit for files that are read whole: pictures and animations, but not videos. The largest picture that is decoded has
# 512 MiB as PNG or TIFF of 16 bits and four channels.
MAX_MEDIA_BYTES = 1 << 29
_MIN_BASE64 = 64  # characters; shorter text without a suffix is a name
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]+=*\s*")


class Kind(NamedTuple):
    """A file type by its first bytes; ``remedy`` is the advice for a file that is not a picture or clip, else empty."""

    name: str
    remedy: str = ""
    is_video: bool = False


_SAVE_AS = "save it as PNG or JPEG"
# First bytes, file type, remedy. Readable pictures and clips are listed too, for messages about damaged ones.
_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch it with: git lfs pull"),
    (b"%PDF", "a PDF document", _SAVE_AS),
    (b"%!PS", "an EPS or PostScript file", _SAVE_AS),
    (b"\xc5\xd0\xd3\xc6", "an EPS file", _SAVE_AS),
    (b"8BPS", "a Photoshop document", _SAVE_AS),
    (b"\x00\x00\x01\x00", "an icon (ICO)", _SAVE_AS),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture", _SAVE_AS),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture", _SAVE_AS),
    (b"\xff\x0a", "a JPEG XL picture", _SAVE_AS),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture", _SAVE_AS),
    (b"\x76\x2f\x31\x01", "an OpenEXR picture", _SAVE_AS),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"BZh", "a bzip2 archive", "unpack it"),
    (b"\xfd7zXZ", "an xz archive", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"PK\x03\x04", "a zip archive", "unpack it"),
    (b"\x93NUMPY", "a numpy array file", "load it and give the array, or " + _SAVE_AS),
    (b"#EXTM3U", "a playlist (m3u8), which names other files", "download the video itself"),
    (b"ffconcat", "a list of files for FFmpeg", "join them to one video"),
    (b"ID3", "a sound file", "give a picture or video"),
    (b"OggS", "an Ogg file", "write it as mp4"),
    (b"\x89PNG", "a PNG picture", ""),
    (b"\xff\xd8\xff", "a JPEG picture", ""),
    (b"GIF8", "a GIF picture", ""),
    (b"BM", "a BMP picture", ""),
    (b"II*\x00", "a TIFF picture", ""),
    (b"MM\x00*", "a TIFF picture", ""),
)
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"heim": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF"}


def kind_of(head: bytes) -> Kind | None:
    """Return the type of a file by its first ``HEAD_BYTES``; None = unknown."""
    for start, kind, remedy in _KINDS:
        if head.startswith(start):
            return Kind(kind, remedy)
    if head[4:8] == b"ftyp":
        if b"avif" in head[8:64] or b"avis" in head[8:64]:  # one of its compatible brands
            return Kind("an AVIF picture")
        if head[8:12] in _BRANDS:
            return Kind(f"a {_BRANDS[head[8:12]]} picture", _SAVE_AS)
    if head[:4] == b"RIFF" and head[8:12] in (b"WEBP", b"WAVE"):
        return (
            Kind("a WebP picture") if head[8:12] == b"WEBP" else Kind("a sound file (WAV)", "give a picture or video")
        )
    if suffix := video_suffix(head):
        return Kind(f"a video ({suffix})", is_video=True)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return Kind("an HTML page, as servers send in place of a file", "download the file itself")
    if text.startswith(b"<svg") or (text.startswith((b"<?xml", b"<!--")) and b"<svg" in text):
        return Kind("an SVG drawing", "render it and " + _SAVE_AS)
    if text.startswith((b"<?xml", b"{", b"[")):
        return Kind("XML or JSON text", "give the file itself")
    return None


def check_kind(kind: Kind | None, *, name: str, wanted: str) -> None:
    """Refuse a type that is known not to be a picture or clip; ``wanted`` is "picture" or "clip".

    Raises:
        BadInputError: with the type and what to do.
    """
    remedy = kind.remedy if kind else ""
    if kind and kind.is_video and wanted == "picture":
        remedy = "give it as a clip, or one frame of it as PNG or JPEG"
    if kind and remedy:
        raise BadInputError(f"{name}: not a readable {wanted}: it is {kind.name}; {remedy}")


def read_bytes(source: str | Path | bytes | bytearray | Stored, *, name: str, most: int | None = None) -> bytes:
    """Return the bytes of a path, a data URL or a stored medium, or given bytes themselves; only the first ``most``.

    Raises:
        BadInputError: a web address, a missing or unreadable file, a pipe or device, base64 without a data URL's
            prefix, a broken data URL, more than ``MAX_MEDIA_BYTES``, or no bytes at all.
    """
    given = shown(str(source), 120) if isinstance(source, (str, Path)) else "the given bytes"
    try:
        if isinstance(source, Stored):
            data, given = source.read()[:most], str(source)
        elif isinstance(source, (bytes, bytearray)):
            data = bytes(source)
        elif isinstance(source, str) and source[:5].lower() == "data:":
            data = decode_data_url(source)
        elif isinstance(source, str) and source.lower().startswith(("http://", "https://")):
            raise BadInputError(f"{given} is a web address and nothing is fetched; download it and give the file")
        else:
            with open_regular(source) as file:
                size = os.fstat(file.fileno()).st_size
                if most is None and size > MAX_MEDIA_BYTES:
                    raise BadInputError(f"{given} has {size} bytes, at most {MAX_MEDIA_BYTES} are read; is it a clip?")
                data = file.read(-1 if most is None else most)
    except FileNotFoundError:
        if isinstance(source, str) and _is_base64(source):
            raise _no_data_url(source, name) from None
        raise BadInputError(
            f"{name}: there is no file {given} (relative paths start at {str(Path.cwd())!r}); check the path or the "
            "media folder"
        ) from None
    except IsADirectoryError:
        raise BadInputError(f"{name}: {given} is a folder; give one file in it") from None
    except BadInputError as error:
        raise BadInputError(f"{name}: {error}") from None
    except (OSError, ValueError) as error:  # no permission, a name that is too long, a NUL byte in a name
        if isinstance(source, str) and _is_base64(source):
            raise _no_data_url(source, name) from None
        reason = getattr(error, "strerror", None) or "no name of a file"  # its own text repeats the whole path
        raise BadInputError(f"{name}: {given} cannot be read ({reason}); check path and permissions") from None
    if not data:
        raise BadInputError(f"{name}: {given} is empty (0 bytes); download or write it again")
    return data


def decode_data_url(url: str) -> bytes:
    """Return the bytes of a data URL (RFC 2397), base64 or percent-encoded.

    Raises:
        BadInputError: not a data URL, or broken base64.
    """
    head, comma, body = url.partition(",")
    if head[:5].lower() != "data:" or not comma:
        raise BadInputError(f"{shown(url, 60)} is not a data URL; it must look like data:image/png;base64,<base64>")
    try:
        raw = unquote_to_bytes(body)
        if not head.lower().rstrip().endswith(";base64"):
            return raw
        return base64.b64decode(b"".join(raw.split()), validate=True)
    except UnicodeEncodeError:  # half a surrogate pair
        raise BadInputError(f"the data URL {shown(head, 60)} holds letters that are no text; encode it again") from None
    except binascii.Error as error:
        raise BadInputError(f"the data URL {shown(url, 60)} holds broken base64 ({error}); encode it again") from None


def _is_base64(text: str) -> bool:
    return len(text) >= _MIN_BASE64 and "." not in text and _BASE64.fullmatch(text) is not None


def _no_data_url(text: str, name: str) -> BadInputError:
    return BadInputError(
        f"{name}: a text of {len(text)} letters names no file and looks like base64; write it as a data URL: "
        "data:image/png;base64,<base64>"
    )

"""The pictures and clips of a record: located on reading, stored beside the file on writing."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import stat
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from urt_jax.data.containers import HEAD_BYTES, VIDEO_SUFFIXES, video_suffix
from urt_jax.data.examples import MAX_FPS, Media
from urt_jax.data.images import PICTURE_FORMATS, quiet
from urt_jax.data.sources.archives import ARCHIVES, beside, members
from urt_jax.data.sources.files import RecordError
from urt_jax.data.stored import Stored
from urt_jax.errors import BadInputError, shown
from urt_jax.files.fields import Fields
from urt_jax.files.reading import open_regular
from urt_jax.files.whole import write_whole

MAX_MEDIA = 4096  # pictures and clips of one record; decoding limits their total pixels
MAX_LISTED_FRAMES = 65536  # frames that one record lists by name: 45 minutes at 24 a second
MIN_FPS = 1e-3  # a frame in 17 minutes; with less, picking frames at a rate would handle absurdly long clips
MEDIA_FIELDS = ("images", "image", "videos", "video", "fps")


def listed_media(fields: Fields) -> dict[str, list[Any]]:
    """Return the sources of pictures and of clips in the fields of a record, not yet checked.

    The fields are ``images`` or ``image`` and, of a DPO record, ``jpg_0`` and ``jpg_1``; ``videos`` (each a path or a
    list of frame paths) or ``video`` (one such) and, of a DPO record with a caption, ``chosen`` and ``rejected``.
    """
    images = _as_list(fields.get("images", fields.get("image")))
    videos = _as_list(fields.get("videos")) or ([fields["video"]] if "video" in fields else [])
    if "jpg_0" in fields:
        images = [fields[key] for key in ("jpg_0", "jpg_1") if key in fields]
    if "caption" in fields and "chosen" in fields:
        videos = [fields["chosen"], fields.get("rejected")]
    return {"image": images, "video": videos}


def read_media(fields: Fields, sources: Mapping[str, list[Any]], *, root: Path) -> tuple[Media, ...]:
    """Return the pictures, then the clips of ``sources``; every file is checked to exist and not to be empty.

    Each is a path below ``root``, a ``file://`` address, a data URL, or ``{"bytes", "path"}``, a cell of a picture
    table (bytes in base64 or as a list of numbers); a clip may also be a list of frames.

    Raises:
        RecordError: a file that is missing, empty, not local, or not a picture or video; too many media.
    """
    images, videos, where = sources["image"], sources["video"], fields.where
    if not images and not videos:
        _rates(fields, 0)
        return ()
    frames = sum(len(clip) for clip in videos if isinstance(clip, list))
    if len(images) + len(videos) > MAX_MEDIA or frames > MAX_LISTED_FRAMES:
        raise RecordError(
            f"{where}: {len(images) + len(videos):,} media with {frames:,} frames; at most {MAX_MEDIA:,} media and "
            f"{MAX_LISTED_FRAMES:,} frames are read of one record",
            reason="media count",
        )
    media = [Media("image", _locate_picture(path, root, where)) for path in images]
    for clip, rate in zip(videos, _rates(fields, len(videos))):
        located: Any
        if isinstance(clip, list):
            located = [_locate_picture(frame, root, where) for frame in clip]
            if not located:
                raise RecordError(f"{where}: a clip without frames; remove it", reason="media count")
        else:
            located = _locate_clip(clip, root, where)
        media.append(Media("video", located, rate))
    return tuple(media)


def _rates(fields: Fields, clips: int) -> list[float | None]:
    """Return the frame rate of each clip, None if the record has none."""
    if not isinstance(fields.get("fps"), list):
        return [fields.number("fps", None, at_least=MIN_FPS, at_most=MAX_FPS)] * clips
    given = fields.items_of("fps", at_most=MAX_MEDIA)
    if len(given) != clips:
        raise RecordError(f"{fields.where}: {len(given)} fps values for {clips} videos", reason="media count")
    return [given.number(n, None, at_least=MIN_FPS, at_most=MAX_FPS) for n in given]


def store_media(media: Media, folder: Path) -> str | list[str]:
    """Return the source of a picture or clip for a record in ``folder``; write media that are not files yet.

    Arrays, PIL images and encoded bytes become ``media/<first 16 hex digits of the SHA-1>.<format>``, arrays and PIL
    images as PNG; a clip of arrays becomes a list of its frames. Paths are relative to ``folder``; data URLs are kept.

    Raises:
        BadInputError: a source of another type.
    """
    source = media.source
    if media.kind == "video" and isinstance(source, np.ndarray | list | tuple):
        return [_store_picture(frame, folder) for frame in source]
    return _store_picture(source, folder)


def _store_picture(source: Any, folder: Path) -> str:
    if isinstance(source, Stored):
        source = source.read()
    if isinstance(source, str | Path):
        return str(source) if str(source).startswith("data:") else os.path.relpath(source, folder)
    if isinstance(source, bytes):
        if video := video_suffix(source[:HEAD_BYTES]):
            return _store_bytes(source, video, folder)
        with Image.open(io.BytesIO(source), formats=PICTURE_FORMATS) as picture:
            return _store_bytes(source, (picture.format or "png").lower(), folder)
    if isinstance(source, np.ndarray):
        source = Image.fromarray(source)
    if not isinstance(source, Image.Image):
        raise BadInputError(
            f"a picture given as {type(source).__name__}; needed a path, data URL, bytes, PIL image or array"
        )
    encoded = io.BytesIO()
    source.save(encoded, format="PNG")
    return _store_bytes(encoded.getvalue(), "png", folder)


def _store_bytes(content: bytes, suffix: str, folder: Path) -> str:
    name = f"media/{hashlib.sha1(content, usedforsecurity=False).hexdigest()[:16]}.{suffix}"
    if not (folder / name).exists():
        write_whole(folder / name, content)
    return name


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _locate_picture(given: Any, root: Path, where: str) -> str | bytes | Stored:
    """Locate a picture and read its header, so that a wrong file is found before a run, not during it."""
    located = _locate(given, root, where)
    if isinstance(located, Stored) or (isinstance(located, str) and located.startswith("data:")):
        return located
    try:
        with quiet():  # the size of a picture is checked when it is decoded
            Image.open(io.BytesIO(located) if isinstance(located, bytes) else located, formats=PICTURE_FORMATS).close()
    except IsADirectoryError:
        raise RecordError(f"{where}: media {shown(given)} is a folder; give a file", reason="missing file") from None
    except UnidentifiedImageError:
        pass
    except (OSError, Image.DecompressionBombError):
        return located  # decoding reports it with its own reason
    except Exception:  # a damaged header can make its reader raise anything
        pass
    else:
        return located
    named = f"media file {located}" if isinstance(located, str) else "a picture given as bytes"
    raise RecordError(
        f"{where}: {named} is not a readable picture; fetch it again or save it as PNG or JPEG",
        reason="unreadable picture",
    )


def _locate_clip(given: Any, root: Path, where: str) -> str | bytes | Stored:
    """Locate a video, an animation or a folder of frames, and read the header of a file, as for a picture."""
    located = _locate(given, root, where)
    if isinstance(located, Stored):
        return located
    if isinstance(located, bytes):
        return located if video_suffix(located[:HEAD_BYTES]) else _locate_picture(given, root, where)
    if located.startswith("data:") or Path(located).is_dir():
        return located
    try:
        with open_regular(located) as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise RecordError(
            f"{where}: media file {located} cannot be read ({error.strerror})", reason="missing file"
        ) from None
    if video_suffix(head):
        return located
    if Path(located).suffix.lower() not in VIDEO_SUFFIXES:
        return _locate_picture(given, root, where)
    from urt_jax.data.video_files import open_video  # loads FFmpeg, for rare containers and to reject other files

    try:
        open_video(Path(located), name=where)
    except BadInputError as error:
        raise RecordError(str(error), reason="unreadable video") from None
    return located


def _locate(given: Any, root: Path, where: str) -> str | bytes | Stored:
    """Return the path of an existing file, a data URL unchanged, the bytes of a cell, or where they are stored."""
    if isinstance(given, dict):
        if isinstance(given.get("bytes"), Stored):
            return given["bytes"]
        if given.get("bytes") is not None:
            return _bytes_of(given["bytes"], where)
        given = given.get("path")
    if isinstance(given, Stored):
        return given
    if not isinstance(given, str):
        raise RecordError(f"{where}: media {shown(given)}; needed a path or a data URL", reason="missing file")
    if given.startswith("data:"):
        return given
    path = _local_path(given, where) if ":/" in given else given
    if root.suffix.lower() in ARCHIVES and root.is_file():
        return _member(root, path, where)
    file = os.path.join(root, path)
    try:
        found = os.stat(file)
    except FileNotFoundError:
        for archive in beside(root) if root.is_dir() and not os.path.isabs(path) else ():
            if (packed := _packed(archive, path)) is not None:
                return packed
        raise RecordError(
            f"{where}: media file {_quoted(file)} is missing; paths are relative to {root}", reason="missing file"
        ) from None
    except (OSError, ValueError) as error:  # a name that is too long, a NUL byte, a file where a folder is needed
        raise RecordError(
            f"{where}: media {shown(given)} of {len(given):,} characters names no file ({_why(error)}); give a path, "
            "or write data:image/png;base64, (with its own type) before an encoded picture",
            reason="missing file",
        ) from None
    regular = stat.S_ISREG(found.st_mode)
    if not regular and not stat.S_ISDIR(found.st_mode):
        raise RecordError(
            f"{where}: media file {_quoted(file)} is a pipe, socket or device; give a regular file",
            reason="missing file",
        )
    if found.st_size == 0 and regular:
        raise RecordError(
            f"{where}: media file {_quoted(file)} is empty (0 bytes); fetch it again", reason="empty file"
        )
    return file


def _member(archive: Path, name: str, where: str) -> Stored:
    """Return a member of an archive."""
    found = _packed(str(archive), name)
    if found is None:
        raise RecordError(f"{where}: {archive} has no member {_quoted(name)}", reason="missing file")
    return found


def _packed(archive: str, name: str) -> Stored | None:
    """Return a member by its name, or by its name below the folder that the archive is called after."""
    found = members(archive)
    plain = os.path.normpath(name)
    return found.get(plain) or found.get(f"{Path(archive).stem}/{plain}")


def _local_path(address: str, where: str) -> str:
    """Return the path of a ``file:`` address (RFC 8089), percent-decoded; text without a scheme is a path."""
    scheme, _, rest = address.partition(":")
    if scheme.lower() == "file":
        host = ""
        if rest.startswith("//"):
            host, slash, below = rest[2:].partition("/")
            rest = slash + below
        if host.lower() in ("", "localhost"):
            return os.fsdecode(urllib.parse.unquote_to_bytes(rest))
    elif "://" not in address:
        return address
    raise RecordError(
        f"{where}: media {shown(address)} is not local; download it and give its path", reason="missing file"
    )


def _bytes_of(given: Any, where: str) -> bytes:
    """Return the bytes of a cell of a picture table, written in base64 or as a list of numbers."""
    content = b""
    try:
        if isinstance(given, str):
            content = base64.b64decode("".join(given.split()), validate=True)
        elif isinstance(given, list):
            content = bytes(given)
    except (ValueError, TypeError):
        pass  # reported below, with the given value
    if not content:
        raise RecordError(
            f"{where}: the bytes of a picture are {shown(given)}; needed base64 text, or numbers from 0 to 255",
            reason="unreadable picture",
        )
    return content


def _why(error: OSError | ValueError) -> str:
    return str(error.strerror if isinstance(error, OSError) else error)


def _quoted(name: str) -> str:
    """Return a path quoted for a message; of a very long one the end, which says most."""
    return name if len(name) <= 300 else f"...{name[-300:]}"

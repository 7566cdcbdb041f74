"""The pictures and clips a record names: located when read, stored beside the file when written."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from PIL import Image, UnidentifiedImageError

from urt_jax.data.containers import HEAD_BYTES, PICTURE_FORMATS, VIDEO_SUFFIXES, video_suffix, what_it_is
from urt_jax.data.examples import MAX_FPS, MIN_FPS, Media
from urt_jax.data.pictures import looks_like_base64, quiet_pillow
from urt_jax.data.sources.files import RecordError
from urt_jax.errors import BadInputError, shown
from urt_jax.files.fields import Fields
from urt_jax.files.whole import write_whole

MAX_MEDIA = 4096  # pictures and frames of one record: beyond any prompt, below what fills a memory with their heads


def read_media(fields: Fields, *, root: Path) -> tuple[Media, ...]:
    """Return the pictures, then the clips of a record, every file checked to be there and not empty.

    ``images`` or ``image`` and, of a DPO record, ``jpg_0`` and ``jpg_1``; ``videos`` (each a path or a list of frame
    paths) or ``video`` (one such) and, of a DPO record with a caption, ``chosen`` and ``rejected``. Each is a path, a
    ``file://`` address, a data URL, or a cell {"bytes", "path"} of ``datasets``.

    Raises:
        RecordError: a file that is missing, empty, not local, or no picture or video.
    """
    where = fields.where
    images = _as_list(fields.get("images", fields.get("image")))
    videos = _as_list(fields.get("videos"))
    if fields.get("video") is not None and not videos:
        videos = [fields["video"]]
    if "jpg_0" in fields:
        images = [fields["jpg_0"], fields["jpg_1"]] if "jpg_1" in fields else [fields["jpg_0"]]
    if "caption" in fields and "chosen" in fields:
        videos = [fields["chosen"], fields.get("rejected")]
    count = len(images) + sum(len(clip) if isinstance(clip, list) else 1 for clip in videos)
    if count > MAX_MEDIA:
        raise RecordError(
            f"{where}: {count:,} pictures and frames, at most {MAX_MEDIA:,} a record", reason="media count"
        )
    media = [Media("image", _locate_picture(path, root, where)) for path in images]
    for clip, rate in zip(videos, _rates(fields, len(videos))):
        frames = isinstance(clip, list)
        located = [_locate_picture(f, root, where) for f in clip] if frames else _locate_clip(clip, root, where)
        media.append(Media("video", located, rate))
    return tuple(media)


def _rates(fields: Fields, clips: int) -> tuple[float | None, ...]:
    """Return frames a second of each clip, None where the record does not say."""
    if not isinstance(fields.get("fps"), list):
        return (fields.number("fps", None, at_least=MIN_FPS, at_most=MAX_FPS),) * clips
    rates = fields.items_of("fps", at_most=MAX_MEDIA)
    if len(rates) != clips:
        raise RecordError(f"{fields.where}: {len(rates)} fps values for {clips} videos", reason="media count")
    return tuple(rates.number(n, None, at_least=MIN_FPS, at_most=MAX_FPS) for n in rates)


def store_media(media: Media, folder: Path) -> str | list[str]:
    """Return what a record in ``folder`` names the picture or clip by, writing what is no file yet.

    Arrays, PIL images and encoded bytes become ``media/<first 16 hex digits of the SHA-1>.<format>``, arrays and PIL
    images as PNG; a clip of arrays becomes a list of its frames. Paths are relative to ``folder``; a data URL stays.

    Raises:
        BadInputError: a source of another kind.
    """
    source = media.source
    if media.kind == "video" and isinstance(source, np.ndarray | list | tuple):
        return [_store_picture(frame, folder) for frame in source]
    return _store_picture(source, folder)


def _store_picture(source: Any, folder: Path) -> str:
    if isinstance(source, str | Path):
        return str(source) if str(source).startswith("data:") else os.path.relpath(source, folder)
    if isinstance(source, bytes):
        if video := video_suffix(source[:HEAD_BYTES]):
            return _store_bytes(source, video, folder)
        with quiet_pillow(), Image.open(io.BytesIO(source), formats=PICTURE_FORMATS) as picture:
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
    return list(value) if isinstance(value, list | tuple) else [value]


def _locate_picture(path: Any, root: Path, where: str) -> str | bytes:
    """Locate a picture and read its head, so that a file that is none is found before a run, not in its middle."""
    located = _locate(path, root, where)
    if isinstance(located, bytes) or located.startswith("data:"):
        return located
    try:
        with quiet_pillow():  # a huge picture is judged when it is decoded
            Image.open(located, formats=PICTURE_FORMATS).close()
    except UnidentifiedImageError:
        with open(located, "rb") as file:
            told = what_it_is(file.read(HEAD_BYTES))
        raise RecordError(f"{where}: media file {located} is {told}", reason="unreadable picture") from None
    except Exception:
        pass  # told with its own reason when it is decoded
    return located


def _locate_clip(path: Any, root: Path, where: str) -> str | bytes:
    """Locate a video, an animation or a folder of frames, and read the head of a file, as of a picture."""
    located = _locate(path, root, where)
    if isinstance(located, bytes) or located.startswith("data:") or Path(located).is_dir():
        return located
    with open(located, "rb") as file:
        if video_suffix(file.read(HEAD_BYTES)):
            return located
    if Path(located).suffix.lower() not in VIDEO_SUFFIXES:
        return _locate_picture(located, root, where)
    from urt_jax.data.video_files import open_video  # loads FFmpeg, needed for rare forms and for what is no video

    try:
        open_video(Path(located), name=where)
    except BadInputError as error:
        raise RecordError(str(error), reason="unreadable video") from None
    return located


def _locate(path: Any, root: Path, where: str) -> str | bytes:
    """Return the path of a file that is there, a data URL as it is, or the bytes of a cell that holds them."""
    if isinstance(path, dict):
        return _of_cell(path, root, where)
    if not isinstance(path, str):
        raise _missing(f"{where}: media {shown(path)}; needed a path or a data URL")
    if path.startswith("data:"):
        return path
    if path.startswith("file://"):
        path = _of_address(path, root)
    elif "://" in path:
        raise _missing(f"{where}: media {shown(path)} is not local; download it and give its path")
    file = root / path
    try:
        found = file.stat()
    except (OSError, ValueError) as error:
        if looks_like_base64(path):
            raise _missing(
                f"{where}: media {shown(path, 40)} looks like base64 without its head; write "
                "data:image/png;base64,... (or jpeg) in front of it"
            ) from None
        told = "is missing" if isinstance(error, FileNotFoundError) else f"can not be found ({error_word(error)})"
        raise _missing(f"{where}: media file {shown(str(file), 300)} {told}; paths are relative to {root}") from None
    if stat.S_ISREG(found.st_mode):
        if found.st_size == 0:
            raise RecordError(f"{where}: media file {file} is empty (0 bytes); fetch it again", reason="empty file")
    elif not stat.S_ISDIR(found.st_mode):
        raise _missing(f"{where}: media file {file} is a pipe, socket or device; give a regular file")
    return str(file)


def _of_cell(cell: dict[str, Any], root: Path, where: str) -> str | bytes:
    """Return the bytes of a cell {"bytes", "path"} of ``datasets``, in JSON base64 or numbers, or else its file."""
    content = cell.get("bytes")
    if content is None and isinstance(cell.get("path", cell.get("url")), str):
        return _locate(cell.get("path", cell.get("url")), root, where)
    try:
        if isinstance(content, str):
            content = base64.b64decode(content, validate=True)
        if isinstance(content, list):
            content = bytes(content)
    except (ValueError, TypeError):
        content = None
    if not isinstance(content, bytes) or not content:
        raise _missing(f"{where}: media {shown(cell)}; needed a path, or a cell with bytes (in base64) or a path")
    return content


def _of_address(address: str, root: Path) -> str:
    """Return the path of a ``file://`` address, with its signs as they are or percent-encoded, on this machine."""
    path = address.removeprefix("file://").removeprefix("localhost")
    with suppress(OSError, ValueError):
        if not (root / path).exists():
            return unquote(path)
    return path


def error_word(error: Exception) -> str:
    """Return what the system says of a path, which its own message would repeat."""
    return str(getattr(error, "strerror", None) or error)


def _missing(message: str) -> RecordError:
    return RecordError(message, reason="missing file")

"""The pictures and clips a record names: located when read, stored beside the file when written."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from urt_jax.data.containers import HEAD_BYTES, VIDEO_SUFFIXES, video_suffix
from urt_jax.data.examples import Media
from urt_jax.data.images import PICTURE_FORMATS
from urt_jax.data.sources.files import RecordError
from urt_jax.errors import BadInputError
from urt_jax.files.whole import write_whole


def read_media(fields: dict[str, Any], *, root: Path, where: str) -> tuple[Media, ...]:
    """Return the pictures, then the clips of a record, every file checked to be there and not empty.

    ``images`` or ``image`` and, of a DPO record, ``jpg_0`` and ``jpg_1``; ``videos`` (each a path or a list of frame
    paths) or ``video`` (one such) and, of a DPO record with a caption, ``chosen`` and ``rejected``.

    Raises:
        RecordError: a file that is missing, empty, not local, or no picture or video.
    """
    images = _as_list(fields.get("images", fields.get("image")))
    videos = _as_list(fields["videos"]) if "videos" in fields else []
    if "video" in fields and not videos and fields["video"] is not None:
        videos = [fields["video"]]
    if "jpg_0" in fields:
        images = [fields["jpg_0"], fields["jpg_1"]] if "jpg_1" in fields else [fields["jpg_0"]]
    if "caption" in fields and "chosen" in fields:
        videos = [fields["chosen"], fields.get("rejected")]
    rates = fields.get("fps")
    if isinstance(rates, list) and len(rates) != len(videos):
        raise RecordError(f"{where}: {len(rates)} fps values for {len(videos)} videos", reason="media count")
    media = [Media("image", _locate_picture(path, root, where)) for path in images]
    for n, clip in enumerate(videos):
        rate = rates[n] if isinstance(rates, list) else rates
        frames = isinstance(clip, list)
        located = [_locate_picture(f, root, where) for f in clip] if frames else _locate_clip(clip, root, where)
        media.append(Media("video", located, None if rate is None else float(rate)))
    return tuple(media)


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
    return list(value) if isinstance(value, list | tuple) else [value]


def _locate_picture(path: Any, root: Path, where: str) -> str:
    """Locate a picture and read its head, so that a file that is none is found before a run, not in its middle."""
    located = _locate(path, root, where)
    if located.startswith("data:"):
        return located
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a huge picture is judged when it is decoded
            Image.open(located, formats=PICTURE_FORMATS).close()
    except UnidentifiedImageError:
        raise RecordError(
            f"{where}: media file {located} is not a readable picture; fetch it again or save it as PNG or JPEG",
            reason="unreadable picture",
        ) from None
    except (OSError, Image.DecompressionBombError):
        pass  # told with its own reason when it is decoded
    return located


def _locate_clip(path: Any, root: Path, where: str) -> str:
    """Locate a video, an animation or a folder of frames, and read the head of a file, as of a picture."""
    located = _locate(path, root, where)
    if located.startswith("data:") or Path(located).is_dir():
        return located
    with open(located, "rb") as file:
        if video_suffix(file.read(HEAD_BYTES)):
            return located
    if Path(located).suffix.lower() not in VIDEO_SUFFIXES:
        return _locate_picture(path, root, where)
    from urt_jax.data.video_files import open_video  # loads FFmpeg, needed for rare forms and for what is no video

    try:
        open_video(Path(located), name=where)
    except BadInputError as error:
        raise RecordError(str(error), reason="unreadable video") from None
    return located


def _locate(path: Any, root: Path, where: str) -> str:
    if not isinstance(path, str):
        raise RecordError(f"{where}: media {path!r}; needed a path or a data URL", reason="missing file")
    if path.startswith("data:"):
        return path
    if "://" in path:
        raise RecordError(f"{where}: media {path} is not local; download it and give its path", reason="missing file")
    file = root / path
    if not file.exists():
        raise RecordError(f"{where}: media file {file} is missing; paths are relative to {root}", reason="missing file")
    if file.is_file() and file.stat().st_size == 0:
        raise RecordError(f"{where}: media file {file} is empty (0 bytes); fetch it again", reason="empty file")
    return str(file)

"""Clips of any supported form in, stacked RGB frames and the patches of the Qwen vision towers out."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from urt_jax.data.examples import BadInputError, Media
from urt_jax.data.images import (
    PictureGeometry,
    decode_picture,
    frame_patches,
    load_image,
    open_picture,
    read_bytes,
)

MAX_CLIP_PIXELS = 2**28  # frames x height x width allowed in one clip, 0.8 GB as RGB

_FRAME_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
_VIDEO_SUFFIXES = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts"}
_ANIMATED_FORMATS = {"GIF", "WEBP", "PNG"}  # others with several pictures in a file (TIFF, MPO) are no clips


def load_frames(media: Any, *, name: str, max_frames: int | None = None) -> UInt8[np.ndarray, "F H W 3"]:
    """Decode one clip to RGB frames; ``name`` says in every error which clip it was.

    ``media`` is a ``Media``, a ``uint8`` array ``[F, H, W, 3]`` (returned itself, not copied), a list of frames (each
    anything ``load_image`` takes), a folder of frame pictures (in the order of their names, numbers counted as
    numbers), or a GIF, WebP or PNG animation as path, bytes, data URL or PIL image. A clip of more than ``max_frames``
    is thinned to that many, evenly and from the first frame on; its frame rate falls by the same ratio.

    Raises:
        BadInputError: a video file, frames of several sizes, no frame at all, more than ``MAX_CLIP_PIXELS``, or a
            frame that ``load_image`` refuses.
    """
    if max_frames is not None and max_frames < 1:
        raise BadInputError(f"{name}: max_frames is {max_frames}; give at least 1, or None for all frames")
    if isinstance(media, Media):
        if media.kind != "video":
            raise BadInputError(f"{name}: an {media.kind} was given where a clip is needed; give its frames")
        media = media.source
    if isinstance(media, (list, tuple)):
        return _frames_of_list(media, name=name, max_frames=max_frames)
    if isinstance(media, (str, Path)) and str(media)[:5].lower() != "data:":
        if _is_folder(media):
            return _frames_of_list(_folder_frames(Path(media), name=name), name=name, max_frames=max_frames)
        if Path(media).suffix.lower() in _VIDEO_SUFFIXES:
            raise _video_file(name, f"{Path(media).name!r}")
    if isinstance(media, (str, Path, bytes, bytearray)):
        data = read_bytes(media, name=name)
        if _is_video(data):
            raise _video_file(name, f"the {len(data)} bytes")
        media = open_picture(data, name=name)
    if isinstance(media, Image.Image):
        return _frames_of_animation(media, name=name, max_frames=max_frames)
    if hasattr(media, "__array__"):
        return _frames_of_array(np.asarray(media), name=name, max_frames=max_frames)
    raise BadInputError(
        f"{name}: a clip can not be read from {type(media).__name__}; give a uint8 array [F, H, W, 3], a list of "
        "frames, a folder of frames or an animation"
    )


def video_patches(
    frames: UInt8[np.ndarray, "F H W 3"], *, geometry: PictureGeometry, name: str = "video"
) -> tuple[Float32[np.ndarray, "P K"], tuple[int, int, int]]:
    """Resize, normalise and cut one clip; return its patches and grid (t, h, w).

    Each frame gets the Qwen2.5-VL budget of a video frame, whatever the number of frames; frames that fit the grid
    already are not resampled.

    Raises:
        BadInputError: the frames of the clip, called ``name``, are too long strips.
    """
    return frame_patches(frames, geometry, geometry.video_min_pixels, geometry.video_max_pixels, name=name)


def _frames_of_array(array: np.ndarray, *, name: str, max_frames: int | None) -> np.ndarray:
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3 or not array.size:
        raise BadInputError(
            f"{name}: an array of {array.dtype} {list(array.shape)} was given, a clip is uint8 [F, H, W, 3] with at "
            "least one frame and values 0..255; convert it first"
        )
    kept = _kept(len(array), max_frames)
    return array if len(kept) == len(array) else array[kept]


def _frames_of_list(sources: Sequence[Any], *, name: str, max_frames: int | None) -> np.ndarray:
    if not sources:
        raise BadInputError(f"{name}: the list of frames is empty; a clip needs at least one")
    frames: list[np.ndarray] = []
    kept = _kept(len(sources), max_frames)
    for index in kept:
        frame = load_image(sources[index], name=f"{name}: frame {index + 1}")
        if frames and frame.shape != frames[0].shape:
            raise BadInputError(
                f"{name}: frame {index + 1} is {frame.shape[0]}x{frame.shape[1]} (height x width) and frame "
                f"{kept[0] + 1} is {frames[0].shape[0]}x{frames[0].shape[1]}; all frames of a clip need one size"
            )
        if not frames:
            _check_clip_pixels(len(kept), *frame.shape[:2], name=name)
        frames.append(frame)
    return np.stack(frames)


def _frames_of_animation(picture: Image.Image, *, name: str, max_frames: int | None) -> np.ndarray:
    count = 1
    if picture.format in _ANIMATED_FORMATS:
        try:
            count = int(getattr(picture, "n_frames", 1))
        except Exception as error:  # decoders raise anything on broken bytes
            raise _broken_animation(name, picture, 1, error) from error
    kept = _kept(count, max_frames)
    _check_clip_pixels(len(kept), picture.height, picture.width, name=name)
    frames = []
    for index in kept:
        if count > 1:
            try:
                picture.seek(index)
            except Exception as error:  # as above
                raise _broken_animation(name, picture, index + 1, error) from error
        frames.append(decode_picture(picture, name=f"{name}: frame {index + 1}"))
    return np.stack(frames)


def _folder_frames(folder: Path, *, name: str) -> list[Path]:
    frames = [file for file in folder.iterdir() if file.suffix.lower() in _FRAME_SUFFIXES and file.name[0] != "."]
    if not frames:
        raise BadInputError(
            f"{name}: the folder {str(folder)!r} holds no frames; it needs pictures "
            f"({', '.join(sorted(_FRAME_SUFFIXES))})"
        )

    def by_number(file: Path) -> list[tuple[int, str]]:
        # "frame_10.png" after "frame_9.png": runs of digits compare by value, all else as text
        parts = re.split(r"(\d+)", file.name)
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]

    return sorted(frames, key=by_number)


def _kept(count: int, max_frames: int | None) -> list[int]:
    if max_frames is None or count <= max_frames:
        return list(range(count))
    return [index * count // max_frames for index in range(max_frames)]


def _check_clip_pixels(count: int, height: int, width: int, *, name: str) -> None:
    if count * height * width > MAX_CLIP_PIXELS:
        raise BadInputError(
            f"{name}: {count} frames of {height}x{width} are {count * height * width} pixels, at most "
            f"{MAX_CLIP_PIXELS} are decoded; give fewer frames (max_frames) or smaller ones"
        )


def _is_folder(path: str | Path) -> bool:
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):  # a name too long or with a zero byte: reported when it is read
        return False


def _is_video(data: bytes) -> bool:
    still = data[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1")
    return (
        (data[4:8] == b"ftyp" and not still)  # mp4, mov
        or (data[:4] == b"RIFF" and data[8:11] == b"AVI")
        or data[:4] in (b"\x1a\x45\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3")  # mkv and webm, mpeg
    )


def _video_file(name: str, given: str) -> BadInputError:
    return BadInputError(
        f"{name}: {given} is a video file, which a later release will read; give its frames as a list or folder of "
        "pictures, a GIF or WebP animation, or a uint8 array [F, H, W, 3]"
    )


def _broken_animation(name: str, picture: Image.Image, frame: int, error: Exception) -> BadInputError:
    return BadInputError(
        f"{name}: the {picture.format} animation breaks off at frame {frame} ({type(error).__name__}: {error}); "
        "save it again"
    )

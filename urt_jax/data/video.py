"""From clips of any supported form to stacked RGB frames and the patches of the Qwen vision towers."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from PIL import Image

from urt_jax.data.animations import animation_timeline, read_animation
from urt_jax.data.containers import HEAD_BYTES, VIDEO_SUFFIXES
from urt_jax.data.examples import MAX_FPS, FramePicking, Media
from urt_jax.data.frame_picking import Timeline, even_timeline, kept_rate, pick_frames, spread
from urt_jax.data.frame_resizing import resize_frames
from urt_jax.data.images import MAX_RECORD_PIXELS, PixelBudget, array_of, load_image, open_picture
from urt_jax.data.media_bytes import check_kind, kind_of, read_bytes
from urt_jax.data.patches import PictureGeometry, frame_patches, smart_resize
from urt_jax.data.stored import Stored
from urt_jax.errors import BadInputError, shown

DEFAULT_FPS = 24.0  # assumed for frames without times, as in transformers
MAX_CLIP_PIXELS = MAX_RECORD_PIXELS  # frames x height x width of one clip, if no budget is given

_FRAME_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


class Clip(NamedTuple):
    """The kept frames of a clip.

    ``fps`` is the rate of these frames, their number over the length of the clip; ``times`` are their times in seconds
    from the first frame; both are None if unknown.
    """

    frames: UInt8[np.ndarray, "F H W 3"]
    fps: float | None
    times: Float64[np.ndarray, " F"] | None


_Check = Callable[[int, int], None]  # checks (height, width) of frames whose size is known only at decoding


class _Source(NamedTuple):
    """A clip whose frames are not decoded yet; ``size`` is (height, width) if known before decoding."""

    timeline: Timeline
    size: tuple[int, int] | None
    read: Callable[[list[int], _Check], np.ndarray]


def load_clip(media: Any, *, name: str, picking: FramePicking | None = None, budget: PixelBudget | None = None) -> Clip:
    """Decode the kept frames of a clip, with their rate; ``name`` is the clip's name in errors.

    ``media`` is a ``Media``, a ``uint8`` array ``[F, H, W, 3]`` (returned itself if all frames are kept, not copied), a
    list of frames (each anything ``load_image`` accepts), a folder of frame pictures (in the order of their names,
    numbers compared as numbers), or as path, bytes or data URL a video file (mp4, mov, mkv, webm, avi, mpeg) or a GIF,
    WebP or PNG animation (also a PIL image). Frames are upright.

    The ``fps`` of a ``Media`` gives evenly spaced times, otherwise the file's times are used. Its ``picking`` applies
    unless one is given here; without any, all frames are kept.

    Raises:
        BadInputError: an unreadable or empty source, a video cut before its last kept frame, frames of several sizes,
            more pixels than ``MAX_CLIP_PIXELS`` or than the ``budget`` has left, too long a clip, a requested rate for
            frames without times, an ``fps`` not above 0.
    """
    fps = None
    if isinstance(media, Media):
        if media.kind != "video":
            raise BadInputError(f"{name}: an {media.kind} was given where a clip is needed; give its frames")
        fps, picking, media = media.fps, picking or media.picking, media.source
    if fps is not None and not _is_rate(fps):
        raise BadInputError(
            f"{name}: its fps is {shown(fps)}; give frames a second, above 0 and at most {MAX_FPS}, or none"
        )
    source = _open(media, name)
    timeline = source.timeline if fps is None else even_timeline(source.timeline.frames, fps)
    kept = pick_frames(timeline, picking or FramePicking(), name=name)

    def check(height: int, width: int) -> None:
        """Refuse too many pixels, before the kept frames are decoded."""
        _check_clip_pixels(len(kept), height, width, name=name)
        if budget:
            budget.take(len(kept) * height * width, name=name)

    if source.size is not None:
        check(*source.size)
    times = None if timeline.seconds is None else timeline.seconds[kept]
    return Clip(source.read(kept, check), kept_rate(timeline, kept), times)


def _is_rate(fps: Any) -> bool:
    return isinstance(fps, int | float | np.number) and not isinstance(fps, bool) and bool(0 < fps <= MAX_FPS)


def load_frames(media: Any, *, name: str, max_frames: int | None = None) -> UInt8[np.ndarray, "F H W 3"]:
    """Decode one clip to RGB frames, as ``load_clip`` does, without their rate.

    ``max_frames`` thins the frames that the ``picking`` of a ``Media`` keeps, retaining the first and the last.

    Raises:
        BadInputError: as ``load_clip``, or ``max_frames`` below 1.
    """
    try:
        thinned = FramePicking(max_frames=max_frames)
    except BadInputError as error:
        raise BadInputError(f"{name}: {error}") from None
    if not isinstance(media, Media) or media.picking is None:
        return load_clip(media, name=name, picking=thinned).frames
    frames = load_clip(media, name=name).frames
    return frames if max_frames is None else frames[spread(len(frames), max_frames)]


def video_patches(
    frames: UInt8[np.ndarray, "F H W 3"], *, geometry: PictureGeometry, name: str = "video"
) -> tuple[Float32[np.ndarray, "P K"], tuple[int, int, int]]:
    """Resize, normalise and cut one clip; return its patches and grid (t, h, w).

    Each frame gets the Qwen2.5-VL budget of a video frame, whatever the number of frames; frames that already fit the
    grid are not resampled.

    Raises:
        BadInputError: the frames' aspect ratio is too large; ``name`` is in the message.
    """
    low, high = geometry.video_min_pixels, geometry.video_max_pixels
    try:
        size = smart_resize(*frames.shape[1:3], factor=geometry.factor, min_pixels=low, max_pixels=high)
    except BadInputError as error:
        raise BadInputError(f"{name}: {error}") from None
    return frame_patches(resize_frames(frames, size), geometry)


def _open(media: Any, name: str) -> _Source:
    """Detect the form of a clip, and read its properties that are known before decoding."""
    if isinstance(media, (list, tuple)):
        return _open_list(media, name)
    if isinstance(media, (str, Path)) and str(media)[:5].lower() != "data:":
        if _is_folder(media):
            return _open_list(_folder_frames(Path(media), name=name), name)
        head = read_bytes(media, name=name, most=HEAD_BYTES)
        kind = kind_of(head)
        check_kind(kind, name=name, wanted="clip")
        if kind.is_video if kind else Path(media).suffix.lower() in VIDEO_SUFFIXES:  # a GIF named .mp4 is a GIF
            return _open_video(Path(media), name)
    if isinstance(media, (str, Path, bytes, bytearray, Stored)):
        data = read_bytes(media, name=name)
        kind = kind_of(data[:HEAD_BYTES])
        check_kind(kind, name=name, wanted="clip")
        if kind and kind.is_video:
            return _open_video(data, name)
        return _open_animation(open_picture(data, name=name), data, name)
    if isinstance(media, Image.Image):
        return _open_animation(media, b"", name)
    if hasattr(media, "__array__"):
        return _open_array(array_of(media, name=name), name)
    raise BadInputError(
        f"{name}: a clip cannot be read from {type(media).__name__}; give a uint8 array [F, H, W, 3], a list of "
        "frames, a folder of frames, a video file or an animation"
    )


def _open_animation(picture: Image.Image, data: bytes, name: str) -> _Source:
    timeline = animation_timeline(picture, name=name, data=data)
    size = picture.height, picture.width
    return _Source(timeline, size, lambda kept, _: read_animation(picture, kept, name=name))


def _open_video(source: Path | bytes, name: str) -> _Source:
    from urt_jax.data.video_files import open_video, read_video  # loads FFmpeg

    video = open_video(source, name=name)
    return _Source(video.timeline, video.size, lambda kept, _: read_video(video, kept, name=name))


def _open_array(array: np.ndarray, name: str) -> _Source:
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3 or not array.size:
        raise BadInputError(
            f"{name}: an array of {array.dtype} {list(array.shape)} was given, a clip is uint8 [F, H, W, 3] with at "
            "least one frame and values 0..255; convert it first"
        )
    size = array.shape[1], array.shape[2]
    return _Source(Timeline(len(array)), size, lambda kept, _: array if len(kept) == len(array) else array[kept])


def _open_list(sources: Sequence[Any], name: str) -> _Source:
    if not sources:
        raise BadInputError(f"{name}: the list of frames is empty; a clip needs at least one")
    return _Source(Timeline(len(sources)), None, lambda kept, check: _read_list(sources, kept, name, check))


def _read_list(sources: Sequence[Any], kept: list[int], name: str, check: _Check) -> np.ndarray:
    frames: list[np.ndarray] = []
    for index in kept:
        frame = load_image(sources[index], name=f"{name}: frame {index + 1}")
        if frames and frame.shape != frames[0].shape:
            raise BadInputError(
                f"{name}: frame {index + 1} is {frame.shape[0]}x{frame.shape[1]} (height x width) and frame "
                f"{kept[0] + 1} is {frames[0].shape[0]}x{frames[0].shape[1]}; all frames of a clip need one size"
            )
        if not frames:
            check(*frame.shape[:2])
        frames.append(frame)
    return np.stack(frames)


def _folder_frames(folder: Path, *, name: str) -> list[Path]:
    try:
        frames = [file for file in folder.iterdir() if file.suffix.lower() in _FRAME_SUFFIXES and file.name[0] != "."]
    except OSError as error:
        raise BadInputError(
            f"{name}: the folder {shown(str(folder), 120)} cannot be read ({error.strerror}); check its permissions"
        ) from None
    if not frames:
        raise BadInputError(
            f"{name}: the folder {str(folder)!r} holds no frames; it needs pictures "
            f"({', '.join(sorted(_FRAME_SUFFIXES))})"
        )

    def by_number(file: Path) -> list[tuple[int, str]]:
        # "frame_10.png" after "frame_9.png": runs of digits compare by value, the rest as text
        parts = re.split(r"(\d+)", file.name)
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]

    return sorted(frames, key=by_number)


def _check_clip_pixels(count: int, height: int, width: int, *, name: str) -> None:
    if count * height * width > MAX_CLIP_PIXELS:
        raise BadInputError(
            f"{name}: {count} frames of {height}x{width} are {count * height * width} pixels, at most "
            f"{MAX_CLIP_PIXELS} are decoded; give fewer frames (max_frames) or smaller ones"
        )


def _is_folder(path: str | Path) -> bool:
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):  # a name that is too long or has a NUL byte: reported when it is read
        return False

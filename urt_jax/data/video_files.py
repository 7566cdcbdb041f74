"""Frames of a video file, by PyAV.

1. the packets are listed without decoding: when each frame is shown, and where decoding can start;
2. of the packets those that the kept frames need are decoded, in one pass, and only the kept frames stay in memory.

Import it where a video file is read, not before: it loads FFmpeg.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from io import SEEK_END, BufferedIOBase, BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.error import FFmpegError
from av.sidedata.sidedata import Type
from av.stream import Disposition
from jaxtyping import Int64, UInt8

from urt_jax.data.containers import stated_bytes
from urt_jax.data.frame_picking import Timeline, measured_timeline
from urt_jax.data.images import MAX_DECODED_PIXELS
from urt_jax.errors import BadInputError

# Demuxers that read one file and open no other, as a playlist would; by FFmpeg's names.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,flv,asf"
_REMEDY = "download or copy it again, or write it anew: ffmpeg -i OLD -c:v libx264 NEW.mp4"


class VideoFile(NamedTuple):
    """What is known of a video file before a frame is decoded."""

    source: Path | bytes
    given: str  # what errors call it
    timeline: Timeline  # of a cut file with the frames that are missing
    size: tuple[int, int]  # height and width of the frames as stored
    ticks: Int64[np.ndarray, " found"]  # when each frame that is there is shown, ascending
    starts: list[tuple[int, int]]  # key frames: (when shown, number of its packet), in the order of the file


class _Damaged(Exception):
    """A frame that the decoder passed over or made up."""


def open_video(source: Path | bytes, *, name: str) -> VideoFile:
    """List the frames of a video file, a path or its bytes, without decoding them.

    Raises:
        BadInputError: no readable video, no video stream, no frame, frames of more than ``MAX_DECODED_PIXELS``, or a
            cut file that does not say how many frames it should have. ``name`` and the file are in every message.
    """
    given = f"the {len(source)} bytes" if isinstance(source, bytes) else repr(str(source)[-120:])
    try:
        with _opened(source, name, given) as (container, stream):
            ticks, starts, hidden = _list_packets(container, stream)
            promised = _promised_frames(container, stream, len(ticks) + hidden)
            size, tick, rate = (stream.height, stream.width), stream.time_base, stream.average_rate
    except FFmpegError as error:
        raise _unreadable(source, name, given, error) from error
    if not len(ticks):
        raise BadInputError(f"{name}: {given} holds no frame of video that can be decoded; {_REMEDY}")
    shown = ticks
    if _is_cut(source):
        if promised is None:
            raise BadInputError(f"{name}: {given} ends early, {len(ticks)} frames are there; {_REMEDY}")
        shown = _with_missing(ticks, promised - hidden, 1 / (rate * tick) if rate else Fraction(1))
    return VideoFile(source, given, measured_timeline(shown, tick=tick, rate=rate), size, ticks, starts)


def read_video(video: VideoFile, kept: Sequence[int], *, name: str) -> UInt8[np.ndarray, "F H W 3"]:
    """Decode the kept frames, ascending indices into the timeline, upright and as RGB.

    Raises:
        BadInputError: a kept frame lies beyond the end of a cut file, is damaged, or has another size than the rest.
    """
    if kept[-1] >= len(video.ticks):
        raise BadInputError(
            f"{name}: {video.given} ends early: {len(video.ticks)} of {video.timeline.frames} frames are there and "
            f"frame {kept[-1] + 1} is needed; {_REMEDY}"
        )
    frames = None
    try:
        with _opened(video.source, name, video.given) as (container, stream):
            for place, frame in enumerate(_decode(container, stream, video.starts, video.ticks[list(kept)].tolist())):
                if (frame.height, frame.width) != video.size:
                    raise _Damaged(
                        f"frame {kept[place] + 1} is {frame.height}x{frame.width} (height x width) in a video of "
                        f"{video.size[0]}x{video.size[1]}"
                    )
                picture = _upright(frame)
                frames = np.empty((len(kept), *picture.shape), np.uint8) if frames is None else frames
                frames[place] = picture
    except (FFmpegError, _Damaged) as error:
        reason = error.strerror if isinstance(error, FFmpegError) else error
        raise BadInputError(f"{name}: {video.given} can not be decoded: {reason}; {_REMEDY}") from error
    assert frames is not None
    return frames


@contextmanager
def _opened(source: Path | bytes, name: str, given: str) -> Iterator[tuple[Any, Any]]:
    """Open a file and the first of its video streams."""
    place = BytesIO(source) if isinstance(source, bytes) else f"file:{source.absolute()}"
    with av.open(
        place, options={"format_whitelist": _FORMATS, "fflags": "+genpts"}, metadata_errors="replace"
    ) as container:
        streams = [item for item in container.streams.video if not item.disposition & Disposition.attached_pic]
        if not streams:
            found = ", ".join(item.type for item in container.streams) or "nothing"
            raise BadInputError(f"{name}: {given} holds no video stream (found: {found}); give a file with one")
        stream = streams[0]
        if stream.codec_context is None or not stream.height * stream.width:
            raise BadInputError(f"{name}: {given} is coded in a way that PyAV can not decode; {_REMEDY}")
        if stream.height * stream.width > MAX_DECODED_PIXELS:
            raise BadInputError(
                f"{name}: the frames of {given} are {stream.height}x{stream.width} (height x width); at most "
                f"{MAX_DECODED_PIXELS} pixels are decoded, make it smaller or remove it"
            )
        stream.codec_context.options = {"max_pixels": str(MAX_DECODED_PIXELS)}  # should a later frame be larger
        stream.codec_context.thread_type = "AUTO"
        yield container, stream


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the packets that hold data; an empty one would end the decoder's work."""
    return (packet for packet in container.demux(stream) if packet.size)


def _list_packets(container: Any, stream: Any) -> tuple[Int64[np.ndarray, " found"], list[tuple[int, int]], int]:
    """Return when frames are shown, the key frames, and how many frames serve to decode others only."""
    shown: set[int] = set()
    starts: list[tuple[int, int]] = []
    hidden = 0
    for number, packet in enumerate(_packets(container, stream)):
        if packet.is_corrupt or packet.pts is None:  # the last packet of a cut file
            continue
        if packet.is_keyframe:
            starts.append((packet.pts, number))
        # The header of a VP8 frame says whether it is shown; the other codings pack such frames with a shown one.
        if packet.is_discard or (stream.codec_context.name == "vp8" and not memoryview(packet)[0] & 0x10):
            hidden += 1
        elif starts and packet.pts >= starts[0][0]:  # what comes before the first key frame can not be decoded
            shown.add(packet.pts)
    return np.array(sorted(shown), np.int64), starts, hidden


def _decode(container: Any, stream: Any, starts: list[tuple[int, int]], wanted: list[int]) -> Iterator[Any]:
    """Yield the frames shown at the wanted ticks, decoding each from the key frame before it, or from the last one."""
    ahead, skipped = iter(wanted), False
    tick: Any = next(ahead)
    for number, packet in enumerate(chain(_packets(container, stream), (None,))):  # None: what the decoder still holds
        start = starts[max(bisect_right(starts, tick, key=lambda item: item[0]) - 1, 0)][1]
        if packet is not None and number < start:
            skipped = True
            continue
        if skipped:
            stream.codec_context.flush_buffers()
            skipped = False
        for frame in stream.codec_context.decode(packet):
            if frame.is_corrupt or frame.pts is None or frame.pts > tick:
                raise _Damaged(f"it is damaged at {float((tick - starts[0][0]) * stream.time_base):.2f} seconds")
            if frame.pts == tick:
                yield frame
                tick = next(ahead, None)
            if tick is None:
                return
    raise _Damaged(f"it is damaged at {float((tick - starts[0][0]) * stream.time_base):.2f} seconds")


def _upright(frame: Any) -> UInt8[np.ndarray, "H W 3"]:
    """Return a frame as RGB, turned and mirrored in quarters as its display matrix says."""
    picture = frame.to_ndarray(format="rgb24")
    matrices = [item for item in frame.side_data if item.type == Type.DISPLAYMATRIX]
    if not matrices:
        return picture
    # x' = a x + c y, y' = b x + d y in rows (a, b, .), (c, d, .) of 16.16 numbers; axes point right and down.
    a, b, _, c, d = np.frombuffer(memoryview(matrices[0]), np.int32)[:5].tolist()
    if abs(b) > abs(a):
        picture, a, d = picture.swapaxes(0, 1), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _promised_frames(container: Any, stream: Any, found: int) -> int | None:
    """Return how many frames the header of a file speaks of, None where that is not known."""
    if stream.frames >= found:
        return stream.frames
    if "matroska" in container.format.name and container.duration and stream.average_rate:
        return max(round(Fraction(container.duration, av.time_base) * stream.average_rate), found)
    return None  # a fragmented file counts its first part, others nothing


def _with_missing(ticks: Int64[np.ndarray, " found"], promised: int, step: Fraction) -> Int64[np.ndarray, " n"]:
    missing = np.arange(1, promised - len(ticks) + 1)
    return np.concatenate([ticks, ticks[-1] + np.round(missing * float(step)).astype(np.int64)])


def _is_cut(source: Path | bytes) -> bool:
    with _reader(source) as file:
        stated = stated_bytes(file)
        return stated is not None and stated > file.seek(0, SEEK_END)


def _reader(source: Path | bytes) -> BufferedIOBase:
    return BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _unreadable(source: Path | bytes, name: str, given: str, error: FFmpegError) -> BadInputError:
    if _is_cut(source):
        return BadInputError(f"{name}: {given} ends early, before its table of frames; {_REMEDY}")
    with _reader(source) as file:
        head = file.read(16)
    return BadInputError(
        f"{name}: {given} is not a readable video (it starts with {head!r}; {error.strerror}); {_REMEDY}"
    )

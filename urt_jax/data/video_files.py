"""Decoding of video files by PyAV.

1. the packets are listed without decoding: the time of each frame, and the key frames;
2. the packets that the kept frames need are decoded in one pass, and only the kept frames stay in memory.

Import it where a video file is read, not before: it loads FFmpeg.
"""

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from io import SEEK_END, BufferedIOBase, BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
import numpy as np
from av.error import FFmpegError
from av.sidedata.sidedata import Type
from av.stream import Disposition
from jaxtyping import Int64, UInt8

from urt_jax.data.containers import stated_bytes
from urt_jax.data.frame_picking import MAX_CLIP_FRAMES, MAX_CLIP_SECONDS, Timeline, measured_timeline
from urt_jax.data.images import MAX_DECODED_PIXELS
from urt_jax.errors import BadInputError
from urt_jax.files.reading import open_regular

# Demuxers that do not open other files, as a playlist's would; by FFmpeg's names.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,flv,asf"
# Pixels decoded to reach the kept frames: 20 minutes of 1920 x 1080 at 30 a second without a key frame, which take
# minutes to decode.
MAX_REACHED_PIXELS = 2**36
MAX_THREADS = 8  # of one decoder; each holds frames of its own
_LARGE_FRAME = 2**24  # pixels; above it the threads of a decoder share one frame
_REMEDY = "download or copy it again, or write it anew: ffmpeg -i OLD -c:v libx264 NEW.mp4"


class VideoFile(NamedTuple):
    """The properties of a video file that are known before decoding."""

    source: Path | bytes
    given: str  # its name in errors
    timeline: Timeline  # of a cut file including the missing frames
    size: tuple[int, int]  # height and width of the frames as stored
    ticks: Int64[np.ndarray, " found"]  # times of the frames that are present, ascending
    by_order: bool  # frames are identified by their order, since the container has no times
    starts: list[tuple[int, int]]  # key frames: (time, packet number), in file order


class _Damaged(Exception):
    """A frame that the decoder skipped or invented."""


def open_video(source: Path | bytes, *, name: str) -> VideoFile:
    """List the frames of a video file, a path or its bytes, without decoding them.

    Raises:
        BadInputError: no readable video, no video stream, no frame, frames of more than ``MAX_DECODED_PIXELS``, more
            frames than ``MAX_CLIP_FRAMES``, present or stated, or a cut file that does not state its number of
            frames. ``name`` and the file are in every message.
    """
    given = f"the {len(source)} bytes" if isinstance(source, bytes) else repr(str(source)[-120:])
    try:
        with _opened(source, name, given) as (container, stream):
            ticks, starts, hidden, by_order = _list_packets(container, stream)
            promised = _promised_frames(container, stream, len(ticks) + hidden)
            size, tick, rate = (stream.height, stream.width), stream.time_base, stream.average_rate
    except FFmpegError as error:
        raise _unreadable(source, name, given, error) from None
    if not len(ticks):
        raise BadInputError(f"{name}: {given} holds no frame of video that can be decoded; {_REMEDY}")
    _check_frames(len(ticks), name, f"{given} holds")
    if int(ticks[-1]) - int(ticks[0]) > MAX_CLIP_SECONDS / tick:
        raise BadInputError(f"{name}: {given} is said to last longer than {MAX_CLIP_SECONDS} seconds; {_REMEDY}")
    shown = ticks
    if _is_cut(source):
        if promised is None:
            raise BadInputError(f"{name}: {given} ends early, {len(ticks)} frames are there; {_REMEDY}")
        _check_frames(promised, name, f"{given} ends early and promises")
        shown = _with_missing(ticks, promised - hidden, 1 / (rate * tick) if rate else Fraction(1))
    return VideoFile(source, given, measured_timeline(shown, tick=tick, rate=rate), size, ticks, by_order, starts)


def read_video(video: VideoFile, kept: Sequence[int], *, name: str) -> UInt8[np.ndarray, "F H W 3"]:
    """Decode the kept frames, ascending indices into the timeline, upright and as RGB.

    Raises:
        BadInputError: a kept frame is beyond the end of a cut file, is damaged, or has another size than the rest.
    """
    if kept[-1] >= len(video.ticks):
        raise BadInputError(
            f"{name}: {video.given} ends early: {len(video.ticks)} of {video.timeline.frames} frames are there and "
            f"frame {kept[-1] + 1} is needed; {_REMEDY}"
        )
    reached = _frames_reached(video, kept) * video.size[0] * video.size[1]
    if reached > MAX_REACHED_PIXELS:
        raise BadInputError(
            f"{name}: {reached} pixels of {video.given} lie between its key frames and the kept ones, at most "
            f"{MAX_REACHED_PIXELS} are decoded; cut the clip, or give it more key frames: ffmpeg -i OLD -g 60 NEW.mp4"
        )
    frames = None
    try:
        with _opened(video.source, name, video.given) as (container, stream):
            for place, frame in enumerate(_decode(container, stream, video, kept)):
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
        raise BadInputError(f"{name}: {video.given} cannot be decoded: {reason}; {_REMEDY}") from None
    assert frames is not None
    return frames


@contextmanager
def _opened(source: Path | bytes, name: str, given: str) -> Iterator[tuple[Any, Any]]:
    """Open a file and its first video stream."""
    place = BytesIO(source) if isinstance(source, bytes) else f"file:{source.absolute()}"
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file", "fflags": "+genpts"}
    with av.open(place, options=options, metadata_errors="replace") as container:
        streams = [item for item in container.streams.video if not item.disposition & Disposition.attached_pic]
        if not streams:
            found = ", ".join(item.type for item in container.streams) or "nothing"
            raise BadInputError(f"{name}: {given} holds no video stream (found: {found}); give a file with one")
        stream = streams[0]
        if stream.codec_context is None or not stream.height * stream.width:
            raise BadInputError(f"{name}: {given} is coded in a way that PyAV cannot decode; {_REMEDY}")
        if stream.height * stream.width > MAX_DECODED_PIXELS:
            raise BadInputError(
                f"{name}: the frames of {given} are {stream.height}x{stream.width} (height x width); at most "
                f"{MAX_DECODED_PIXELS} pixels are decoded, make it smaller or remove it"
            )
        stream.codec_context.options = {"max_pixels": str(MAX_DECODED_PIXELS)}  # should a later frame be larger
        stream.codec_context.thread_type = "SLICE" if stream.height * stream.width > _LARGE_FRAME else "AUTO"
        stream.codec_context.thread_count = min(len(os.sched_getaffinity(0)) + 1, MAX_THREADS)
        yield container, stream


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the packets that hold data; an empty one would flush the decoder."""
    return (packet for packet in container.demux(stream) if packet.size)


def _list_packets(container: Any, stream: Any) -> tuple[Int64[np.ndarray, " found"], list[tuple[int, int]], int, bool]:
    """Return the frames' times, the key frames, the number of frames that are never shown, and ``by_order``.

    An AVI has no times, only a rate and the order of its packets, which is the decoding order: frames that refer to
    later ones come after them. The times that FFmpeg derives are wrong for H.264, so frames are identified by order.
    """
    shown, decoded = set[int](), list[int | None]()
    starts: list[tuple[int, int]] = []
    hidden = 0
    for number, packet in enumerate(_packets(container, stream)):
        if packet.is_corrupt or packet.pts is None:  # the last packet of a cut file
            continue
        if len(decoded) > MAX_CLIP_FRAMES:  # the caller reports it
            break
        if packet.is_keyframe:
            starts.append((packet.pts, number))
        # The header of a VP8 frame says whether it is shown; other codecs pack hidden frames with a shown one.
        if packet.is_discard or (stream.codec_context.name == "vp8" and not memoryview(packet)[0] & 0x10):
            hidden += 1
        elif starts and packet.pts >= starts[0][0]:  # packets before the first key frame cannot be decoded
            shown.add(packet.pts)
            decoded.append(packet.dts)
    by_order = container.format.name == "avi" and stream.codec_context.has_b_frames
    if not by_order and not (len(shown) == 1 < len(decoded)):
        return np.array(sorted(shown), np.int64), starts, hidden, False
    times = [tick for tick in decoded if tick is not None]
    if len(set(times)) == len(decoded):
        return np.array(sorted(times), np.int64), starts[:1], hidden, True
    step = 1 / (stream.average_rate * stream.time_base) if stream.average_rate else 0
    return np.array([round(n * step) for n in range(len(decoded))], np.int64), starts[:1], hidden, True


def _check_frames(count: int, name: str, told: str) -> None:
    if count > MAX_CLIP_FRAMES:
        frames = f"{count} frames" if "promises" in told else f"more than {MAX_CLIP_FRAMES} frames"
        raise BadInputError(f"{name}: {told} {frames}, at most {MAX_CLIP_FRAMES} are read; {_REMEDY}")


def _start_of(starts: list[tuple[int, int]], tick: int) -> tuple[int, int]:
    """Return the last key frame at or before a tick, or the first one."""
    return starts[max(bisect_right(starts, tick, key=lambda item: item[0]) - 1, 0)]


def _frames_reached(video: VideoFile, kept: Sequence[int]) -> int:
    """Return about how many frames must be decoded: each kept one from its key frame, or from the kept one before."""
    count, done = 0, 0
    for index in kept:
        begin = 0
        if not video.by_order:
            begin = int(np.searchsorted(video.ticks, _start_of(video.starts, int(video.ticks[index]))[0]))
        count += index + 1 - max(begin, done)
        done = index + 1
    return count


def _decode(container: Any, stream: Any, video: VideoFile, kept: Sequence[int]) -> Iterator[Any]:
    """Yield the kept frames, decoding each from the key frame before it, or from the last decoded one."""
    if video.by_order:
        yield from _decode_in_order(container, stream, video, kept)
        return
    ahead, skipped = iter(video.ticks[list(kept)].tolist()), False
    tick: Any = next(ahead)
    for number, packet in enumerate(chain(_packets(container, stream), (None,))):  # None flushes the decoder
        if packet is not None and number < _start_of(video.starts, tick)[1]:
            skipped = True
            continue
        if skipped:
            stream.codec_context.flush_buffers()
            skipped = False
        for frame in stream.codec_context.decode(packet):
            if frame.is_corrupt or frame.pts is None or frame.pts > tick:
                raise _damaged_at(video, stream, tick)
            if frame.pts == tick:
                yield frame
                tick = next(ahead, None)
            if tick is None:
                return
    raise _damaged_at(video, stream, tick)


def _decode_in_order(container: Any, stream: Any, video: VideoFile, kept: Sequence[int]) -> Iterator[Any]:
    """Yield the kept frames by their number in decoder output order, from the first key frame."""
    ahead, count = iter(kept), 0
    wanted: Any = next(ahead)
    for number, packet in enumerate(chain(_packets(container, stream), (None,))):
        if packet is not None and number < video.starts[0][1]:
            continue
        for frame in stream.codec_context.decode(packet):
            if frame.is_corrupt:
                raise _damaged_at(video, stream, int(video.ticks[min(count, len(video.ticks) - 1)]))
            if count == wanted:
                yield frame
                wanted = next(ahead, None)
            if wanted is None:
                return
            count += 1
    raise _damaged_at(video, stream, int(video.ticks[wanted]))


def _damaged_at(video: VideoFile, stream: Any, tick: int) -> _Damaged:
    first = int(video.ticks[0]) if video.by_order else video.starts[0][0]
    return _Damaged(f"it is damaged at {float((tick - first) * stream.time_base):.2f} seconds")


def _upright(frame: Any) -> UInt8[np.ndarray, "H W 3"]:
    """Return a frame as RGB, rotated by quarter turns and mirrored as its display matrix says."""
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
    """Return the number of frames that the header of a file states, or None if unknown."""
    if stream.frames >= found:
        return stream.frames
    if "matroska" in container.format.name and container.duration and stream.average_rate:
        promised = round(Fraction(container.duration, av.time_base) * stream.average_rate)
        return promised if promised >= found else None
    return None  # a fragmented file states the count of its first part only, others none


def _with_missing(ticks: Int64[np.ndarray, " found"], promised: int, step: Fraction) -> Int64[np.ndarray, " n"]:
    missing = np.arange(1, promised - len(ticks) + 1)
    return np.concatenate([ticks, ticks[-1] + np.round(missing * float(step)).astype(np.int64)])


def _is_cut(source: Path | bytes) -> bool:
    with _reader(source) as file:
        stated = stated_bytes(file)
        return stated is not None and stated > file.seek(0, SEEK_END)


def _reader(source: Path | bytes) -> BufferedIOBase:
    return BytesIO(source) if isinstance(source, bytes) else cast(BufferedIOBase, open_regular(source))


def _unreadable(source: Path | bytes, name: str, given: str, error: FFmpegError) -> BadInputError:
    if _is_cut(source):
        return BadInputError(f"{name}: {given} ends early, before its table of frames; {_REMEDY}")
    return BadInputError(f"{name}: {given} is not a readable video ({error.strerror}); {_REMEDY}")

"""Small video files, made where they are tested."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

LEVELS = 16 + 9 * np.arange(25)  # grey levels that lossy coding keeps apart

# ending: coding, frames that refer to later ones
FORMS = {
    "mp4": ("libx264", 2),
    "mov": ("mpeg4", 2),
    "mkv": ("libx264", 2),
    "webm": ("libvpx-vp9", 0),
    "avi": ("mpeg4", 2),
    "mpg": ("mpeg2video", 2),
    "ts": ("libx264", 2),
    "flv": ("flv", 0),
    "wmv": ("wmv2", 0),
}


def grey_frames(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Return frames of one level each, told apart by it; after 25 the levels begin anew."""
    levels = np.resize(LEVELS, count).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


def noisy_frames(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Return frames that take many bytes each, so that a cut falls between them; the level is as of grey frames."""
    noise = np.random.default_rng(0).integers(-12, 13, (count, height, width, 3))
    return (grey_frames(count, height, width) + noise).clip(0, 255).astype(np.uint8)


def write_video(
    path: Path,
    frames: np.ndarray,
    *,
    rate: float = 24,
    ticks: Sequence[int] | None = None,
    coding: str | None = None,
    options: dict[str, str] | None = None,
    encoder: dict[str, str] | None = None,
) -> Path:
    """Write ``uint8 [F, H, W, 3]`` frames; ``ticks`` are milliseconds in place of a rate."""
    usual, references = FORMS[path.suffix[1:]]
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(coding or usual, rate=Fraction(rate), options=encoder or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = 5
        stream.max_b_frames = references if coding is None else 0
        stream.bit_rate = 2_000_000
        if ticks is not None:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if ticks is not None:
                frame.pts, frame.time_base = ticks[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """Write a file of a tenth of a second of silence and nothing to see."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16000
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    return path


def turned(data: bytes, a: int, b: int, c: int, d: int) -> bytes:
    """Return an mp4 whose display matrix maps stored (x, y) to (a x + c y, b x + d y)."""
    place = data.index(b"tkhd") + 4 + 40  # of the matrix in a track header of version 0
    one = 1 << 16
    matrix = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    return data[:place] + matrix + data[place + len(matrix) :]


def levels_of(frames: np.ndarray) -> np.ndarray:
    """Return which of the grey levels each frame is nearest to, as its number."""
    return np.abs(frames.mean((1, 2, 3))[:, None] - LEVELS).argmin(1)

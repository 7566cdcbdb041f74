"""Which frames of a clip are kept, by their number and times; one rule for clips of every form."""

from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from urt_jax.data.examples import FramePicking
from urt_jax.errors import BadInputError

# What a file or record says of a clip is believed up to these. An hour of video at 60 frames a second has 216,000.
MAX_CLIP_FRAMES = 2**18
MAX_CLIP_SECONDS = 86400  # a day: recordings of cameras come in such files
MAX_PICKED_FRAMES = 2**20  # moments that ``fps`` picks at, before they are thinned to max_frames


class Timeline(NamedTuple):
    """The number of frames of a clip and when each is shown.

    ``rate`` is frames a second where they come at even distances; ``seconds`` counts from the first frame. A clip that
    says nothing of time has neither, one of a single frame may have either.
    """

    frames: int
    rate: float | None = None
    seconds: Float64[np.ndarray, " n"] | None = None


def even_timeline(count: int, rate: float | None) -> Timeline:
    """Return the times of frames at even distances; without a rate (frames a second) there are none."""
    if rate is None:
        return Timeline(count)
    with np.errstate(over="ignore"):  # of a rate next to nothing; so long a clip is refused by ``pick_frames``
        return Timeline(count, float(rate), np.arange(count) / rate)


def measured_timeline(ticks: Int64[np.ndarray, " n"], *, tick: Fraction, rate: Fraction | None) -> Timeline:
    """Return the times of frames shown at ascending ``ticks`` of ``tick`` seconds each.

    Containers round times to ticks, so frames that stay within one tick of the stated ``rate`` come at even distances;
    others (a variable frame rate) keep their times.
    """
    seconds = (ticks - ticks[0]) * float(tick)
    if rate and np.all(np.abs(seconds - np.arange(len(ticks)) / float(rate)) <= float(tick) * 1.001):
        return even_timeline(len(ticks), float(rate))
    return Timeline(len(ticks), None, seconds) if seconds[-1] > 0 else Timeline(len(ticks))


def pick_frames(timeline: Timeline, picking: FramePicking, *, name: str) -> list[int]:
    """Return the ascending indices of the kept frames, the first always among them.

    A frame is kept once, so a clip of fewer frames than asked for, or slower ones, is kept whole. Frame k of a rate is
    the one nearest to ``k / fps`` seconds, the earlier of two.

    Raises:
        BadInputError: a rate is asked for of a clip of several frames that says nothing of time; more frames, seconds
            or picked moments than are believed.
    """
    _check_length(timeline, picking.fps, name)
    kept = np.arange(timeline.frames)
    if picking.fps is not None and timeline.frames > 1:
        if timeline.seconds is None:
            raise BadInputError(
                f"{name}: its {timeline.frames} frames have no times, so they can not be picked at {picking.fps:g} a "
                "second; give the clip's own fps, or pick by max_frames alone"
            )
        kept = _nearest(timeline.seconds, picking.fps)
    return kept[spread(len(kept), picking.max_frames)].tolist()


def _check_length(timeline: Timeline, fps: float | None, name: str) -> None:
    if timeline.frames > MAX_CLIP_FRAMES:
        raise BadInputError(
            f"{name}: {timeline.frames} frames are promised, at most {MAX_CLIP_FRAMES} are read; cut the clip to "
            "shorter ones, or write it again where it has fewer"
        )
    seconds = 0.0 if timeline.seconds is None else float(timeline.seconds[-1])
    if not seconds <= MAX_CLIP_SECONDS:
        raise BadInputError(
            f"{name}: its {timeline.frames} frames last {seconds:.6g} seconds, at most {MAX_CLIP_SECONDS} are "
            "believed; mend its times, or its fps (frames a second of the clip itself)"
        )
    if fps is not None and seconds * fps > MAX_PICKED_FRAMES:
        raise BadInputError(
            f"{name}: {fps:g} frames a second of {seconds:.6g} seconds are more than {MAX_PICKED_FRAMES}; pick fewer"
        )


def spread(count: int, most: int | None) -> Int64[np.ndarray, " kept"]:
    """Return at most ``most`` of ``count`` indices, evenly from the first to the last (the original's evaluation)."""
    if most is None or count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(np.int64)


def kept_rate(timeline: Timeline, kept: list[int]) -> float | None:
    """Return frames a second of the kept frames: their number over the length of the whole clip, None without times.

    This is the rate published processors work with. It is a little above the true one, as they count the time after
    the last kept frame: 8 of 126 frames at 24 a second, first and last among them, are 1.524 here.
    """
    if timeline.rate is not None:  # as a fraction: rates that are whole stay whole
        return float(Fraction(timeline.rate) * len(kept) / timeline.frames)
    if timeline.seconds is None or timeline.frames < 2:
        return None
    return float((timeline.frames - 1) / timeline.seconds[-1] * len(kept) / timeline.frames)


def _nearest(seconds: Float64[np.ndarray, " n"], fps: float) -> Int64[np.ndarray, " kept"]:
    """Return the frame nearest to each multiple of ``1 / fps`` up to the last frame, each once."""
    wanted = np.arange(int(seconds[-1] * fps + 1e-6) + 1) / fps
    after = np.searchsorted(seconds, wanted - 1e-9).clip(1, len(seconds) - 1)
    earlier = wanted - seconds[after - 1] <= seconds[after] - wanted + 1e-9
    return np.unique(after - earlier)

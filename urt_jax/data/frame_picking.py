"""Selection of a clip's frames by their number and times; one rule for clips of every form."""

from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from urt_jax.data.examples import FramePicking
from urt_jax.errors import BadInputError

# Limits on a clip as its file or record states it. An hour of video at 60 frames a second has 216,000.
MAX_CLIP_FRAMES = 2**18
MAX_CLIP_SECONDS = 86400  # a day, as in recordings of surveillance cameras
MAX_PICKED_FRAMES = 2**20  # times at which ``fps`` picks, before thinning to max_frames


class Timeline(NamedTuple):
    """The number of frames of a clip and their times.

    ``rate`` is frames per second if they are evenly spaced; ``seconds`` counts from the first frame. A clip without
    times has neither, one of a single frame may have either.
    """

    frames: int
    rate: float | None = None
    seconds: Float64[np.ndarray, " n"] | None = None


def even_timeline(count: int, rate: float | None) -> Timeline:
    """Return the times of evenly spaced frames; without a rate (frames per second) there are none."""
    if rate is None:
        return Timeline(count)
    with np.errstate(over="ignore"):  # for a tiny rate; ``pick_frames`` refuses so long a clip
        return Timeline(count, float(rate), np.arange(count) / rate)


def measured_timeline(ticks: Int64[np.ndarray, " n"], *, tick: Fraction, rate: Fraction | None) -> Timeline:
    """Return the times of frames shown at ascending ``ticks`` of ``tick`` seconds each.

    Containers round times to ticks, so frames within one tick of the stated ``rate`` count as evenly spaced; others (a
    variable frame rate) keep their times.
    """
    seconds = (ticks - ticks[0]) * float(tick)
    if rate and np.all(np.abs(seconds - np.arange(len(ticks)) / float(rate)) <= float(tick) * 1.001):
        return even_timeline(len(ticks), float(rate))
    return Timeline(len(ticks), None, seconds) if seconds[-1] > 0 else Timeline(len(ticks))


def pick_frames(timeline: Timeline, picking: FramePicking, *, name: str) -> list[int]:
    """Return the ascending indices of the kept frames, always including the first.

    A frame is kept once, so a clip with fewer frames, or a lower rate, than requested is kept whole. Frame k at a
    requested rate is the one nearest to ``k / fps`` seconds, the earlier of two.

    Raises:
        BadInputError: a rate is requested for a clip of several frames without times; or more frames, seconds or
            picked times than allowed.
    """
    _check_length(timeline, picking.fps, name)
    kept = np.arange(timeline.frames)
    if picking.fps is not None and timeline.frames > 1:
        if timeline.seconds is None:
            raise BadInputError(
                f"{name}: its {timeline.frames} frames have no times, so they cannot be picked at {picking.fps:g} a "
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
            "allowed; fix its times, or its fps (frames a second of the clip itself)"
        )
    if fps is not None and seconds * fps > MAX_PICKED_FRAMES:
        raise BadInputError(
            f"{name}: {fps:g} frames a second of {seconds:.6g} seconds are more than {MAX_PICKED_FRAMES}; pick fewer"
        )


def spread(count: int, most: int | None) -> Int64[np.ndarray, " kept"]:
    """Return at most ``most`` of ``count`` indices, evenly from the first to the last (the paper's evaluation)."""
    if most is None or count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(np.int64)


def kept_rate(timeline: Timeline, kept: list[int]) -> float | None:
    """Return the rate of the kept frames: their number divided by the clip's length; None without times.

    Published processors use this rate. It is slightly above the true one: 8 of 126 frames at 24 a second, including
    the first and the last, have a rate of 1.524 here.
    """
    if timeline.rate is not None:  # as a fraction, so that whole rates stay whole
        return float(Fraction(timeline.rate) * len(kept) / timeline.frames)
    if timeline.seconds is None or timeline.frames < 2:
        return None
    return float((timeline.frames - 1) / timeline.seconds[-1] * len(kept) / timeline.frames)


def _nearest(seconds: Float64[np.ndarray, " n"], fps: float) -> Int64[np.ndarray, " kept"]:
    """Return the frame nearest to each multiple of ``1 / fps`` up to the last frame, without duplicates."""
    wanted = np.arange(int(seconds[-1] * fps + 1e-6) + 1) / fps
    after = np.searchsorted(seconds, wanted - 1e-9).clip(1, len(seconds) - 1)
    earlier = wanted - seconds[after - 1] <= seconds[after] - wanted + 1e-9
    return np.unique(after - earlier)

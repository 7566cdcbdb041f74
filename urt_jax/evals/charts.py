"""The geometry of a learning curve's chart: lines, ticks and labels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 320, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 10, 22  # margins around the plot
_MOST_POINTS = 240  # per curve; longer curves are averaged over equal segments
_SMOOTH_FROM = 24  # least number of points for a smooth line over the pale raw line


@dataclass(frozen=True)
class Chart:
    """One curve in a box of ``WIDTH`` x ``HEIGHT``; ticks are (position, label), lines are SVG ``points``."""

    name: str
    raw: str
    smooth: str
    y_ticks: list[tuple[float, str]]
    x_ticks: list[tuple[float, str]]
    end: tuple[float, float]
    first_value: str
    last_value: str
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    bottom: int = HEIGHT - _BOTTOM


def make_chart(name: str, curve: Sequence[tuple[float, float]]) -> Chart | None:
    """Lay out one learning curve of (step, value); non-finite values are left out; None without finite values."""
    points = [(float(step), float(value)) for step, value in curve if math.isfinite(value)]
    if not points:
        return None
    points = _averaged(sorted(points))
    line = _smoothed(points) if len(points) >= _SMOOTH_FROM else points
    drawn = [value for _, value in (*points, *line)]
    y_ticks = nice_ticks(min(drawn), max(drawn))
    low, high = y_ticks[0], y_ticks[-1]
    first, last = points[0][0], points[-1][0]

    def place(step: float, value: float) -> tuple[float, float]:
        across = 0.5 if last == first else (step - first) / (last - first)
        return (
            round(_LEFT + across * (WIDTH - _LEFT - _RIGHT), 1),
            round(HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM), 1),
        )

    steps = [first] if first == last else [first, last]
    return Chart(
        name=name,
        raw=_svg_points([place(*point) for point in points]) if line is not points else "",
        smooth=_svg_points([place(*point) for point in line]),
        y_ticks=[(place(first, tick)[1], number(tick)) for tick in y_ticks],
        x_ticks=[(place(step, low)[0], number(step)) for step in steps],
        end=place(*line[-1]),
        first_value=number(line[0][1]),
        last_value=number(line[-1][1]),
    )


def nice_ticks(low: float, high: float) -> list[float]:
    """Return 3 to 6 round numbers in equal steps that enclose ``low`` and ``high``."""
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        pad = abs(low) / 2 or 0.5
        low, high = low - pad, high + pad
    rough = (high - low) / 3
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [n * step for n in range(start, max(stop, start + 2) + 1)]


def number(value: float) -> str:
    """Return a number as short text: four significant digits, no exponent where it can be avoided."""
    if value == 0 or abs(value) < 1e-12:
        return "0"
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _averaged(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    run = math.ceil(len(points) / _MOST_POINTS)
    parts = [points[start : start + run] for start in range(0, len(points), run)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def _smoothed(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Smooth each value by a straight line fitted to its neighbours, so that the ends are not biased."""
    reach = max(2, len(points) // 10)
    steps, values = np.array(points).T
    smooth = []
    for n, step in enumerate(steps):
        near = slice(max(0, n - reach), n + reach + 1)
        across = steps[near] - steps[near].mean()
        slope = (across * values[near]).sum() / max((across**2).sum(), 1e-30)
        smooth.append((float(step), float(values[near].mean() + slope * (step - steps[near].mean()))))
    return smooth


def _svg_points(places: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in places)

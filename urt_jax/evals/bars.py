"""The geometry of a stacked bar chart with a limit line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from urt_jax.evals.charts import nice_ticks, number

WIDTH, BAR, GAP = 720, 18, 10
_LEFT, _TOP, _BOTTOM = 170, 8, 24
SHADES = 8  # colours of the page's style, reused from the first if there are more parts


@dataclass(frozen=True)
class Part:
    """One part of a bar: name, value as text, colour number, start and width."""

    name: str
    value: str
    shade: int
    x: float
    width: float


@dataclass(frozen=True)
class Bar:
    """One bar, its name at the left, and its total and note at the end."""

    name: str
    y: float
    parts: tuple[Part, ...]
    total: str
    end: float
    note: str


@dataclass(frozen=True)
class BarChart:
    """Bars in a box of ``width`` x ``height``; ticks are (position, label)."""

    name: str
    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    legend: tuple[tuple[str, int], ...]
    limit: float
    limit_name: str
    height: float
    width: int = WIDTH
    bar: int = BAR
    left: int = _LEFT


def make_bars(
    name: str, bars: Sequence[tuple[str, Mapping[str, float], str]], *, limit: float, limit_name: str
) -> BarChart:
    """Lay out bars of (name, parts, note); a part has the same colour in all bars."""
    names = list(dict.fromkeys(part for _, parts, _ in bars for part in parts))
    longest = max([limit, *(sum(parts.values()) for _, parts, _ in bars)])
    ticks = nice_ticks(0.0, longest)
    scale = (WIDTH - _LEFT - 90) / ticks[-1]
    laid = []
    for place, (title, parts, note) in enumerate(bars):
        x, cut = float(_LEFT), []
        for part, value in parts.items():
            cut.append(Part(part, number(value), names.index(part) % SHADES, round(x, 1), round(value * scale, 1)))
            x += value * scale
        total = number(sum(parts.values()))
        laid.append(Bar(title, _TOP + place * (BAR + GAP), tuple(cut), total, round(x, 1), note))
    return BarChart(
        name=name,
        bars=tuple(laid),
        ticks=tuple((round(_LEFT + tick * scale, 1), number(tick)) for tick in ticks),
        legend=tuple((part, index % SHADES) for index, part in enumerate(names)),
        limit=round(_LEFT + limit * scale, 1),
        limit_name=limit_name,
        height=_TOP + len(laid) * (BAR + GAP) + _BOTTOM,
    )

"""Render scenes: anti-aliased shapes on a shaded background, with visible faults and nuisances that do not count."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

SIDE = 56  # pixels of a picture's edge: 4 patches of 14
FRAMES = 4  # frames of a clip
FPS = 2.0

COLOURS = {
    "red": (215, 40, 40),
    "green": (40, 160, 60),
    "blue": (45, 80, 215),
    "yellow": (235, 205, 40),
    "purple": (150, 55, 180),
    "orange": (240, 130, 30),
    "teal": (30, 175, 185),
    "pink": (240, 130, 185),
    "brown": (125, 75, 40),
    "grey": (90, 92, 96),
}
TINT = 14  # largest deviation of a channel from the named colour
ODD_DISTANCE = 50  # least distance of an unnamed colour from all named ones
RADIUS = {"small": 6.5, "large": 15.0, "pair": 9.5, "many": 8.0}
CLIP_RADIUS = {"small": 5.5, "medium": 8.5, "large": 12.0}
STEPS = {"moves left": (-1, 0), "moves right": (1, 0), "moves up": (0, -1), "moves down": (0, 1)}
OFFSETS = {"left of": (-13, 0), "right of": (13, 0), "above": (0, -13), "below": (0, 13)}

Plane = Float[np.ndarray, "height width"]
Ground = Float[np.ndarray, "height width 3"]
ROWS, COLUMNS = (axis.astype(np.float32) for axis in np.mgrid[0:SIDE, 0:SIDE])


class Body(NamedTuple):
    """One object to draw; lengths in pixels, angles in radians."""

    colour: tuple[float, float, float]
    shape: str
    x: float
    y: float
    radius: float
    turn: float  # rotation of the shape
    break_angle: float  # direction of a crack; a cut is perpendicular to it


def _shape_distance(shape: str, u: Plane, v: Plane, radius: float) -> Plane:
    """Return the signed distance in pixels to the edge, below 0 inside; approximate for the star."""
    if shape == "circle":
        return np.hypot(u, v) - np.float32(radius)
    if shape == "square":
        return np.maximum(np.abs(u), np.abs(v)) - np.float32(0.9 * radius)
    if shape == "diamond":
        return (np.abs(u) + np.abs(v) - np.float32(1.2 * radius)) * np.float32(np.sqrt(0.5))
    if shape == "ring":
        return np.abs(np.hypot(u, v) - np.float32(0.72 * radius)) - np.float32(0.28 * radius)
    if shape == "bar":
        return np.maximum(np.abs(u) - np.float32(1.15 * radius), np.abs(v) - np.float32(0.45 * radius))
    if shape == "star":
        spike = np.abs((np.arctan2(u, -v) / np.float32(2 * np.pi / 5) + 0.5) % 1 - 0.5) * 2  # 0 at a tip, 1 between
        return (np.hypot(u, v) - np.float32(1.2 * radius) / (1 + np.float32(1.3) * spike)) * np.float32(0.6)
    slope = np.float32(np.sqrt(3) / 2)
    return np.maximum(v, np.abs(u) * slope - v * np.float32(0.5)) - np.float32(0.64 * radius)


def _segment_distance(x: Plane, y: Plane, start: tuple[float, float], end: tuple[float, float]) -> Plane:
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(x - start[0] - along * dx, y - start[1] - along * dy)


def _cover(distance: Plane) -> Plane:
    """Return the share of each pixel that lies inside."""
    return np.clip(0.5 - distance, 0, 1)


def _draw_body(ground: Ground, body: Body, broken: Sequence[str]) -> None:
    """Paint one object in place; "cut" splits it into two pieces, "cracked" draws a dark zigzag over it."""
    reach = 1.6 * body.radius + 4  # nothing is painted farther out
    top, left = max(int(body.y - reach), 0), max(int(body.x - reach), 0)
    window = np.s_[top : int(body.y + reach) + 1, left : int(body.x + reach) + 1]
    ground = ground[window]
    x, y = COLUMNS[window] - np.float32(body.x), ROWS[window] - np.float32(body.y)
    cos, sin = float(np.cos(body.break_angle)), float(np.sin(body.break_angle))
    along, across = x * cos + y * sin, y * cos - x * sin
    gap = 0.0
    if "cut" in broken:
        gap = max(1.6, 0.2 * body.radius)
        shift = np.sign(along) * np.float32(0.5 * gap)  # a small gap between the pieces
        x, y = x - shift * cos, y - shift * sin
    turn_cos, turn_sin = float(np.cos(body.turn)), float(np.sin(body.turn))
    distance = _shape_distance(body.shape, x * turn_cos + y * turn_sin, y * turn_cos - x * turn_sin, body.radius)
    if gap:
        distance = np.maximum(distance, np.float32(gap) - np.abs(along))
    inside = _cover(distance)[..., None]
    ground += inside * (np.asarray(body.colour, np.float32) - ground)
    if "cracked" in broken:
        length, swing = 1.15 * body.radius + gap, 0.3 * body.radius
        knots = [(length * (step / 2 - 1), swing * (-1) ** step) for step in range(5)]
        distance = _segment_distance(along, across, knots[0], knots[1])
        for start, end in pairwise(knots[1:]):
            distance = np.minimum(distance, _segment_distance(along, across, start, end))
        ground += (_cover(distance - 0.75)[..., None] * inside) * (np.float32(12) - ground)


def _make_ground(rng: np.random.Generator) -> Ground:
    """Draw a shaded, tinted background with ripples, stripes and dark edges, none of which affects a score."""
    shade = rng.uniform(165, 235) + rng.uniform(-10, 10, 3)
    angle, wave, phase = rng.uniform(0, 2 * np.pi), rng.uniform(6, 20), rng.uniform(0, 2 * np.pi)
    run = COLUMNS * np.float32(np.cos(angle)) + ROWS * np.float32(np.sin(angle))
    relief = rng.uniform(-0.5, 0.5) * (run - run.mean()) + rng.uniform(0, 9) * np.sin(run / np.float32(wave) + phase)
    if rng.random() < 0.5:  # fine stripes
        relief += rng.uniform(4, 14) * np.sin(
            (ROWS if rng.random() < 0.5 else COLUMNS) * np.float32(rng.uniform(1.2, 1.9))
        )
    ground = (shade[None, None, :] + relief[..., None]).astype(np.float32)
    for _ in range(int(rng.integers(0, 4))):  # strips of any darkness along an edge
        edge = np.rot90(ground, int(rng.integers(4)))
        edge[: int(rng.integers(1, 4))] = rng.uniform(5, 160)
    return ground


def _clutter(rng: np.random.Generator, ground: Ground) -> None:
    """Draw dark strokes over the background in place, one in each cell of a 4 x 4 grid."""
    cell = SIDE / 4
    for place in range(16):
        x, y = (cell * (0.5 + part) + rng.uniform(-4, 4) for part in divmod(place, 4))
        angle, reach = rng.uniform(0, np.pi), rng.uniform(4, 6)
        dx, dy = reach * np.cos(angle), reach * np.sin(angle)
        top, left = max(int(y) - 8, 0), max(int(x) - 8, 0)
        window = np.s_[top : int(y) + 9, left : int(x) + 9]
        distance = _segment_distance(COLUMNS[window], ROWS[window], (x - dx, y - dy), (x + dx, y + dy))
        ground[window] += _cover(distance - 0.7)[..., None] * (
            rng.uniform(20, 90, 3).astype(np.float32) - ground[window]
        )


def draw_colour(rng: np.random.Generator, word: str) -> Float[np.ndarray, "3"]:
    """Draw a colour of this name, or for "odd" an unnamed one in contrast to the background and to dark cracks."""
    if word != "odd":
        return np.array(COLOURS[word]) + rng.uniform(-TINT, TINT, 3)
    named = np.array(list(COLOURS.values()))
    while True:
        colour = rng.uniform(10, 245, 3)
        if np.linalg.norm(named - colour, axis=1).min() > ODD_DISTANCE and colour.min() < 130 and colour.max() > 90:
            return colour


def _make_body(rng: np.random.Generator, colour: str, shape: str, x: float, y: float, radius: float) -> Body:
    tint = tuple(float(value) for value in draw_colour(rng, colour))
    assert len(tint) == 3
    # A cut is always nearly horizontal, so that the pieces of a triangle never look like two triangles.
    break_angle = np.pi / 2 + rng.uniform(-0.5, 0.5)
    turn = rng.uniform(-0.2, 0.2)
    return Body(tint, shape.removesuffix("s"), x, y, radius * rng.uniform(0.92, 1.08), turn, break_angle)


def _place(rng: np.random.Generator, kind: str, words: list[str]) -> list[Body]:
    """Place the objects of a picture."""
    middle = SIDE / 2
    if kind == "sized":
        x, y = middle + rng.uniform(-6, 6, 2)
        return [_make_body(rng, words[1], words[2], x, y, RADIUS[words[0]])]
    if kind == "relation":
        dx, dy = OFFSETS[words[2]]
        sway = rng.uniform(-5, 5, 2)  # both objects move along the free axis, only a little along the other
        base_x, base_y = middle + sway[0] * (0.4 if dx else 1), middle + sway[1] * (0.4 if dy else 1)
        jitter = rng.uniform(-1.5, 1.5, 4)
        return [
            _make_body(rng, words[0], words[1], base_x + dx + jitter[0], base_y + dy + jitter[1], RADIUS["pair"]),
            _make_body(rng, words[3], words[4], base_x - dx + jitter[2], base_y - dy + jitter[3], RADIUS["pair"]),
        ]
    cells = rng.permutation(4)[: {"two": 2, "three": 3}[words[0]]]
    bodies = []
    for cell in cells:
        row, column = divmod(int(cell), 2)
        x, y = (middle + 13.5 * (2 * part - 1) + rng.uniform(-2.5, 2.5) for part in (column, row))
        bodies.append(_make_body(rng, words[1], words[2], x, y, RADIUS["many"]))
    return bodies


def _expose(
    rng: np.random.Generator, picture: Ground, light: float, faults: Sequence[str]
) -> UInt8[np.ndarray, "h w 3"]:
    """Convert light to bytes: brightness, then dullness, then noise."""
    picture = picture * np.float32(light)
    if "dull" in faults:
        picture = 135 + np.float32(0.42) * (picture - 135)
    # A dull picture has low contrast, so its noise is weaker: the object must stay recognisable.
    grain = (20.0 if "dull" in faults else 34.0) if "noisy" in faults else rng.uniform(0, 6)
    picture = picture + np.float32(grain) * rng.standard_normal(picture.shape, dtype=np.float32)
    return np.clip(picture, 0, 255).astype(np.uint8)


def draw_picture(
    rng: np.random.Generator, kind: str, words: list[str], *, faults: Sequence[str] = ()
) -> UInt8[np.ndarray, "h w 3"]:
    """Render a picture of the words; ``faults`` out of cluttered, noisy, dull, cracked, cut."""
    picture = _make_ground(rng)
    if "cluttered" in faults:
        _clutter(rng, picture)
    for body in _place(rng, kind, words):
        _draw_body(picture, body, faults)
    return _expose(rng, picture, rng.uniform(0.88, 1.08), faults)


def draw_clip(
    rng: np.random.Generator, kind: str, words: list[str], *, faults: Sequence[str] = ()
) -> UInt8[np.ndarray, "f h w 3"]:
    """Render a clip of one moving object; ``faults`` out of flicker, jump, cracked, cut.

    Flicker darkens every other frame; a jump displaces the object sideways in one of the middle frames.
    """
    size = words[0] if kind == "sized_moving" else "medium"
    colour, shape, direction = words[-3:]
    ground, light = _make_ground(rng), rng.uniform(0.9, 1.08)
    step_x, step_y = STEPS[direction]
    side = rng.uniform(-5, 5)
    body = _make_body(rng, colour, shape, 0.0, 0.0, CLIP_RADIUS[size])
    start, stride = rng.uniform(-15, -12), rng.uniform(8.5, 9.5)
    dark, jumping = int(rng.integers(2)), int(rng.integers(1, 3))
    brightening = rng.uniform(-0.3, 0.3)  # steady over the clip, so not a fault
    frames = []
    for frame in range(FRAMES):
        run, drift = start + frame * stride, side
        if "jump" in faults and frame == jumping:
            drift -= 15 if side > 0 else -15
        x, y = SIDE / 2 + step_x * run + abs(step_y) * drift, SIDE / 2 + step_y * run + abs(step_x) * drift
        picture = ground.copy()
        _draw_body(picture, body._replace(x=x, y=y), faults)
        dim = 0.55 if "flicker" in faults and frame % 2 == dark else 1.0
        frames.append(_expose(rng, picture, light * dim * (1 + brightening * (frame / (FRAMES - 1) - 0.5)), ()))
    return np.stack(frames)

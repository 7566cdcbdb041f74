from itertools import combinations

import numpy as np
import pytest

from urt_jax.scenes.render import COLOURS, FRAMES, SIDE, TINT, draw_clip, draw_colour, draw_picture
from urt_jax.scenes.scales import SCALES
from urt_jax.scenes.world import words_like

PICTURE_FAULTS = [fault for scale in SCALES["image_gen"] for fault in scale.faults]
CLIP_FAULTS = [fault for scale in SCALES["video_gen"] for fault in scale.faults]
WORDS = {
    "sized": ["small", "yellow", "circle"],
    "relation": ["red", "circle", "left of", "blue", "square"],
    "count": ["three", "green", "triangles"],
}
CLIP_WORDS = ["small", "red", "circle", "moves right"]


def picture(kind, words, *faults):
    return draw_picture(np.random.default_rng(3), kind, words, faults=faults).astype(int)


def changed(first, second):
    """Share of the pixels that differ clearly."""
    return np.mean(np.abs(first - second).max(-1) > 25)


def test_sizes_and_types():
    assert draw_picture(np.random.default_rng(0), "count", WORDS["count"]).shape == (SIDE, SIDE, 3)
    clip = draw_clip(np.random.default_rng(0), "sized_moving", CLIP_WORDS)
    assert clip.shape == (FRAMES, SIDE, SIDE, 3)
    assert clip.dtype == np.uint8


@pytest.mark.parametrize("fault", PICTURE_FAULTS)
@pytest.mark.parametrize("kind", WORDS)
def test_each_fault_shows_in_a_picture(kind, fault):
    # The smallest thing is 13 pixels wide, so a crack through it is 0.3 % of the picture.
    assert changed(picture(kind, WORDS[kind]), picture(kind, WORDS[kind], fault)) > (0.004 if kind == "sized" else 0.01)


@pytest.mark.parametrize("fault", ["cracked", "cut"])
@pytest.mark.parametrize("shape", words_like("shape", wide=True))
def test_each_shape_shows_that_it_is_broken(shape, fault):
    words = ["small", "orange", shape]
    assert changed(picture("sized", words), picture("sized", words, fault)) > 0.003


@pytest.mark.parametrize(("category", "words"), [("colour", "small {} circle"), ("shape", "small blue {}")])
def test_any_two_colours_and_any_two_shapes_differ(category, words):
    shown = [picture("sized", words.format(word).split()) for word in words_like(category, wide=True)]
    for one, other in combinations(shown, 2):
        assert changed(one, other) > 0.007


def test_an_odd_colour_is_none_that_has_a_name():
    rng = np.random.default_rng(0)
    named = np.array(list(COLOURS.values()))
    for _ in range(200):
        colour = draw_colour(rng, "odd")
        assert np.linalg.norm(named - colour, axis=1).min() > np.sqrt(3) * TINT


@pytest.mark.parametrize("fault", CLIP_FAULTS)
def test_each_fault_shows_in_a_clip(fault):
    plain, faulty = (
        draw_clip(np.random.default_rng(3), "sized_moving", CLIP_WORDS, faults=faults).astype(int)
        for faults in ((), (fault,))
    )
    assert changed(plain, faulty) > 0.004


@pytest.mark.parametrize(
    ("kind", "slot", "word"),
    [
        ("sized", 0, "large"),
        ("sized", 1, "purple"),
        ("sized", 2, "square"),
        ("relation", 2, "right of"),
        ("relation", 2, "above"),
        ("relation", 3, "green"),
        ("count", 0, "two"),
    ],
)
def test_each_wrong_word_shows(kind, slot, word):
    other = list(WORDS[kind])
    other[slot] = word
    assert changed(picture(kind, WORDS[kind]), picture(kind, other)) > 0.007


@pytest.mark.parametrize(
    ("relation", "axis", "sign"), [("left of", 1, -1), ("right of", 1, 1), ("above", 0, -1), ("below", 0, 1)]
)
def test_relations_place_the_first_thing(relation, axis, sign):
    shown = picture("relation", ["red", "circle", relation, "blue", "square"])
    red, blue = shown[..., 0] - shown[..., 2] > 90, shown[..., 2] - shown[..., 0] > 90
    assert sign * (np.argwhere(red).mean(0) - np.argwhere(blue).mean(0))[axis] > 15


@pytest.mark.parametrize(
    ("direction", "axis", "sign"),
    [("moves left", 1, -1), ("moves right", 1, 1), ("moves up", 0, -1), ("moves down", 0, 1)],
)
def test_clips_move_the_way_they_say(direction, axis, sign):
    clip = draw_clip(np.random.default_rng(1), "moving", ["red", "circle", direction]).astype(int)
    centres = [np.argwhere(frame[..., 0] - frame[..., 2] > 60).mean(0)[axis] for frame in clip]
    assert np.all(sign * np.diff(centres) > 5)

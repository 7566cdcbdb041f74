"""Qwen2.5-VL's layout by hand: window slots, positions of pictures and clips, and what config.json may say."""

from typing import Any

import numpy as np
import pytest

from tests.tiny import CONFIG, FEATURES
from urt_jax.errors import BadInputError
from urt_jax.families.family import MediaLayout
from urt_jax.families.qwen2_5_vl import FAMILY, lay_out, read_config, write_config

IDS = {"pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 0}


def layout(steps: int, rows: int, cols: int, seconds: float | None = None) -> MediaLayout:
    """Lay out a medium of so many merged patches whose patch n holds the number n."""
    count = steps * rows * cols * 4
    patches = np.repeat(np.arange(count, dtype=np.float32)[:, None], FEATURES, axis=1)
    return lay_out(patches, (steps, 2 * rows, 2 * cols), CONFIG, seconds)


def test_windows_follow_each_other_each_in_its_full_number_of_slots() -> None:
    """3 x 5 groups in windows of 2 x 2: a a b b c / a a b b c / d d e e f."""
    slots = layout(1, 3, 5).pieces[0].slots_E2[:, 1].reshape(3, 5)
    np.testing.assert_array_equal(slots, [[0, 1, 4, 5, 8], [2, 3, 6, 7, 9], [12, 13, 16, 17, 20]])


def test_a_picture_of_one_window_takes_no_padding() -> None:
    made = layout(1, 1, 2)
    np.testing.assert_array_equal(made.pieces[0].slots_E2, [[0, 0], [0, 1]])
    assert made.frames[0].mask_P.shape == (8,)
    assert made.frames[0].mask_P.all()


def test_patches_stand_in_their_slots_with_their_place_in_the_picture() -> None:
    made = layout(1, 3, 5)
    (frame,) = made.frames
    assert frame.mask_P.sum() == 60
    assert len(frame.mask_P) == 6 * 16
    for group, slot in enumerate(made.pieces[0].slots_E2[:, 1]):
        row, col = divmod(group, 5)
        here = slice(slot * 4, slot * 4 + 4)
        np.testing.assert_array_equal(frame.patches_PC[here, 0], group * 4 + np.arange(4))
        corner = np.array([[2 * row, 2 * col]])
        np.testing.assert_array_equal(frame.positions_P2[here], corner + np.array([[0, 0], [0, 1], [1, 0], [1, 1]]))
    assert (frame.patches_PC[~frame.mask_P] == 0).all()


def test_positions_of_a_picture() -> None:
    made = layout(1, 2, 3)
    np.testing.assert_array_equal(made.pieces[0].offsets_3E, [[0] * 6, [0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]])
    assert made.pieces[0].advance == 3


@pytest.mark.parametrize(("seconds", "times"), [(1.0, [0, 2, 4]), (0.7, [0, 1, 2]), (2.0, [0, 4, 8])])
def test_positions_of_a_clip(seconds: float, times: list[int]) -> None:
    """Two tokens a second: the temporal position is the time of the frame, rounded down."""
    made = layout(3, 1, 2, seconds)
    np.testing.assert_array_equal(made.pieces[0].offsets_3E[0], np.repeat(times, 2))
    np.testing.assert_array_equal(made.pieces[0].offsets_3E[1:], [[0] * 6, [0, 1] * 3])
    np.testing.assert_array_equal(made.pieces[0].slots_E2, [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]])
    assert len(made.frames) == 3
    np.testing.assert_array_equal(made.frames[1].patches_PC[:, 0], np.arange(8, 16))


def test_config_comes_back_as_written() -> None:
    assert read_config(write_config(CONFIG, IDS)) == CONFIG


def flat_config() -> dict[str, Any]:
    """The older form: the decoder's keys at the top, rope_theta and rope_scaling apart."""
    written = write_config(CONFIG, IDS)
    text = written.pop("text_config")
    rope = text.pop("rope_parameters")
    scaling = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    return {**text, **written, "rope_theta": rope["rope_theta"], "rope_scaling": scaling}


def test_the_older_flat_form_reads_the_same() -> None:
    assert read_config(flat_config()) == CONFIG


def test_a_missing_key_is_named() -> None:
    stored = flat_config()
    del stored["num_hidden_layers"]
    with pytest.raises(BadInputError, match=r"config.json: num_hidden_layers is missing"):
        read_config(stored)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_sliding_window": True}, "use_sliding_window is True; needed False"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "asks for rope type .*yarn"),
        (
            {"rope_scaling": {"type": "mrope", "mrope_section": [2, 2, 2]}},
            r"\(2, 2, 2\) must sum to half the head .* 4$",
        ),
    ],
    ids=["sliding window", "yarn", "sections"],
)
def test_what_the_code_does_not_do_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        read_config({**flat_config(), **changes})


def test_every_parameter_has_one_name_and_every_name_one_parameter() -> None:
    rules = FAMILY.weight_rules(CONFIG)
    assert len({rule.name for rule in rules}) == len({rule.path for rule in rules}) == len(rules)

"""Frames of clips are resized along their rows first, whatever is cheaper."""

import numpy as np
import pytest

from urt_jax.data.frame_resizing import resize_frames

NOISE = np.random.default_rng(0).integers(0, 256, (2, 37, 45, 3), np.uint8)


@pytest.mark.parametrize("size", [(20, 44), (36, 20), (70, 46), (38, 90)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_rows_come_before_columns(size: tuple[int, int]) -> None:
    height, width = size
    found = resize_frames(NOISE, size)
    np.testing.assert_array_equal(found, resize_frames(resize_frames(NOISE, (37, width)), size))
    columns_first = resize_frames(resize_frames(NOISE, (height, 45)), size)
    assert np.abs(found.astype(int) - columns_first).max() > 4, "the order must be seen in noise"


def test_frames_are_resized_one_by_one() -> None:
    np.testing.assert_array_equal(resize_frames(NOISE, (20, 30))[1:], resize_frames(NOISE[1:], (20, 30)))


def test_a_clip_of_that_size_is_returned_itself() -> None:
    assert resize_frames(NOISE, (37, 45)) is NOISE

"""Qwen3-VL's layout by hand: clip budget, time stamps, positions of pictures and clips, and its config.json."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from urt_jax.data.clip_budget import ClipGeometry, clip_patches, clip_size
from urt_jax.data.video import Clip
from urt_jax.errors import BadInputError
from urt_jax.families.family import MediaLayout, PictureSettings
from urt_jax.families.processor import write_media
from urt_jax.families.qwen3_vl import (
    FAMILY,
    lay_out,
    lay_out_clip,
    patch_times,
    read_config,
    read_geometry,
    write_config,
)
from urt_jax.models.config import DecoderConfig, DeepStackVisionConfig, ModelConfig

IDS = {"pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 0}
# Merged patches of 4 x 4 pixels, two frames each; clips of 32 to 256 pixels in all.
GEOMETRY = ClipGeometry(
    patch_size=2,
    min_pixels=16,
    max_pixels=256,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    video_min_pixels=32,
    video_max_pixels=256,
)
CONFIG = ModelConfig(
    decoder=DecoderConfig(
        vocab_size=40, width=32, layers=2, query_heads=4, kv_heads=2, head_width=12, feed_forward=24,
        mrope_section=(2, 2, 2), mrope_interleaved=True, qkv_bias=False, qk_norm=True, rope_theta=1e4,
    ),
    vision=DeepStackVisionConfig(
        depth=4, width=16, heads=2, feed_forward=24, out_width=32, patch_size=2, position_side=5,
        deepstack_layers=(0, 2),
    ),
    image_token_id=5,
    video_token_id=6,
    vision_start_token_id=3,
    vision_end_token_id=4,
)  # fmt: skip
STAMPED = "<{} seconds><|vision_start|><|video_pad|><|vision_end|>"


def layout(steps: int, rows: int, cols: int) -> MediaLayout:
    """Lay out a medium of so many merged patches whose patch n holds the number n."""
    count = steps * rows * cols * 4
    patches = np.repeat(np.arange(count, dtype=np.float32)[:, None], 24, axis=1)
    return lay_out(patches, (steps, 2 * rows, 2 * cols), CONFIG)


def clip_layout(frames: int, fps: float | None = None, *, geometry: ClipGeometry = GEOMETRY) -> MediaLayout:
    times = None if fps is None else np.arange(frames) / fps
    return lay_out_clip(Clip(np.zeros((frames, 4, 8, 3), np.uint8), fps, times), geometry, CONFIG, name="clip")


@pytest.mark.parametrize(
    ("frames", "size", "expected"),
    [
        (2, (8, 12), (8, 12)),  # within the budget
        (2, (9, 11), (8, 12)),  # sides are rounded
        (4, (8, 12), (4, 8)),  # 4 x 8 x 12 = 384: divided by sqrt(384 / 256) = 1.22, rounded down
        (2, (40, 8), (24, 4)),  # divided by sqrt(640 / 256) = 1.58
        (2, (2, 4), (4, 8)),  # sides below 4 first
        (3, (8, 8), (8, 8)),  # 3 frames count as 4 (half to even): 256
        (5, (8, 8), (8, 8)),  # and 5 as 4
    ],
)
def test_the_budget_is_that_of_the_whole_clip(frames: int, size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert clip_size(frames, *size, GEOMETRY) == expected


def test_a_small_clip_is_enlarged() -> None:
    """2 x 4 x 4 = 32 of 128 pixels: sides are doubled."""
    assert clip_size(2, 4, 4, replace(GEOMETRY, video_min_pixels=128)) == (8, 8)


def test_a_clip_that_is_a_strip_is_refused_by_name() -> None:
    with pytest.raises(BadInputError, match=r"frames of 4x804 \(height x width\): one side may be at most 200 times"):
        clip_size(2, 4, 804, GEOMETRY)
    with pytest.raises(BadInputError, match="record 3: frames of 4x804"):
        clip_patches(np.zeros((2, 4, 804, 3), np.uint8), GEOMETRY, name="record 3")


def test_a_clip_is_cut_like_a_picture_of_its_frames() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    patches, grid = clip_patches(frames, GEOMETRY, name="clip")
    assert grid == (2, 4, 4)
    levels = (patches.reshape(2, 16, 3, 2, 2, 2) + 1) * 127.5  # step, patch, channel, frame, row, column
    np.testing.assert_allclose(levels[0, 0], frames[:2, :2, :2].transpose(3, 0, 1, 2), atol=1e-4)
    np.testing.assert_allclose(levels[1, 2, :, 0], frames[2, 2:4, :2].transpose(2, 0, 1), atol=1e-4)
    np.testing.assert_array_equal(levels[1, :, :, 1], levels[1, :, :, 0])  # the last frame stands for the missing one


def test_one_frame_is_a_clip_of_one_temporal_patch() -> None:
    patches, grid = clip_patches(np.zeros((1, 4, 8, 3), np.uint8), GEOMETRY, name="clip")
    assert grid == (1, 2, 4)
    assert patches.shape == (8, 24)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 0.5, 1, 1.5], [0.25, 1.25]),
        ([0, 0.5, 2], [0.25, 2]),  # the last frame is repeated
        ([0], [0]),
    ],
)
def test_a_temporal_patch_has_the_middle_of_its_times(times: list[float], expected: list[float]) -> None:
    assert patch_times(np.array(times), 2) == expected


def test_a_clip_is_written_with_the_time_of_every_patch() -> None:
    assert clip_layout(4, 2.0).text == STAMPED.format("0.2") + STAMPED.format("1.2")
    assert clip_layout(3, 2.0).text == STAMPED.format("0.2") + STAMPED.format("1.0")


def test_of_unknown_rate_24_frames_a_second_are_assumed() -> None:
    assert clip_layout(27).text == clip_layout(27, 24.0).text
    assert clip_layout(27).text != clip_layout(27, 25.0).text


@pytest.mark.parametrize(("keep", "around"), [(False, ("", "")), (True, ("<|vision_start|>", "<|vision_end|>"))])
def test_time_stamps_stand_in_place_of_what_the_template_wrote_or_inside(keep: bool, around: tuple[str, str]) -> None:
    clips = [clip_layout(frames, 2.0, geometry=replace(GEOMETRY, keep_wrapper=keep)) for frames in (1, 4)]
    text = write_media("a<|vision_start|><|video_pad|><|vision_end|>b<|video_pad|>c", "<|video_pad|>", clips)
    before, after = around
    first, second = STAMPED.format("0.0"), STAMPED.format("0.2") + STAMPED.format("1.2")
    assert text == f"a{before}{first}{after}b{second}c"


@pytest.mark.parametrize(
    ("stored", "keep"),
    [
        ({"transformers_version": "4.57.1"}, False),
        ({"transformers_version": "5.0.0.dev0"}, True),
        ({"transformers_version": "5.23.0"}, True),
        ({"transformers_version": "10.1"}, True),
        ({}, False),
        ({"transformers_version": None}, False),
    ],
    ids=str,
)
def test_the_version_that_wrote_config_json_tells_how_clips_are_written(stored: dict[str, Any], keep: bool) -> None:
    assert read_geometry(PictureSettings({}, {}, stored)).keep_wrapper is keep


def test_settings_come_back_as_written() -> None:
    files = FAMILY.picture_files(GEOMETRY)
    image, video = files["preprocessor_config.json"], files["video_preprocessor_config.json"]
    assert read_geometry(PictureSettings(image, video, {})) == GEOMETRY
    assert video["video_processor_type"] == "Qwen3VLVideoProcessor"


def test_every_temporal_patch_is_a_piece_with_positions_of_its_own() -> None:
    made = layout(2, 2, 3)
    assert len(made.pieces) == len(made.frames) == 2
    for step, piece in enumerate(made.pieces):
        np.testing.assert_array_equal(piece.offsets_3E, [[0] * 6, [0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]])
        np.testing.assert_array_equal(piece.slots_E2, [(step, slot) for slot in range(6)])
        assert piece.advance == 3


def test_patches_keep_their_order_and_know_their_place() -> None:
    frame = layout(2, 2, 1).frames[1]
    np.testing.assert_array_equal(frame.patches_PC[:, 0], np.arange(8, 16))
    np.testing.assert_array_equal(frame.positions_P2, [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1], [3, 0], [3, 1]])
    assert frame.mask_P.all()


def test_a_too_long_prompt_shrinks_clips_by_all_their_pixels() -> None:
    clip = np.zeros((4, 8, 8, 3), np.uint8)
    smaller = GEOMETRY.smaller([], [clip])
    assert smaller is not None
    assert (smaller.video_max_pixels, smaller.max_pixels) == (204, 256)
    assert GEOMETRY.smaller([], [clip[:1, :4, :8]]) is None, "a clip at its least"
    with_picture = GEOMETRY.smaller([np.zeros((8, 8, 3), np.uint8)], [clip[:1, :4, :8]])
    assert with_picture is not None
    assert with_picture.max_pixels == 51


def test_config_comes_back_as_written() -> None:
    assert read_config(write_config(CONFIG, IDS)) == CONFIG


def test_the_older_form_reads_the_same() -> None:
    """rope_theta and rope_scaling apart, as transformers 4 wrote them."""
    written = write_config(CONFIG, IDS)
    rope = written["text_config"].pop("rope_parameters")
    scaling = {"rope_type": "default", "mrope_section": rope["mrope_section"], "mrope_interleaved": True}
    written["text_config"] |= {"rope_theta": rope["rope_theta"], "rope_scaling": scaling}
    assert read_config(written) == CONFIG


@pytest.mark.parametrize(
    ("part", "key"), [("text_config", "hidden_size"), ("vision_config", "out_hidden_size")], ids=["text", "vision"]
)
def test_a_missing_key_is_named(part: str, key: str) -> None:
    stored = write_config(CONFIG, IDS)
    del stored[part][key]
    with pytest.raises(BadInputError, match=f"config.json: .*: {key} is missing"):
        read_config(stored)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_bias": True}, "attention_bias is True; needed False"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "asks for rope type 'yarn'; Qwen3-VL checkpoints use"),
        ({"rope_parameters": {"mrope_section": [2, 2, 3]}}, r"mrope_section \(2, 2, 3\) must sum to .* 6$"),
        ({"head_dim": 16}, r"mrope_section \(2, 2, 2\) must sum to half the head width, 8"),
    ],
    ids=["bias", "yarn", "sections", "head width"],
)
def test_what_the_code_does_not_do_is_refused(changes: dict[str, Any], message: str) -> None:
    stored = write_config(CONFIG, IDS)
    stored["text_config"].update(changes)
    with pytest.raises(BadInputError, match=message):
        read_config(stored)


@pytest.mark.parametrize("deep", [(0, 2), ()], ids=["deep", "plain"])
def test_every_parameter_has_one_name_and_every_name_one_parameter(deep: tuple[int, ...]) -> None:
    config = replace(CONFIG, vision=replace(CONFIG.vision, deepstack_layers=deep))  # type: ignore[call-arg]
    rules = FAMILY.weight_rules(config)
    assert len({rule.name for rule in rules}) == len({rule.path for rule in rules}) == len(rules)
    assert any("deepstack" in rule.name for rule in rules) == bool(deep)

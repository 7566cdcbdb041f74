"""LLaVA-OneVision's layout by hand: tiles, line ends, pooling, clips; and what its settings files may say."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from urt_jax.data.anyres import PUBLISHED_GRIDS, TileGeometry
from urt_jax.errors import BadInputError
from urt_jax.families.family import PictureSettings, Piece
from urt_jax.families.llava_onevision import FAMILY, picture_files, read_config, read_geometry, write_config
from urt_jax.families.tile_layout import lay_out_frames, lay_out_square, lay_out_tiles
from urt_jax.models.config import DecoderConfig, ModelConfig, TileVisionConfig
from urt_jax.types import NEWLINE

END = (NEWLINE, NEWLINE)
IDS = {"pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 0}
# Tiles of 2 x 2 patches.
GEOMETRY = TileGeometry(tile_size=4, patch_size=2, grids=((4, 4), (4, 8), (8, 4), (8, 8)))
CONFIG = ModelConfig(
    decoder=DecoderConfig(
        vocab_size=40, width=32, layers=2, query_heads=4, kv_heads=2, head_width=8, feed_forward=24,
        mrope_section=(4, 0, 0), rope_theta=1e4, tied_head=True,
    ),
    vision=TileVisionConfig(
        depth=3, width=16, heads=2, feed_forward=24, out_width=32, patch_size=2, temporal_patch_size=1, merge_size=1,
        tile_size=4, feature_layer=2, projector_bias=False,
    ),
    image_token_id=38,
    video_token_id=39,
)  # fmt: skip


def tiles(count: int) -> np.ndarray:
    """Return tiles whose patches hold their number in the tile."""
    return np.broadcast_to(np.arange(4, dtype=np.float32)[:, None], (count, 4, 12)).copy()


def shown(piece: Piece) -> list[dict[tuple[int, int], float]]:
    """Return which (tile, patch) each token mixes with which weight; a line end mixes none."""
    assert piece.blend is not None
    sources, weights = piece.blend
    return [
        {tuple(where): float(weight) for where, weight in zip(row.tolist(), row_weights) if weight}
        for row, row_weights in zip(sources, weights)
    ]


def whole(tile: int) -> list[dict[tuple[int, int], float]]:
    return [{(tile, patch): 1.0} for patch in range(4)]


def test_one_of_several_is_a_tile_and_a_line_end() -> None:
    layout = lay_out_square(tiles(1), GEOMETRY)
    (piece,), (frame,) = layout.pieces, layout.frames
    np.testing.assert_array_equal(piece.slots_E2, [(0, 0), (0, 1), (0, 2), (0, 3), END])
    assert shown(piece) == [*whole(0), {}]
    np.testing.assert_array_equal(piece.offsets_3E, [[0, 1, 2, 3, 4]] * 3)
    assert piece.advance == 5
    np.testing.assert_array_equal(frame.positions_P2, [[0, 0], [0, 1], [1, 0], [1, 1]])
    np.testing.assert_array_equal(frame.patches_PC[:, 0], [0, 1, 2, 3])
    assert frame.mask_P.all()
    assert layout.text is None


def test_the_lines_of_a_grid_run_over_its_tiles() -> None:
    """Two tiles side by side: each line takes two patches of the left tile, then two of the right one."""
    layout = lay_out_tiles(tiles(3), (4, 8), GEOMETRY)
    (piece,) = layout.pieces
    lines = [(1, 0), (1, 1), (2, 0), (2, 1), END, (1, 2), (1, 3), (2, 2), (2, 3), END]
    np.testing.assert_array_equal(piece.slots_E2, [(0, 0), (0, 1), (0, 2), (0, 3), *lines])
    assert shown(piece) == [*whole(0), *({} if place == END else {place: 1.0} for place in lines)]
    np.testing.assert_array_equal(piece.offsets_3E, [np.arange(14)] * 3)
    assert piece.advance == 14
    assert len(layout.frames) == 3


def test_borders_are_left_out_of_the_lines() -> None:
    """A picture of 2 x 8 in tiles of 4 x 4: one line of patches below and one above it is border."""
    (piece,) = lay_out_tiles(tiles(5), (2, 8), replace(GEOMETRY, grids=((8, 8),))).pieces
    lines = [(1, 2), (1, 3), (2, 2), (2, 3), END, (3, 0), (3, 1), (4, 0), (4, 1), END]
    assert shown(piece)[4:] == [{} if place == END else {place: 1.0} for place in lines]


def test_a_picture_thinner_than_a_patch_is_shown_by_the_whole_alone() -> None:
    layout = lay_out_tiles(tiles(2), (1, 30), GEOMETRY)
    assert shown(layout.pieces[0]) == whole(0)
    assert len(layout.frames) == 2


def test_a_grid_of_too_many_patches_is_pooled() -> None:
    """Four tiles, one allowed: each token is the mean of 2 x 2 patches, which lie in one tile."""
    (piece,) = lay_out_tiles(tiles(5), (8, 8), replace(GEOMETRY, max_tiles=1)).pieces
    mean = [{(tile, patch): 0.25 for patch in range(4)} for tile in range(5)]
    assert shown(piece) == [*whole(0), mean[1], mean[2], {}, mean[3], mean[4], {}]
    np.testing.assert_array_equal(piece.slots_E2[4:], [(1, 0), (2, 0), END, (3, 0), (4, 0), END])


def test_frames_are_pooled_by_two_and_end_once() -> None:
    layout = lay_out_frames(tiles(3), GEOMETRY)
    (piece,) = layout.pieces
    assert shown(piece) == [*({(frame, patch): 0.25 for patch in range(4)} for frame in range(3)), {}]
    np.testing.assert_array_equal(piece.slots_E2, [(0, 0), (1, 0), (2, 0), END])
    assert piece.advance == 4
    assert len(layout.frames) == 3


def test_odd_sides_are_pooled_up() -> None:
    """3 x 3 patches become 2 x 2: places 0.25 and 1.75 on either axis."""
    patches = np.zeros((1, 9, 12), np.float32)
    (piece,) = lay_out_frames(patches, TileGeometry(tile_size=6, patch_size=2)).pieces
    corner, *_, last, end = shown(piece)
    assert corner == {(0, 0): 0.5625, (0, 1): 0.1875, (0, 3): 0.1875, (0, 4): 0.0625}
    assert last == {(0, 4): 0.0625, (0, 5): 0.1875, (0, 7): 0.1875, (0, 8): 0.5625}
    assert end == {}


@pytest.mark.parametrize("feature_layer", [1, 3])
def test_config_comes_back_as_written(feature_layer: int) -> None:
    config = replace(CONFIG, vision=replace(CONFIG.vision, feature_layer=feature_layer))  # type: ignore[call-arg]
    assert read_config(write_config(config, IDS)) == config


def test_a_layer_counted_from_the_start_is_the_same() -> None:
    written = write_config(CONFIG, IDS)
    assert written["vision_feature_layer"] == -2
    assert read_config(written | {"vision_feature_layer": 2}) == CONFIG


def test_ids_are_read_by_either_name() -> None:
    written = write_config(CONFIG, IDS)
    ids = {"image_token_id": written.pop("image_token_index"), "video_token_id": written.pop("video_token_index")}
    assert read_config(written | ids) == CONFIG


def test_published_sizes_stand_for_what_is_not_said() -> None:
    written = write_config(CONFIG, IDS)
    for key in ("vision_feature_layer", "image_token_index", "video_token_index", "multimodal_projector_bias"):
        del written[key]
    for key in ("patch_size", "image_size", "layer_norm_eps", "num_channels"):
        del written["vision_config"][key]
    found = read_config(written)
    assert isinstance(found.vision, TileVisionConfig)
    assert (found.vision.patch_size, found.vision.tile_size, found.vision.feature_layer) == (14, 384, 3)
    assert (found.image_token_id, found.video_token_id, found.vision.projector_bias) == (151646, 151647, True)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        (None, {"vision_feature_layer": [-2, -1]}, r"vision_feature_layer is \[-2, -1\]; needed a whole"),
        (None, {"vision_feature_select_strategy": "default"}, "strategy is 'default'; needed 'full'"),
        ("vision_config", {"vision_use_head": True}, "vision_use_head is True; needed False"),
        ("text_config", {"use_sliding_window": True}, "use_sliding_window is True; needed False"),
    ],
    ids=["layers", "strategy", "head", "sliding window"],
)
def test_what_the_code_does_not_do_is_refused(part: str | None, changes: dict[str, Any], message: str) -> None:
    stored = write_config(CONFIG, IDS)
    (stored[part] if part else stored).update(changes)
    with pytest.raises(BadInputError, match=message):
        read_config(stored)


@pytest.mark.parametrize(
    ("part", "key"), [("text_config", "hidden_size"), ("vision_config", "num_hidden_layers")], ids=["text", "vision"]
)
def test_a_missing_key_is_named(part: str, key: str) -> None:
    stored = write_config(CONFIG, IDS)
    del stored[part][key]
    with pytest.raises(BadInputError, match=f"config.json.*: {key} is missing"):
        read_config(stored)


def test_settings_come_back_as_written() -> None:
    geometry = replace(GEOMETRY, max_tiles=4, mean=(0.1, 0.2, 0.3))
    files = picture_files(geometry)
    config = {"vision_config": {"patch_size": 2}, "vision_aspect_ratio": "anyres_max_4"}
    image, video = files["preprocessor_config.json"], files["video_preprocessor_config.json"]
    assert read_geometry(PictureSettings(image, video, config)) == geometry
    assert files["processor_config.json"]["num_image_tokens"] == 4


def test_without_settings_files_config_json_or_the_published_values_hold() -> None:
    assert read_geometry(PictureSettings({}, {}, {})) == TileGeometry(grids=PUBLISHED_GRIDS, max_tiles=9)
    config = {"image_grid_pinpoints": [[4, 8]], "vision_config": {"image_size": 4, "patch_size": 2}}
    assert read_geometry(PictureSettings({}, {}, config)) == replace(GEOMETRY, grids=((4, 8),))


def test_another_way_to_cut_pictures_is_refused() -> None:
    with pytest.raises(BadInputError, match="vision_aspect_ratio is 'pad'; needed 'anyres_max_<tiles>'"):
        read_geometry(PictureSettings({}, {}, {"vision_aspect_ratio": "pad"}))


def test_every_parameter_has_one_name_and_every_name_one_parameter() -> None:
    rules = FAMILY.weight_rules(CONFIG)
    assert len({rule.name for rule in rules}) == len({rule.path for rule in rules}) == len(rules)

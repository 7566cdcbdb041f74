"""Floors of a shape small enough to count by hand."""

from dataclasses import replace

from urt_jax.models.config import (
    DecoderConfig,
    DeepStackVisionConfig,
    ModelConfig,
    TileVisionConfig,
    WindowedVisionConfig,
)
from urt_jax.planning.roofline import (
    Rates,
    Work,
    decode_work,
    decoder_flops,
    decoder_weights,
    floor_seconds,
    head_weights,
    picture_side,
    prefill_work,
    prompt_flops,
    sft_work,
    tower_flops,
    tower_weights,
    update_work,
)
from urt_jax.planning.workloads import RowCounts, Workload

# Width 4, one layer, two query heads and one key head of width 2, feed-forward 3, ten words, untied.
DECODER = DecoderConfig(10, 4, 1, 2, 1, 2, 3, mrope_section=(1, 0, 0))
# Patches of 1 x 1 pixel, one channel, one frame deep; two layers of width 2; windows of 2 x 2 patches, layer 1 is full.
TOWER = WindowedVisionConfig(
    2, 2, 1, 3, out_width=4, patch_size=1, temporal_patch_size=1, channels=1, window_size=2, full_attention_layers=(1,)
)
MODEL = ModelConfig(DECODER, TOWER, image_token_id=4, video_token_id=5, vision_start_token_id=2, vision_end_token_id=3)
# One question, two responses of three tokens, a picture of 4 x 4 patches (four merged) and its marks in ten tokens.
WORK = Workload(MODEL, RowCounts(1, 2, 10, 1, 4, 3, sft_rows=1))

LAYER = 4 * 4 + 4 * 2 + 4 * 2 + 4 * 4 + 3 * 4 * 3  # q, k, v, o, then gate, up, down
HEAD = 10 * 4
TOWER_LAYER = 2 * 6 + 2 * 2 + 3 * 2 * 3  # qkv, proj, then gate, up, down
PICTURE = (
    16 * 2 * (1 * 2 + 2 * TOWER_LAYER)  # patch embedding and two layers over 16 patches
    + 4 * 2 * (16 * 16 + 4 * 4 * 4)  # pairs: all of the frame once, four windows of four patches once
    + 4 * 2 * (8 * 8 + 8 * 4)  # merger over four merged patches of width 8
)
WHOLE = 2 * 10 * LAYER + 4 * 2 * 2 * 55  # ten tokens, 55 causal pairs of two heads of width 2
KEPT = 4 * 2 + 4 * 2  # k, v
PROMPT = 2 * 10 * KEPT + 2 * (LAYER - KEPT) + 4 * 2 * 2 * 10  # the one layer is the last one: one token's output


def test_weights_are_counted() -> None:
    assert decoder_weights(DECODER) == LAYER
    assert head_weights(DECODER) == HEAD
    assert tower_weights(TOWER) == 1 * 2 + 2 * TOWER_LAYER + 8 * (8 + 4)


def test_products_are_counted() -> None:
    assert decoder_flops(DECODER, tokens=10, pairs=55) == WHOLE
    assert prompt_flops(DECODER, 10) == PROMPT
    assert prompt_flops(replace(DECODER, layers=3), 10) == 2 * WHOLE + PROMPT
    assert tower_flops(TOWER, frames=1, side=4) == PICTURE
    assert tower_flops(TOWER, frames=3, side=4) == 3 * PICTURE


def test_windows_at_the_edge_are_smaller() -> None:
    wide = tower_flops(TOWER, frames=1, side=6)
    odd = tower_flops(
        WindowedVisionConfig(**{**TOWER.__dict__, "window_size": 4}), frames=1, side=6
    )  # 4x4, 4x2, 2x4, 2x2
    pairs = 16**2 + 2 * 8**2 + 4**2
    assert odd - wide == 4 * 2 * (pairs - 9 * 4**2)


def test_a_prompt_is_run_once() -> None:
    assert prefill_work(WORK, itemsize=2) == Work(PROMPT + PICTURE, 2 * (LAYER + tower_weights(TOWER)))


def test_decode_reads_weights_and_caches_each_step() -> None:
    # Two rows: 2 steps through the layer that see 10 + 1 and 10 + 2 tokens, 3 head products.
    flops = 2 * (2 * 2 * LAYER + 4 * 2 * 2 * (11 + 12)) + 2 * 6 * HEAD
    cached = 2 * 1 * 1 * 2  # key and value of a token
    read = 2 * LAYER + 3 * HEAD + cached * (2 * 10 + 2 * (1 + 2))  # the prompt's once for both rows
    assert decode_work(WORK, itemsize=4) == Work(flops, 4 * read)


def test_training_takes_three_products_for_one() -> None:
    sft = sft_work(WORK, itemsize=4)
    assert sft.flops == 3 * (2 * 13 * LAYER + 16 * 91 + 2 * 3 * HEAD) + PICTURE
    # Forward and backward weights once each, eight passes over the trained ones, embedding and head both.
    assert sft.bytes == 4 * (2 * (LAYER + HEAD) + tower_weights(TOWER)) + 4 * 8 * (LAYER + 2 * HEAD)
    update = update_work(WORK, itemsize=4)
    pairs = 2 * (6 + 3 * 10)
    assert update.flops == 3 * (PROMPT + 2 * 6 * LAYER + 16 * pairs + 2 * 6 * HEAD), "the pictures are encoded already"
    assert update.bytes == sft.bytes - 4 * tower_weights(TOWER)


def test_more_responses_cost_no_more_prompt() -> None:
    more = Workload(MODEL, RowCounts(1, 4, 10, 1, 4, 3, sft_rows=1))
    assert prefill_work(more, itemsize=4) == prefill_work(WORK, itemsize=4)


def test_the_longer_of_products_and_traffic_is_the_floor() -> None:
    assert floor_seconds(Work(100, 10), Rates(50, 10)) == 2.0
    assert floor_seconds(Work(100, 40), Rates(50, 10)) == 4.0


def test_a_tower_of_tiles_runs_to_the_layer_its_features_are_from() -> None:
    # Five layers, features after the fourth; tiles of 2 x 2 patches; MLPs of two matrices; projector 8 -> 4 -> 4.
    tiles = TileVisionConfig(
        5, 8, 2, 16, out_width=4, patch_size=1, temporal_patch_size=1, merge_size=1, channels=1, tile_size=2,
        feature_layer=4,
    )  # fmt: skip
    layer = 8 * (4 * 8 + 2 * 16)
    projector = 8 * 4 + 4 * 4
    assert tower_weights(tiles) == 1 * 8 + 4 * layer + projector
    assert picture_side(tiles, 999) == 2
    pairs = 4 * 4**2
    assert tower_flops(tiles, frames=3, side=2) == 3 * (2 * 4 * (8 + 4 * layer) + 4 * 8 * pairs + 2 * 4 * projector)


def test_a_deep_tower_projects_its_features_once_more_for_each_depth() -> None:
    deep = DeepStackVisionConfig(
        3, 2, 1, 3, out_width=4, patch_size=1, temporal_patch_size=1, channels=1, deepstack_layers=(0, 1)
    )
    layer, projector = 2 * (4 * 2 + 2 * 3), 8 * 8 + 8 * 4
    assert tower_weights(deep) == 1 * 2 + 3 * layer + 3 * projector
    pairs = 3 * 16**2
    assert tower_flops(deep, frames=1, side=4) == 2 * 16 * (2 + 3 * layer) + 4 * 2 * pairs + 2 * 4 * 3 * projector

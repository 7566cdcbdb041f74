"""Small random Qwen2.5-VL and Qwen3-VL models of transformers, and random media for them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tests.families.reference import END, EOS, IMAGE, PAD, START, VIDEO, Medium, Reference, add_noise, of_kind
from urt_jax.families import qwen2_5_vl, qwen3_vl
from urt_jax.models.config import ModelConfig

# Rows of different lengths: three pictures, a clip and a picture, text only, one picture; grids (t, h, w) in patches.
GRIDS = (((1, 4, 6), (1, 10, 4), (1, 2, 2)), ((3, 4, 4), (1, 6, 12)), (), ((1, 18, 10),))


@dataclass(frozen=True)
class Trait:
    """What a small configuration varies."""

    name: str
    heads: int = 4
    kv: int = 2
    width: int = 64
    layers: int = 2
    tied: bool = False
    depth: int = 4
    vision_width: int = 32
    section: tuple[int, ...] = (2, 3, 3)
    vocab: int = 100


@dataclass(frozen=True)
class WindowTrait(Trait):
    """Qwen2.5-VL."""

    full: tuple[int, ...] = (1, 3)
    window: int = 56


@dataclass(frozen=True)
class DeepTrait(Trait):
    """Qwen3-VL; the head width is free of width and heads."""

    head_width: int = 16
    deep: tuple[int, ...] = (0, 2)
    positions: int = 36
    layers: int = 3


WINDOW_TRAITS = (
    WindowTrait("plain"),
    WindowTrait("tied", tied=True),
    WindowTrait("one_kv_head", heads=4, kv=1),
    WindowTrait("no_grouping", heads=4, kv=4),
    WindowTrait("odd_sizes", heads=3, kv=3, width=36, section=(2, 2, 2), vocab=131, vision_width=24),
    WindowTrait("deep_all_window", layers=3, depth=3, full=()),
    WindowTrait("all_full", depth=2, full=(0, 1)),
    WindowTrait("wide_window", window=112, full=(0,), tied=True),
)
DEEP_TRAITS = (
    DeepTrait("plain"),
    DeepTrait("tied", tied=True),
    DeepTrait("one_kv_head", heads=4, kv=1),
    DeepTrait("no_grouping", heads=4, kv=4, section=(4, 2, 2)),
    DeepTrait("free_head_width", heads=3, kv=1, width=40, head_width=12, section=(2, 2, 2), vocab=131),
    DeepTrait("three_deep", depth=5, deep=(1, 2, 4), layers=4),
    DeepTrait("last_layer_deep", depth=2, deep=(1,), vision_width=24, layers=2),
    DeepTrait("large_table", positions=144, section=(3, 3, 2)),
)


def text_config(trait: Trait, **more: Any) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": list(trait.section)} | more.pop("rope", {})
    ids = {"bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": PAD}
    return {
        "vocab_size": trait.vocab,
        "hidden_size": trait.width,
        "intermediate_size": 2 * trait.width + 4,
        "num_hidden_layers": trait.layers,
        "num_attention_heads": trait.heads,
        "num_key_value_heads": trait.kv,
        "rms_norm_eps": 1e-6,
        "rope_parameters": rope,
        **ids,
        **more,
    }


def vision_config(trait: Trait, **more: Any) -> dict[str, Any]:
    sizes = {"depth": trait.depth, "hidden_size": trait.vision_width, "intermediate_size": 44, "num_heads": 2}
    return {**sizes, "out_hidden_size": trait.width, **more}


TOKENS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
}


def window_model(trait: WindowTrait):
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    window = {"window_size": trait.window, "fullatt_block_indexes": list(trait.full), "tokens_per_second": 2}
    config = Qwen2_5_VLConfig(
        text_config=text_config(trait, use_sliding_window=False),
        vision_config=vision_config(trait, **window),
        tie_word_embeddings=trait.tied,
        **TOKENS,
    )
    config._attn_implementation = "eager"
    return add_noise(Qwen2_5_VLForConditionalGeneration(config).eval().float())


def deep_model(trait: DeepTrait):
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    torch.manual_seed(0)
    deep = {"deepstack_visual_indexes": list(trait.deep), "num_position_embeddings": trait.positions}
    rope = {"mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config=text_config(trait, rope=rope, head_dim=trait.head_width),
        vision_config=vision_config(trait, **deep),
        tie_word_embeddings=trait.tied,
        **TOKENS,
    )
    config._attn_implementation = "eager"
    return add_noise(Qwen3VLForConditionalGeneration(config).eval().float())


def random_rows(rng: np.random.Generator, trait: Trait, config: ModelConfig, *, lay_out: Any) -> list[list[Medium]]:
    def medium(grid: tuple[int, int, int]) -> Medium:
        patches = rng.standard_normal((int(np.prod(grid)), config.vision.patch_features)).astype(np.float32)
        video = grid[0] > 1
        return Medium(video, {"patches": patches, "grid": grid}, lay_out(patches, grid, config, video))

    return [[medium(grid) for grid in row] for row in GRIDS]


def media_inputs(media: list[list[Medium]], *, seconds: bool) -> dict[str, Any]:
    import torch

    inputs: dict[str, Any] = {}
    for video, values, grid in (
        (False, "pixel_values", "image_grid_thw"),
        (True, "pixel_values_videos", "video_grid_thw"),
    ):
        chosen = of_kind(media, video=video)
        if chosen:
            inputs[values] = torch.tensor(np.concatenate([m.inputs["patches"] for m in chosen]))
            inputs[grid] = torch.tensor([m.inputs["grid"] for m in chosen])
    if seconds and (clips := of_kind(media, video=True)):
        inputs["second_per_grid_ts"] = [1.0] * len(clips)
    return inputs


def token_types(ids: Any) -> Any:
    """Return what transformers' processor says of each id: 0 text, 1 image, 2 video."""
    return (ids == IMAGE) * 1 + (ids == VIDEO) * 2


QWEN2_5_VL = Reference(
    qwen2_5_vl.FAMILY,
    WINDOW_TRAITS,
    window_model,
    partial(random_rows, lay_out=lambda p, g, c, video: qwen2_5_vl.lay_out(p, g, c, 1.0 if video else None)),
    partial(media_inputs, seconds=True),
)
QWEN3_VL = Reference(
    qwen3_vl.FAMILY,
    DEEP_TRAITS,
    deep_model,
    partial(random_rows, lay_out=lambda p, g, c, video: qwen3_vl.lay_out(p, g, c)),
    partial(media_inputs, seconds=False),
)

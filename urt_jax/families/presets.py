"""The sizes of the published checkpoints by name, for planning and benchmarks without weights."""

from typing import Any

from urt_jax.errors import BadInputError, unknown_choice
from urt_jax.families.qwen_decoder import VISION_IDS
from urt_jax.models.config import (
    DecoderConfig,
    DeepStackVisionConfig,
    ModelConfig,
    TileVisionConfig,
    WindowedVisionConfig,
)


def _decoder(sizes: tuple[int, ...], **more: Any) -> DecoderConfig:
    names = ("width", "layers", "query_heads", "kv_heads", "feed_forward", "vocab_size")
    return DecoderConfig(**{"head_width": 128, **dict(zip(names, sizes, strict=True)), **more})


def _qwen2_5(*sizes: int, vision_feed_forward: int, tied: bool = False) -> ModelConfig:
    vision = WindowedVisionConfig(32, 1280, 16, vision_feed_forward, out_width=sizes[0])
    return ModelConfig(_decoder(sizes, mrope_section=(16, 24, 24), tied_head=tied), vision, **VISION_IDS)


def _qwen3(*sizes: int, large_tower: bool, tied: bool = False) -> ModelConfig:
    depth, width, feed_forward = (27, 1152, 4304) if large_tower else (24, 1024, 4096)
    deep = (8, 16, 24) if large_tower else (5, 11, 17)
    vision = DeepStackVisionConfig(
        depth, width, 16, feed_forward, out_width=sizes[0], patch_size=16, deepstack_layers=deep
    )
    kind = {"mrope_section": (24, 20, 20), "mrope_interleaved": True, "qkv_bias": False, "qk_norm": True}
    return ModelConfig(_decoder((*sizes, 151936), rope_theta=5e6, tied_head=tied, **kind), vision, **VISION_IDS)


def _onevision(*sizes: int, head_width: int, tied: bool = False) -> ModelConfig:
    vision = TileVisionConfig(26, 1152, 16, 4304, out_width=sizes[0], temporal_patch_size=1, merge_size=1)
    section = (head_width // 2, 0, 0)
    decoder = _decoder((*sizes, 152000), head_width=head_width, mrope_section=section, tied_head=tied)
    return ModelConfig(decoder, vision, image_token_id=151646, video_token_id=151647)


# width, layers, heads, key/value heads, feed-forward (, vocabulary)
PRESETS: dict[str, ModelConfig] = {
    "qwen2_5_vl_3b": _qwen2_5(2048, 36, 16, 2, 11008, 151936, vision_feed_forward=3420, tied=True),
    "qwen2_5_vl_7b": _qwen2_5(3584, 28, 28, 4, 18944, 152064, vision_feed_forward=3420),
    "qwen2_5_vl_32b": _qwen2_5(5120, 64, 40, 8, 27648, 152064, vision_feed_forward=3456),
    "qwen2_5_vl_72b": _qwen2_5(8192, 80, 64, 8, 29568, 152064, vision_feed_forward=3456),
    "qwen3_vl_2b": _qwen3(2048, 28, 16, 8, 6144, large_tower=False, tied=True),
    "qwen3_vl_4b": _qwen3(2560, 36, 32, 8, 9728, large_tower=False, tied=True),
    "qwen3_vl_8b": _qwen3(4096, 36, 32, 8, 12288, large_tower=True),
    "qwen3_vl_32b": _qwen3(5120, 64, 64, 8, 25600, large_tower=True),
    "llava_onevision_0_5b": _onevision(896, 24, 14, 2, 4864, head_width=64, tied=True),
    "llava_onevision_7b": _onevision(3584, 28, 28, 4, 18944, head_width=128),
}


def preset(name: str) -> ModelConfig:
    """Return the sizes of a published checkpoint.

    Raises:
        BadInputError: unknown name; lists the known ones.
    """
    if name in PRESETS:
        return PRESETS[name]
    raise BadInputError(f"model preset {unknown_choice(name, PRESETS)}")

"""Small random transformers models and random media, shared by the parity tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from urt_jax.families.family import MediaLayout
from urt_jax.families.processor import expand_placeholders
from urt_jax.families.qwen2_5_vl import FAMILY
from urt_jax.models.config import ModelConfig
from urt_jax.types import EncodedChat

IMAGE, VIDEO, START, END, EOS, PAD = 90, 91, 92, 93, 2, 0


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
    full: tuple[int, ...] = (1, 3)
    window: int = 56
    vision_width: int = 32
    section: tuple[int, ...] = (2, 3, 3)
    vocab: int = 100


TRAITS = (
    Trait("plain"),
    Trait("tied", tied=True),
    Trait("one_kv_head", heads=4, kv=1),
    Trait("no_grouping", heads=4, kv=4),
    Trait("odd_sizes", heads=3, kv=3, width=36, section=(2, 2, 2), vocab=131, vision_width=24),
    Trait("deep_all_window", layers=3, depth=3, full=()),
    Trait("all_full", depth=2, full=(0, 1)),
    Trait("wide_window", window=112, full=(0,), tied=True),
)


def hf_model(trait: Trait, seed: int = 0):
    """Build the transformers model of a trait with random float32 weights, biases and norms included."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(seed)
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": trait.vocab,
            "hidden_size": trait.width,
            "intermediate_size": 2 * trait.width + 4,
            "num_hidden_layers": trait.layers,
            "num_attention_heads": trait.heads,
            "num_key_value_heads": trait.kv,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": list(trait.section)},
            "bos_token_id": 1,
            "eos_token_id": EOS,
            "pad_token_id": PAD,
            "use_sliding_window": False,
        },
        vision_config={
            "depth": trait.depth,
            "hidden_size": trait.vision_width,
            "intermediate_size": 44,
            "num_heads": 2,
            "out_hidden_size": trait.width,
            "window_size": trait.window,
            "fullatt_block_indexes": list(trait.full),
            "tokens_per_second": 2,
        },
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
        tie_word_embeddings=trait.tied,
    )
    config._attn_implementation = "eager"
    model = Qwen2_5_VLForConditionalGeneration(config).eval().float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@dataclass(frozen=True)
class Medium:
    """Random patches of a picture (t = 1) or a clip."""

    patches: np.ndarray
    grid: tuple[int, int, int]
    video: bool
    seconds: float | None

    def layout(self, config: ModelConfig) -> MediaLayout:
        return FAMILY.lay_out(self.patches, self.grid, config, self.seconds)


def random_medium(rng: np.random.Generator, grid: tuple[int, int, int], *, video: bool = False) -> Medium:
    patches = rng.standard_normal((int(np.prod(grid)), 1176)).astype(np.float32)
    return Medium(patches, grid, video, 1.0 if video else None)


def random_chat(
    rng: np.random.Generator, config: ModelConfig, media: list[Medium], text: int = 7
) -> tuple[EncodedChat, np.ndarray]:
    """Interleave media with random words; return the encoding and the unexpanded ids."""
    ids: list[int] = list(rng.integers(3, 80, text))
    for medium in media:
        ids += [START, VIDEO if medium.video else IMAGE, END, *rng.integers(3, 80, 3)]
    unexpanded = np.array(ids, np.int32)
    images = [m.layout(config) for m in media if not m.video]
    videos = [m.layout(config) for m in media if m.video]
    return expand_placeholders(config, unexpanded, images, videos, name="random"), unexpanded


def hf_inputs(chats: list[EncodedChat], media: list[list[Medium]], *, left: bool = False) -> dict:
    """Build the keyword arguments of the transformers model for a padded batch."""
    import torch

    width = max(len(chat.tokens_T) for chat in chats)
    ids = np.full((len(chats), width), PAD, np.int64)
    mask = np.zeros_like(ids)
    for row, chat in enumerate(chats):
        place = slice(width - len(chat.tokens_T), width) if left else slice(0, len(chat.tokens_T))
        ids[row, place], mask[row, place] = chat.tokens_T, 1
    inputs = {
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.tensor(mask),
        "mm_token_type_ids": torch.tensor((ids == IMAGE) * 1 + (ids == VIDEO) * 2),
    }
    for video, values, grid in (
        (False, "pixel_values", "image_grid_thw"),
        (True, "pixel_values_videos", "video_grid_thw"),
    ):
        chosen = [m for row in media for m in row if m.video == video]
        if chosen:
            inputs[values] = torch.tensor(np.concatenate([m.patches for m in chosen]))
            inputs[grid] = torch.tensor([m.grid for m in chosen])
    if any(m.video for row in media for m in row):
        inputs["second_per_grid_ts"] = [m.seconds for row in media for m in row if m.video]
    return inputs

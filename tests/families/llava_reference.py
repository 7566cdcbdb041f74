"""Small random LLaVA-OneVision models of transformers, and random tiles for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.families.reference import EOS, IMAGE, PAD, VIDEO, Medium, Reference, add_noise, of_kind
from urt_jax.data.anyres import TileGeometry, best_grid
from urt_jax.families import llava_onevision
from urt_jax.families.tile_layout import lay_out_frames, lay_out_square, lay_out_tiles
from urt_jax.models.config import ModelConfig


@dataclass(frozen=True)
class TileTrait:
    """What a small configuration varies; ``alone`` are the (height, width) of the two pictures shown alone."""

    name: str
    heads: int = 4
    kv: int = 2
    width: int = 64
    layers: int = 2
    tied: bool = False
    depth: int = 3
    feature_layer: int = -1
    vision_width: int = 32
    tile: int = 56
    max_tiles: int = 9
    projector_bias: bool = True
    vocab: int = 100
    alone: tuple[tuple[int, int], tuple[int, int]] = ((90, 130), (200, 70))

    @property
    def geometry(self) -> TileGeometry:
        grids = tuple((self.tile * rows, self.tile * columns) for rows in (1, 2, 3) for columns in (1, 2, 3))
        return TileGeometry(tile_size=self.tile, patch_size=14, grids=grids, max_tiles=self.max_tiles)


TRAITS = (
    TileTrait("plain"),
    TileTrait("tied", tied=True),
    TileTrait("one_kv_head", kv=1),
    TileTrait("no_grouping", kv=4, alone=((60, 60), (30, 160))),
    TileTrait("odd_sizes", heads=3, kv=3, width=36, vision_width=24, vocab=131),
    TileTrait("tiles_with_a_rest", tile=60, projector_bias=False),
    TileTrait("earlier_layer", depth=4, feature_layer=-2, tile=42),
    TileTrait("pooled", max_tiles=1, alone=((170, 165), (100, 168))),
)


def hf_model(trait: TileTrait):
    import torch
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    torch.manual_seed(0)
    config = LlavaOnevisionConfig(
        text_config={
            "model_type": "qwen2",
            "vocab_size": trait.vocab,
            "hidden_size": trait.width,
            "intermediate_size": 2 * trait.width + 4,
            "num_hidden_layers": trait.layers,
            "num_attention_heads": trait.heads,
            "num_key_value_heads": trait.kv,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
            "tie_word_embeddings": trait.tied,
            "bos_token_id": 1,
            "eos_token_id": EOS,
            "pad_token_id": PAD,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": trait.vision_width,
            "intermediate_size": 44,
            "num_hidden_layers": trait.depth,
            "num_attention_heads": 2,
            "image_size": trait.tile,
            "patch_size": 14,
            "vision_use_head": False,
        },
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=[list(grid) for grid in trait.geometry.grids],
        vision_aspect_ratio=f"anyres_max_{trait.max_tiles}",
        vision_feature_layer=trait.feature_layer,
        multimodal_projector_bias=trait.projector_bias,
        tie_word_embeddings=trait.tied,
    )
    config._attn_implementation = "eager"
    return add_noise(LlavaOnevisionForConditionalGeneration(config).eval().float())


def cut(pixels: np.ndarray, geometry: TileGeometry) -> np.ndarray:
    """Cut float tiles [n, 3, S, S] into patches [n, P, C] as a convolution of stride = size sees them."""
    side, patch = geometry.side, geometry.patch_size
    seen = pixels[..., : side * patch, : side * patch].reshape(len(pixels), 3, side, patch, side, patch)
    return seen.transpose(0, 2, 4, 1, 3, 5).reshape(len(pixels), side * side, -1)


def rows(rng: np.random.Generator, trait: TileTrait, config: ModelConfig) -> list[list[Medium]]:
    """Rows of different lengths: three pictures, a clip and a picture, text only, one picture."""
    geometry = trait.geometry

    def pixels(count: int) -> np.ndarray:
        return rng.standard_normal((count, 3, trait.tile, trait.tile)).astype(np.float32)

    def alone(size: tuple[int, int]) -> Medium:
        grid = best_grid(*size, geometry.grids)
        tiles = pixels(1 + grid[0] * grid[1] // trait.tile**2)
        layout = lay_out_tiles(cut(tiles, geometry), size, geometry)
        return Medium(False, {"pixels": tiles, "size": size}, layout)

    def one_of_several(size: tuple[int, int]) -> Medium:
        tiles = pixels(1)
        return Medium(False, {"pixels": tiles, "size": size}, lay_out_square(cut(tiles, geometry), geometry))

    def clip(frames: int) -> Medium:
        tiles = pixels(frames)
        return Medium(True, {"pixels": tiles}, lay_out_frames(cut(tiles, geometry), geometry))

    several = [one_of_several(size) for size in ((40, 60), (90, 30), (56, 56))]
    return [several, [clip(3), alone(trait.alone[0])], [], [alone(trait.alone[1])]]


def media_inputs(media: list[list[Medium]]) -> dict[str, Any]:
    import torch

    inputs: dict[str, Any] = {}
    pictures, clips = of_kind(media, video=False), of_kind(media, video=True)
    if pictures:
        most = max(len(m.inputs["pixels"]) for m in pictures)
        padded = [np.pad(m.inputs["pixels"], ((0, most - len(m.inputs["pixels"])), *((0, 0),) * 3)) for m in pictures]
        inputs["pixel_values"] = torch.tensor(np.stack(padded))
        inputs["image_sizes"] = torch.tensor([m.inputs["size"] for m in pictures])
        counts = [sum(not m.video for m in row) for row in media]
        inputs["batch_num_images"] = torch.tensor([count for count in counts if count])
    if clips:
        inputs["pixel_values_videos"] = torch.tensor(np.stack([m.inputs["pixels"] for m in clips]))
    return inputs


LLAVA_ONEVISION = Reference(llava_onevision.FAMILY, TRAITS, hf_model, rows, media_inputs)

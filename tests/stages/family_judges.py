"""A very small judge of every published family, in its published layout: real tokenizer files, made weights."""

import json
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

from tests.checkpoints.test_llava_original import original_name
from tests.stages.coin_judge import save_coin_judge
from urt_jax.data.anyres import TileGeometry
from urt_jax.data.tokenizer import build_tokenizer, load_tokenizer
from urt_jax.families.llava_onevision import FAMILY as LLAVA_ONEVISION
from urt_jax.families.qwen2_5_vl import DEFAULT_GEOMETRY
from urt_jax.families.qwen2_5_vl import FAMILY as QWEN2_5_VL
from urt_jax.families.qwen3_vl import DEFAULT_GEOMETRY as CLIP_GEOMETRY
from urt_jax.families.qwen3_vl import FAMILY as QWEN3_VL

VOCABULARY = 420
TILES = TileGeometry(tile_size=56, grids=((56, 56), (56, 112), (112, 56), (112, 112)))
TEXT: dict[str, Any] = {
    **{"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
    **{"num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-6},
}
TOWER: dict[str, Any] = {
    **{"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "out_hidden_size": 32},
}


def answers(noun: str) -> tuple[str, str]:
    """Return the two texts that the judge of a task chooses between by a coin."""
    return (f"<answer>{noun} 1 is better</answer>", f"<answer>{noun} 2 is better</answer>")


def write_family_judge(family: str, folder: Path, noun: str) -> Path:
    """Write the judge of a family that answers with ``noun`` 1 or 2, and return its folder."""
    seed = folder / f"{family}-{noun}-seed"
    build_tokenizer(["which picture or video shows this caption better"], answers(noun), vocab_size=400, folder=seed)
    ids = dict(zip(("image", "video", "start", "end"), load_tokenizer(seed).convert_tokens_to_ids(
        ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"])))  # fmt: skip
    tokens = {
        "image_token_id": ids["image"],
        "video_token_id": ids["video"],
        "vision_start_token_id": ids["start"],
        "vision_end_token_id": ids["end"],
    }
    if family == "llava_qwen":
        config, files = llava_config(seed), LLAVA_ONEVISION.picture_files(TILES)
    elif family == "qwen3_vl":
        config, files = deep_config(tokens), QWEN3_VL.picture_files(CLIP_GEOMETRY)
    else:
        config, files = window_config(tokens), QWEN2_5_VL.picture_files(DEFAULT_GEOMETRY)
    for name, settings in ({"config.json": config} | files).items():
        (seed / name).write_text(json.dumps(settings))
    judge = folder / f"{family}-{noun}"
    save_coin_judge(seed, judge, answers(noun))
    if family == "llava_qwen":
        make_original(judge)
    return judge


def window_config(tokens: dict[str, int]) -> dict[str, Any]:
    """The older flat form."""
    rope = {"rope_theta": 1e4, "rope_scaling": {"type": "mrope", "mrope_section": [4, 2, 2]}}
    vision = TOWER | {"fullatt_block_indexes": [1]}
    return {"model_type": "qwen2_5_vl", **TEXT, **rope, **tokens, "vision_config": vision}


def deep_config(tokens: dict[str, int]) -> dict[str, Any]:
    rope = {"rope_theta": 1e4, "rope_scaling": {"mrope_section": [4, 2, 2], "rope_type": "default"}}
    vision = TOWER | {"deepstack_visual_indexes": [0], "num_position_embeddings": 64}
    return {
        "model_type": "qwen3_vl",
        "transformers_version": "4.57.1",
        "text_config": TEXT | rope | {"head_dim": 16},
        "vision_config": vision,
        **tokens,
    }


def llava_config(seed: Path) -> dict[str, Any]:
    """The layout of transformers, whose placeholders the tokenizer gets here."""
    tokenizer = load_tokenizer(seed)
    tokenizer.add_tokens(["<image>", "<video>"], special_tokens=True)
    tokenizer.chat_template = LLAVA_ONEVISION.chat_template
    tokenizer.save_pretrained(seed)
    image_id, video_id = tokenizer.convert_tokens_to_ids(["<image>", "<video>"])
    tower = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    return {
        "model_type": "llava_onevision",
        "text_config": TEXT | {"rope_theta": 1e4},
        "vision_config": tower | {"image_size": 56, "patch_size": 14},
        "image_token_index": image_id,
        "video_token_index": video_id,
        "image_grid_pinpoints": [list(grid) for grid in TILES.grids],
    }


def make_original(folder: Path) -> None:
    """Rewrite a judge in the layout in which the paper's own ones are published."""
    tensors = {original_name(name): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    for name in ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"):
        (folder / name).unlink()
    config = {
        "model_type": "llava_qwen",
        **TEXT,
        "rope_theta": 1e4,
        "mm_vision_tower": "lab/siglip-small-patch14-56",
        "mm_hidden_size": 32,
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_vision_select_layer": -2,
        "image_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": "(1x1),...,(2x2)",
        "vision_config": {"num_attention_heads": 2},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "checksums.json").unlink()  # as others write

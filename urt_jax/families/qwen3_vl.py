"""Qwen3-VL (arXiv 2511.21631): its config.json, tensor names, time stamps and M-RoPE positions."""

import math
from dataclasses import replace
from functools import partial

import numpy as np

from urt_jax.data.clip_budget import ClipGeometry, clip_patches
from urt_jax.data.patches import image_patches
from urt_jax.data.video import DEFAULT_FPS, Clip
from urt_jax.families.config_fields import MAX_CHANNELS, MAX_SIDE, config_fields, layer_numbers, refuse_others
from urt_jax.families.family import (
    Family,
    Json,
    MediaLayout,
    PictureSettings,
    Piece,
    WeightRule,
    linear_rules,
    norm_rules,
)
from urt_jax.families.picture_settings import picture_files, read_picture_geometry
from urt_jax.families.qwen_decoder import (
    VISION_IDS,
    check_out_width,
    decoder_rules,
    read_decoder,
    read_tower,
    vision_ids,
    write_decoder,
    write_tower,
)
from urt_jax.models.config import DeepStackVisionConfig, ModelConfig
from urt_jax.types import FramePatches

NAME = "Qwen3-VL"
DEFAULT_GEOMETRY = ClipGeometry(
    patch_size=16,
    min_pixels=256 * 256,
    max_pixels=4096 * 4096,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    video_min_pixels=128 * 32 * 32,
    video_max_pixels=768 * 32 * 32,
)


def read_config(config: Json) -> ModelConfig:
    """Translate config.json into our sizes.

    Raises:
        BadInputError: a needed key is missing, or the checkpoint uses a setting that is not supported.
    """
    fields = config_fields(config)
    text, vision = fields.group("text_config"), fields.group("vision_config")
    refuse_others(text, {"attention_bias": (False,)}, name=NAME)
    decoder = read_decoder(
        text,
        name=NAME,
        tied=fields.flag("tie_word_embeddings", False),  # transformers reads the top-level setting only
        default_theta=5e6,
        default_section=(24, 20, 20),
        default_head=128,
        mrope_interleaved=True,
        qkv_bias=False,
        qk_norm=True,
    )
    sizes = read_tower(vision, patch_size=16, name=NAME, act="gelu_pytorch_tanh")
    check_out_width(sizes, decoder)
    positions = vision.integer("num_position_embeddings", 2304, at_least=1, at_most=MAX_SIDE**2)
    if math.isqrt(positions) ** 2 != positions:
        raise vision.refusal("num_position_embeddings", "a square: positions of a square grid")
    tower = DeepStackVisionConfig(
        **sizes,
        channels=vision.integer("in_channels", 3, at_least=1, at_most=MAX_CHANNELS),
        position_side=math.isqrt(positions),
        deepstack_layers=layer_numbers(vision, "deepstack_visual_indexes", (8, 16, 24), sizes["depth"]),
    )
    return ModelConfig(decoder, tower, **vision_ids(fields))


def write_config(config: ModelConfig, token_ids: Json) -> Json:
    """Write config.json as transformers 5 does; ``token_ids`` adds bos, eos and pad."""
    decoder, tower = config.decoder, config.vision
    assert isinstance(tower, DeepStackVisionConfig)
    rope = {"mrope_section": list(decoder.mrope_section), "mrope_interleaved": True}
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        **{name: getattr(config, name) for name in VISION_IDS},
        "tie_word_embeddings": decoder.tied_head,
        "text_config": write_decoder(decoder, "qwen3_vl_text", token_ids, **rope) | {"attention_bias": False},
        "vision_config": write_tower(tower, "qwen3_vl_vision")
        | {
            "num_position_embeddings": tower.position_side**2,
            "deepstack_visual_indexes": list(tower.deepstack_layers),
            "hidden_act": "gelu_pytorch_tanh",
        },
    }


def weight_rules(config: ModelConfig) -> tuple[WeightRule, ...]:
    """Return the table of tensor names."""
    tower = config.vision
    assert isinstance(tower, DeepStackVisionConfig)
    patch_axes = (tower.channels, tower.temporal_patch_size, tower.patch_size, tower.patch_size)
    rules = decoder_rules(config.decoder, prefix="model.language_model.", head="lm_head.weight")
    rules += [
        WeightRule("model.visual.patch_embed.proj.weight", ("vision", "patch_embed", "kernel"), True, patch_axes),
        WeightRule("model.visual.patch_embed.proj.bias", ("vision", "patch_embed", "bias")),
        WeightRule("model.visual.pos_embed.weight", ("vision", "positions")),
    ]
    block, blocks, stack = "model.visual.blocks.{}.", ("vision", "blocks"), tower.depth
    for ours in ("qkv", "proj"):
        rules += linear_rules(f"{block}attn.{ours}", (*blocks, ours), stack=stack)
    for number, ours in ((1, "up"), (2, "down")):
        rules += linear_rules(f"{block}mlp.linear_fc{number}", (*blocks, "mlp", ours), stack=stack)
    for norm in ("norm1", "norm2"):
        rules += norm_rules(f"{block}{norm}", (*blocks, norm), stack=stack)
    mergers = [("model.visual.merger.", ("vision", "projector"), 0)]
    if tower.deepstack_layers:
        deep = len(tower.deepstack_layers)
        mergers.append(("model.visual.deepstack_merger_list.{}.", ("vision", "deep_projector"), deep))
    for theirs, path, deep in mergers:
        rules += norm_rules(f"{theirs}norm", (*path, "norm"), stack=deep)
        for number, ours in ((1, "input"), (2, "output")):
            rules += linear_rules(f"{theirs}linear_fc{number}", (*path, "mlp", ours), stack=deep)
    return tuple(rules)


def read_geometry(settings: PictureSettings) -> ClipGeometry:
    """Return the picture settings; the version that wrote config.json decides how prompts write clips."""
    geometry = read_picture_geometry(settings, DEFAULT_GEOMETRY)
    major = str(settings.config.get("transformers_version", "4")).split(".")[0]
    return replace(geometry, keep_wrapper=major.isdecimal() and int(major) >= 5)


def lay_out_image(
    image: np.ndarray, geometry: ClipGeometry, config: ModelConfig, *, alone: bool, name: str
) -> MediaLayout:
    """Resize, cut and lay out one picture uint8 [H, W, 3]; ``alone`` is ignored."""
    return lay_out(*image_patches(image, geometry=geometry, name=name), config)


def lay_out_clip(clip: Clip, geometry: ClipGeometry, config: ModelConfig, *, name: str) -> MediaLayout:
    """Resize, cut and lay out one clip; the prompt gives each temporal patch's time in seconds before it.

    Unknown times count as 24 frames per second.
    """
    patches, grid = clip_patches(clip.frames, geometry, name=name)
    times = np.arange(len(clip.frames)) / DEFAULT_FPS if clip.times is None else clip.times
    block = f"<|vision_start|>{FAMILY.video_placeholder}<|vision_end|>"
    stamps = patch_times(times, geometry.temporal_patch_size)
    text = "".join(f"<{stamp:.1f} seconds>{block}" for stamp in stamps)
    return lay_out(patches, grid, config)._replace(text=text, instead_of=None if geometry.keep_wrapper else block)


def patch_times(times: np.ndarray, step: int) -> list[float]:
    """Return the time of each temporal patch of ``step`` frames: the midpoint of its first and last frame's times.

    The last frame is repeated to fill the last patch.
    """
    padded = np.concatenate([times, np.repeat(times[-1:], -len(times) % step)]).reshape(-1, step)
    return [float(first + last) / 2 for first, last in zip(padded[:, 0], padded[:, -1])]


def lay_out(patches: np.ndarray, grid: tuple[int, int, int], config: ModelConfig) -> MediaLayout:
    """Lay a picture or clip out for the tower and the prompt; each temporal patch is a piece with its own positions.

    ``patches`` float32 [t*h*w, C] come in Hugging Face order (2x2 groups contiguous, raster over groups), which is the
    tower's own; ``grid`` is (t, h, w) in patches.
    """
    merge = config.vision.merge_size
    steps, rows, cols = grid[0], grid[1] // merge, grid[2] // merge
    row, col = (place.astype(np.int32) for place in np.divmod(np.arange(rows * cols), cols))
    inner_row, inner_col = np.divmod(np.arange(merge * merge), merge)
    position = np.stack([row[:, None] * merge + inner_row, col[:, None] * merge + inner_col], axis=-1)
    position = position.reshape(-1, 2).astype(np.int32)
    frames = tuple(
        FramePatches(patches_PC=cut, positions_P2=position, mask_P=np.ones(len(cut), bool))
        for cut in patches.reshape(steps, len(position), -1)
    )
    offsets = np.stack([np.zeros_like(row), row, col])
    slots = np.arange(rows * cols)
    pieces = tuple(
        Piece(np.stack([np.full_like(slots, step), slots], axis=-1).astype(np.int32), offsets, max(rows, cols))
        for step in range(steps)
    )
    return MediaLayout(frames=frames, pieces=pieces)


FAMILY = Family(
    model_type="qwen3_vl",
    read_config=read_config,
    write_config=write_config,
    weight_rules=weight_rules,
    name_aliases=(
        (r"^language_model\.model\.", "model.language_model."),
        (r"^language_model\.", "model.language_model."),
        (r"^visual\.", "model.visual."),
        (r"^model\.(?=layers\.|embed_tokens\.|norm\.)", "model.language_model."),
    ),
    module_names=(),
    kept_settings=("transformers_version",),  # decides how prompts write clips
    read_geometry=read_geometry,
    picture_files=partial(picture_files, processor="Qwen3VLProcessor", video_processor="Qwen3VLVideoProcessor"),
    lay_out_image=lay_out_image,
    lay_out_clip=lay_out_clip,
)

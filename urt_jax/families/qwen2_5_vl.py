"""Qwen2.5-VL (arXiv 2502.13923): its config.json, tensor names, window layout and M-RoPE positions."""

from functools import partial

import numpy as np

from urt_jax.data.patches import PictureGeometry, image_patches
from urt_jax.data.video import DEFAULT_FPS, Clip, video_patches
from urt_jax.families.config_fields import MAX_CHANNELS, MAX_LAYERS, MAX_SIDE, config_fields, is_tied, layer_numbers
from urt_jax.families.family import Family, Json, MediaLayout, Piece, WeightRule, linear_rules
from urt_jax.families.picture_settings import QWEN_MEAN, QWEN_STD, picture_files, read_picture_geometry
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
from urt_jax.files.fields import Fields
from urt_jax.models.config import ModelConfig, WindowedVisionConfig
from urt_jax.types import FramePatches

NAME = "Qwen2.5-VL"
DEFAULT_GEOMETRY = PictureGeometry(
    min_pixels=56 * 56,
    max_pixels=28 * 28 * 1280,
    mean=QWEN_MEAN,
    std=QWEN_STD,
    video_min_pixels=128 * 28 * 28,
    video_max_pixels=768 * 28 * 28,
)


def read_config(config: Json) -> ModelConfig:
    """Translate config.json, in the older flat form or with ``text_config``, into our sizes.

    Raises:
        BadInputError: a needed key is missing, or the checkpoint uses a setting that is not supported.
    """
    fields = config_fields(config)
    text = Fields({**fields, **fields.group("text_config", {})}, fields.where)
    vision = fields.group("vision_config")
    decoder = read_decoder(
        text,
        name=NAME,
        tied=is_tied(fields, text),
        default_theta=1e6,
        default_section=(16, 24, 24),
        default_eps=1e-5,
    )
    sizes = read_tower(vision, patch_size=14, name=NAME, act="silu")
    check_out_width(sizes, decoder)
    channels = vision.integer("in_chans", 3, at_least=1, at_most=MAX_CHANNELS)
    window = vision.integer("window_size", 112, at_least=1, at_most=MAX_SIDE)
    if window % (sizes["patch_size"] * sizes["merge_size"]):
        raise vision.refusal("window_size", f"a multiple of {sizes['patch_size'] * sizes['merge_size']} pixels")
    tower = WindowedVisionConfig(
        **sizes,
        channels=vision.integer("in_channels", channels, at_least=1, at_most=MAX_CHANNELS),
        window_size=window,
        full_attention_layers=layer_numbers(vision, "fullatt_block_indexes", (7, 15, 23, 31), MAX_LAYERS),
        tokens_per_second=vision.number("tokens_per_second", 4, above=0, at_most=1e6),
    )
    return ModelConfig(decoder, tower, **vision_ids(fields))


def write_config(config: ModelConfig, token_ids: Json) -> Json:
    """Write config.json as transformers 5 does; ``token_ids`` adds bos, eos and pad."""
    decoder, tower = config.decoder, config.vision
    assert isinstance(tower, WindowedVisionConfig)
    section = list(decoder.mrope_section)
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        **{name: getattr(config, name) for name in VISION_IDS},
        "tie_word_embeddings": decoder.tied_head,
        "text_config": write_decoder(decoder, "qwen2_5_vl_text", token_ids, mrope_section=section)
        | {"use_sliding_window": False},
        "vision_config": write_tower(tower, "qwen2_5_vl_vision")
        | {
            "window_size": tower.window_size,
            "fullatt_block_indexes": list(tower.full_attention_layers),
            "tokens_per_second": int(tower.tokens_per_second),
            "hidden_act": "silu",
        },
    }


def weight_rules(config: ModelConfig) -> tuple[WeightRule, ...]:
    """Return the table of tensor names."""
    tower = config.vision
    patch_axes = (tower.channels, tower.temporal_patch_size, tower.patch_size, tower.patch_size)
    rules = decoder_rules(config.decoder, prefix="model.", head="lm_head.weight")
    rules += [
        WeightRule("visual.patch_embed.proj.weight", ("vision", "patch_embed", "kernel"), True, patch_axes),
        WeightRule("visual.merger.ln_q.weight", ("vision", "projector", "norm", "scale")),
    ]
    block, blocks, stack = "visual.blocks.{}.", ("vision", "blocks"), tower.depth
    for ours in ("gate", "up", "down"):
        rules += linear_rules(f"{block}mlp.{ours}_proj", (*blocks, "mlp", ours), stack=stack)
    for ours in ("qkv", "proj"):
        rules += linear_rules(f"{block}attn.{ours}", (*blocks, ours), stack=stack)
    for norm in ("norm1", "norm2"):
        rules.append(WeightRule(f"{block}{norm}.weight", (*blocks, norm, "scale"), stack=stack))
    for number, ours in ((0, "input"), (2, "output")):
        rules += linear_rules(f"visual.merger.mlp.{number}", ("vision", "projector", "mlp", ours))
    return tuple(rules)


def lay_out_image(
    image: np.ndarray, geometry: PictureGeometry, config: ModelConfig, *, alone: bool, name: str
) -> MediaLayout:
    """Resize, cut and lay out one picture uint8 [H, W, 3]; ``alone`` is ignored."""
    return lay_out(*image_patches(image, geometry=geometry, name=name), config, None)


def lay_out_clip(clip: Clip, geometry: PictureGeometry, config: ModelConfig, *, name: str) -> MediaLayout:
    """Resize, cut and lay out one clip; an unknown frame rate counts as 24 frames per second."""
    patches, grid = video_patches(clip.frames, geometry=geometry, name=name)
    return lay_out(patches, grid, config, geometry.temporal_patch_size / (clip.fps or DEFAULT_FPS))


def lay_out(
    patches: np.ndarray, grid: tuple[int, int, int], config: ModelConfig, seconds_per_grid: float | None
) -> MediaLayout:
    """Lay a picture or clip out for the tower and the prompt.

    ``patches`` float32 [t*h*w, C] come in Hugging Face order (2x2 groups contiguous, raster over groups); ``grid``
    is (t, h, w) in patches. ``seconds_per_grid`` is the duration of one temporal patch, ``None`` for a picture, whose
    temporal positions are not spaced. Positions follow transformers 5 (``get_rope_index``): a medium advances the text
    by its larger side in merged patches.
    """
    tower = config.vision
    assert isinstance(tower, WindowedVisionConfig)
    merge = tower.merge_size
    steps, rows, cols = grid[0], grid[1] // merge, grid[2] // merge
    slot_of_group, slots = _window_slots(rows, cols, tower.window_merged)
    group = merge * merge
    row, col = np.divmod(np.arange(rows * cols), cols)
    inner_row, inner_col = np.divmod(np.arange(group), merge)
    position = np.stack([row[:, None] * merge + inner_row, col[:, None] * merge + inner_col], axis=-1)

    patch_slot = (slot_of_group[:, None] * group + np.arange(group)).reshape(-1)
    frames = []
    for step_patches in patches.reshape(steps, rows * cols * group, -1):
        frame = FramePatches(
            patches_PC=np.zeros((slots * group, patches.shape[-1]), np.float32),
            positions_P2=np.zeros((slots * group, 2), np.int32),
            mask_P=np.zeros(slots * group, bool),
        )
        frame.patches_PC[patch_slot] = step_patches
        frame.positions_P2[patch_slot] = position.reshape(-1, 2)
        frame.mask_P[patch_slot] = True
        frames.append(frame)

    step = np.repeat(np.arange(steps), rows * cols)
    spacing = 1.0 if seconds_per_grid is None else tower.tokens_per_second * seconds_per_grid
    offsets = np.stack([(step * np.float32(spacing)).astype(np.int32), np.tile(row, steps), np.tile(col, steps)])
    piece = Piece(
        slots_E2=np.stack([step, np.tile(slot_of_group, steps)], axis=-1).astype(np.int32),
        offsets_3E=offsets.astype(np.int32),
        advance=max(rows, cols),
    )
    return MediaLayout(frames=tuple(frames), pieces=(piece,))


def _window_slots(rows: int, cols: int, side: int) -> tuple[np.ndarray, int]:
    """Return the slot of each merged patch (raster order) and the number of slots.

    Windows of ``side x side`` merged patches follow each other, each padded to its full number of slots; a picture
    within one window has no padding::

        3 x 5 groups, side 2      a a | b b | c        slots  a a a a  b b b b  c c . .
                                  a a | b b | c               d d . .  e e . .  f . . .
                                  d d | e e | f
    """
    if rows <= side and cols <= side:
        return np.arange(rows * cols), rows * cols
    row, col = np.divmod(np.arange(rows * cols), cols)
    window = (row // side) * -(-cols // side) + col // side
    slot = np.empty(rows * cols, np.int64)
    for index in range(int(window.max()) + 1):
        inside = window == index
        slot[inside] = index * side * side + np.arange(inside.sum())
    return slot, (int(window.max()) + 1) * side * side


FAMILY = Family(
    model_type="qwen2_5_vl",
    read_config=read_config,
    write_config=write_config,
    weight_rules=weight_rules,
    name_aliases=((r"^model\.language_model\.", "model."), (r"^model\.visual\.", "visual.")),
    module_names=((r"^model\.", "model.language_model."), (r"^visual\.", "model.visual.")),
    read_geometry=partial(read_picture_geometry, default=DEFAULT_GEOMETRY),
    picture_files=partial(picture_files, processor="Qwen2_5_VLProcessor", video_processor="Qwen2VLVideoProcessor"),
    lay_out_image=lay_out_image,
    lay_out_clip=lay_out_clip,
)

"""Qwen2.5-VL (arXiv 2502.13923): its config.json, tensor names, window layout and M-RoPE positions."""

from typing import Any

import numpy as np

from urt_jax.data.examples import BadInputError
from urt_jax.data.images import PictureGeometry
from urt_jax.families.family import Family, MediaLayout, WeightRule
from urt_jax.models.config import DecoderConfig, ModelConfig, VisionConfig
from urt_jax.types import FramePatches


def read_config(config: dict[str, Any]) -> ModelConfig:
    """Translate config.json, in the older flat form or with ``text_config``, into our sizes.

    Raises:
        BadInputError: a needed key is missing, or the checkpoint uses something this family's code does not do.
    """
    text = {**config, **config.get("text_config", {})}
    vision = config.get("vision_config", {})
    rope = {**(text.get("rope_scaling") or {}), **(text.get("rope_parameters") or {})}
    try:
        if text.get("use_sliding_window"):
            raise BadInputError("config.json sets use_sliding_window; only full attention is published for Qwen2.5-VL")
        if rope.get("rope_type", rope.get("type", "default")) not in ("default", "mrope"):
            raise BadInputError(
                f"config.json asks for rope type {rope}; Qwen2.5-VL checkpoints use 'mrope' / 'default'"
            )
        width, heads = text["hidden_size"], text["num_attention_heads"]
        decoder = DecoderConfig(
            vocab_size=text["vocab_size"],
            width=width,
            layers=text["num_hidden_layers"],
            query_heads=heads,
            kv_heads=text.get("num_key_value_heads") or heads,
            head_width=width // heads,
            feed_forward=text["intermediate_size"],
            mrope_section=tuple(rope.get("mrope_section", (16, 24, 24))),
            norm_eps=float(text.get("rms_norm_eps", 1e-5)),
            rope_theta=float(rope.get("rope_theta", text.get("rope_theta", 1_000_000.0))),
            tied_head=bool(config.get("tie_word_embeddings") or text.get("tie_word_embeddings")),
        )
        tower = VisionConfig(
            depth=vision["depth"],
            width=vision["hidden_size"],
            heads=vision["num_heads"],
            feed_forward=vision["intermediate_size"],
            out_width=vision["out_hidden_size"],
            patch_size=vision.get("patch_size", 14),
            temporal_patch_size=vision.get("temporal_patch_size", 2),
            merge_size=vision.get("spatial_merge_size", 2),
            channels=vision.get("in_channels", vision.get("in_chans", 3)),
            window_size=vision.get("window_size", 112),
            full_attention_layers=tuple(vision.get("fullatt_block_indexes", (7, 15, 23, 31))),
            rope_theta=float((vision.get("rope_parameters") or {}).get("rope_theta", 10_000.0)),
            tokens_per_second=float(vision.get("tokens_per_second", 4)),
        )
    except KeyError as missing:
        raise BadInputError(f"config.json lacks {missing}, which Qwen2.5-VL needs; is the folder complete?") from None
    if 2 * sum(decoder.mrope_section) != decoder.head_width:
        raise BadInputError(
            f"config.json: mrope_section {decoder.mrope_section} must sum to half the head width, "
            f"{decoder.head_width // 2}"
        )
    return ModelConfig(
        decoder=decoder,
        vision=tower,
        image_token_id=config.get("image_token_id", 151655),
        video_token_id=config.get("video_token_id", 151656),
        vision_start_token_id=config.get("vision_start_token_id", 151652),
        vision_end_token_id=config.get("vision_end_token_id", 151653),
    )


def write_config(config: ModelConfig, token_ids: dict[str, Any]) -> dict[str, Any]:
    """Write config.json as transformers 5 does; ``token_ids`` adds bos, eos and pad."""
    decoder, tower = config.decoder, config.vision
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "image_token_id": config.image_token_id,
        "video_token_id": config.video_token_id,
        "vision_start_token_id": config.vision_start_token_id,
        "vision_end_token_id": config.vision_end_token_id,
        "tie_word_embeddings": decoder.tied_head,
        "text_config": {
            "model_type": "qwen2_5_vl_text",
            "vocab_size": decoder.vocab_size,
            "hidden_size": decoder.width,
            "intermediate_size": decoder.feed_forward,
            "num_hidden_layers": decoder.layers,
            "num_attention_heads": decoder.query_heads,
            "num_key_value_heads": decoder.kv_heads,
            "rms_norm_eps": decoder.norm_eps,
            "hidden_act": "silu",
            "tie_word_embeddings": decoder.tied_head,
            "use_sliding_window": False,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": decoder.rope_theta,
                "mrope_section": list(decoder.mrope_section),
            },
            **token_ids,
        },
        "vision_config": {
            "model_type": "qwen2_5_vl_vision",
            "depth": tower.depth,
            "hidden_size": tower.width,
            "intermediate_size": tower.feed_forward,
            "num_heads": tower.heads,
            "out_hidden_size": tower.out_width,
            "patch_size": tower.patch_size,
            "temporal_patch_size": tower.temporal_patch_size,
            "spatial_merge_size": tower.merge_size,
            "in_channels": tower.channels,
            "window_size": tower.window_size,
            "fullatt_block_indexes": list(tower.full_attention_layers),
            "tokens_per_second": int(tower.tokens_per_second),
            "hidden_act": "silu",
        },
    }


def weight_rules(config: ModelConfig) -> tuple[WeightRule, ...]:
    """Return the table of tensor names; a tied head has no tensor of its own."""
    tower = config.vision
    patch_axes = (tower.channels, tower.temporal_patch_size, tower.patch_size, tower.patch_size)
    rules = [
        WeightRule("model.embed_tokens.weight", ("embedding",)),
        WeightRule("model.norm.weight", ("decoder", "norm", "scale")),
        WeightRule("visual.patch_embed.proj.weight", ("vision", "patch_embed", "kernel"), True, patch_axes),
        WeightRule("visual.merger.ln_q.weight", ("vision", "merger_norm", "scale")),
    ]
    if not config.decoder.tied_head:
        rules.append(WeightRule("lm_head.weight", ("head",)))

    def linear(name: str, path: tuple[str, ...], bias: bool) -> None:
        rules.append(WeightRule(f"{name}.weight", (*path, "kernel"), True))
        if bias:
            rules.append(WeightRule(f"{name}.bias", (*path, "bias")))

    layer, layers = "model.layers.{}.", ("decoder", "layers")
    for ours in "qkvo":
        linear(f"{layer}self_attn.{ours}_proj", (*layers, "attention", ours), ours != "o")
    block, blocks = "visual.blocks.{}.", ("vision", "blocks")
    for ours in ("gate", "up", "down"):
        linear(f"{layer}mlp.{ours}_proj", (*layers, "mlp", ours), False)
        linear(f"{block}mlp.{ours}_proj", (*blocks, "mlp", ours), True)
    linear(f"{block}attn.qkv", (*blocks, "qkv"), True)
    linear(f"{block}attn.proj", (*blocks, "proj"), True)
    linear("visual.merger.mlp.0", ("vision", "merger_in"), True)
    linear("visual.merger.mlp.2", ("vision", "merger_out"), True)
    norms = {"input_layernorm": "input_norm", "post_attention_layernorm": "post_norm"}
    rules += [WeightRule(f"{layer}{theirs}.weight", (*layers, ours, "scale")) for theirs, ours in norms.items()]
    rules += [WeightRule(f"{block}{norm}.weight", (*blocks, norm, "scale")) for norm in ("norm1", "norm2")]
    return tuple(rules)


def lay_out(
    patches: np.ndarray, grid: tuple[int, int, int], config: ModelConfig, seconds_per_grid: float | None
) -> MediaLayout:
    """Lay a picture or clip out for the tower and the prompt.

    ``patches`` float32 [t*h*w, C] come in Hugging Face order (2x2 groups contiguous, raster over groups); ``grid``
    is (t, h, w) in patches. ``seconds_per_grid`` is the time one temporal patch covers, ``None`` for a picture, whose
    temporal positions are not spaced. Positions follow transformers 5 (``get_rope_index``): a medium advances the text
    by its larger side in merged patches.
    """
    tower = config.vision
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
    return MediaLayout(
        frames=tuple(frames),
        slots_E2=np.stack([step, np.tile(slot_of_group, steps)], axis=-1).astype(np.int32),
        offsets_3E=offsets.astype(np.int32),
        advance=max(rows, cols),
    )


def _window_slots(rows: int, cols: int, side: int) -> tuple[np.ndarray, int]:
    """Return the slot of each merged patch (raster order) and the number of slots.

    Windows of ``side x side`` merged patches follow each other, each padded to its full number of slots; a picture that
    fits one window takes no padding::

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
    lay_out=lay_out,
    default_geometry=PictureGeometry(
        min_pixels=56 * 56,
        max_pixels=28 * 28 * 1280,
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
        video_min_pixels=128 * 28 * 28,
        video_max_pixels=768 * 28 * 28,
    ),
)

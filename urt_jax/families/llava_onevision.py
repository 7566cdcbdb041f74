"""LLaVA-OneVision (arXiv 2408.03326): its config.json, tensor names and picture settings, in both published layouts."""

import re

import numpy as np

from urt_jax.data.anyres import PUBLISHED_GRIDS, TileGeometry, cut_tiles, square_tile, tile_patches
from urt_jax.data.frame_resizing import resize_frames
from urt_jax.data.video import Clip
from urt_jax.families.config_fields import (
    MAX_CHANNELS,
    MAX_HEADS,
    MAX_LAYERS,
    MAX_SIDE,
    MAX_WIDTH,
    config_fields,
    is_tied,
    refuse_others,
)
from urt_jax.families.family import (
    Family,
    Json,
    MediaLayout,
    PictureSettings,
    WeightRule,
    linear_rules,
    norm_rules,
)
from urt_jax.families.llava_original import CHAT_TEMPLATE, complete_config
from urt_jax.families.picture_settings import read_colours
from urt_jax.families.qwen_decoder import decoder_rules, read_decoder, token_id, write_decoder
from urt_jax.families.tile_layout import lay_out_frames, lay_out_square, lay_out_tiles
from urt_jax.files.fields import Fields
from urt_jax.models.config import ModelConfig, TileVisionConfig

NAME = "LLaVA-OneVision"
MAX_GRIDS, MAX_GRID_SIDE = 4096, 2**18  # published: 36 grids of at most 6 tiles of 384 pixels a side


def read_config(config: Json) -> ModelConfig:
    """Translate config.json of the transformers layout into our sizes.

    Raises:
        BadInputError: a needed key is missing, or the checkpoint uses a setting that is not supported.
    """
    fields = config_fields(config)
    text, vision = fields.group("text_config"), fields.group("vision_config")
    refuse_others(fields, {"vision_feature_select_strategy": ("full",), "projector_hidden_act": ("gelu",)}, name=NAME)
    refuse_others(text, {"model_type": ("qwen2", "llava_qwen")}, name=NAME)
    towers = ("siglip_vision_model",)
    known = {"vision_use_head": (False,), "hidden_act": ("gelu_pytorch_tanh",), "model_type": towers}
    refuse_others(vision, known, name=NAME)
    decoder = read_decoder(text, name=NAME, tied=is_tied(fields, text), default_theta=1e6, default_section=None)
    depth = vision.integer("num_hidden_layers", at_least=1, at_most=MAX_LAYERS)
    layer = fields.integer("vision_feature_layer", -1, at_least=-depth - 1, at_most=depth)
    width = vision.integer("hidden_size", at_least=1, at_most=MAX_WIDTH)
    heads = vision.integer("num_attention_heads", at_least=1, at_most=MAX_HEADS)
    patch = vision.integer("patch_size", 14, at_least=1, at_most=MAX_SIDE)
    tile = vision.integer("image_size", 384, at_least=patch, at_most=MAX_SIDE)
    if width % heads:
        raise vision.refusal("num_attention_heads", f"a divisor of hidden_size, {width}")
    tower = TileVisionConfig(
        depth=depth,
        width=width,
        heads=heads,
        feed_forward=vision.integer("intermediate_size", at_least=1, at_most=MAX_WIDTH),
        out_width=decoder.width,
        patch_size=patch,
        temporal_patch_size=1,
        merge_size=1,
        channels=vision.integer("num_channels", 3, at_least=1, at_most=MAX_CHANNELS),
        norm_eps=vision.number("layer_norm_eps", 1e-6, at_least=0, at_most=1),
        tile_size=tile,
        feature_layer=layer if layer >= 0 else depth + layer + 1,
        projector_bias=fields.flag("multimodal_projector_bias", True),
    )
    return ModelConfig(
        decoder=decoder,
        vision=tower,
        image_token_id=token_id(fields, ["image_token_index", "image_token_id"], 151646),
        video_token_id=token_id(fields, ["video_token_index", "video_token_id"], 151647),
    )


def write_config(config: ModelConfig, token_ids: Json) -> Json:
    """Write config.json as transformers 5 does; ``token_ids`` adds bos, eos and pad."""
    decoder, tower = config.decoder, config.vision
    assert isinstance(tower, TileVisionConfig)
    return {
        "architectures": ["LlavaOnevisionForConditionalGeneration"],
        "model_type": "llava_onevision",
        "image_token_index": config.image_token_id,
        "video_token_index": config.video_token_id,
        "tie_word_embeddings": decoder.tied_head,
        "multimodal_projector_bias": tower.projector_bias,
        "projector_hidden_act": "gelu",
        "vision_feature_select_strategy": "full",
        "vision_feature_layer": tower.feature_layer - tower.depth - 1,
        "text_config": write_decoder(decoder, "qwen2", token_ids) | {"use_sliding_window": False},
        "vision_config": {
            "model_type": "siglip_vision_model",
            "num_hidden_layers": tower.depth,
            "hidden_size": tower.width,
            "intermediate_size": tower.feed_forward,
            "num_attention_heads": tower.heads,
            "num_channels": tower.channels,
            "patch_size": tower.patch_size,
            "image_size": tower.tile_size,
            "layer_norm_eps": tower.norm_eps,
            "hidden_act": "gelu_pytorch_tanh",
            "vision_use_head": False,
        },
    }


def weight_rules(config: ModelConfig) -> tuple[WeightRule, ...]:
    """Return the table of tensor names."""
    tower = config.vision
    assert isinstance(tower, TileVisionConfig)
    patch_axes = (tower.channels, tower.patch_size, tower.patch_size)
    embeddings = "vision_tower.embeddings."
    rules = decoder_rules(config.decoder, prefix="language_model.model.", head="language_model.lm_head.weight")
    rules += [
        WeightRule("image_newline", ("vision", "newline")),
        WeightRule(f"{embeddings}patch_embedding.weight", ("vision", "patch_embed", "kernel"), True, patch_axes),
        WeightRule(f"{embeddings}patch_embedding.bias", ("vision", "patch_embed", "bias")),
        WeightRule(f"{embeddings}position_embedding.weight", ("vision", "positions")),
    ]
    rules += norm_rules("vision_tower.post_layernorm", ("vision", "last_norm"))
    block, blocks, stack = "vision_tower.encoder.layers.{}.", ("vision", "blocks"), tower.depth
    for theirs, ours in (("q_proj", "q"), ("k_proj", "k"), ("v_proj", "v"), ("out_proj", "proj")):
        rules += linear_rules(f"{block}self_attn.{theirs}", (*blocks, ours), stack=stack)
    for number, ours in ((1, "up"), (2, "down")):
        rules += linear_rules(f"{block}mlp.fc{number}", (*blocks, "mlp", ours), stack=stack)
        rules += norm_rules(f"{block}layer_norm{number}", (*blocks, f"norm{number}"), stack=stack)
    for number, ours in ((1, "input"), (2, "output")):
        path = ("vision", "projector", ours)
        rules += linear_rules(f"multi_modal_projector.linear_{number}", path, bias=tower.projector_bias)
    return tuple(rules)


def read_geometry(settings: PictureSettings) -> TileGeometry:
    """Return the picture settings; grids come from the processor's file, else from config.json."""
    image, config = Fields(settings.image, "preprocessor_config.json"), config_fields(settings.config)
    vision = config.group("vision_config", {})
    patch = vision.integer("patch_size", 14, at_least=1, at_most=MAX_SIDE)
    tile = vision.integer("image_size", 384, at_least=patch, at_most=MAX_SIDE)
    size = image.group("size", {})
    for key in ("shortest_edge", "height"):
        tile = size.integer(key, tile, at_least=patch, at_most=MAX_SIDE)
    mode = config.text("vision_aspect_ratio", "anyres_max_9")
    if not (found := re.fullmatch(r"anyres_max_([1-9][0-9]{0,3})", mode)):
        raise config.refusal("vision_aspect_ratio", "'anyres_max_<tiles>': no other value is supported")
    return TileGeometry(
        tile_size=tile,
        patch_size=patch,
        grids=_read_grids(image if image.get("image_grid_pinpoints") else config, tile),
        max_tiles=int(found[1]),
        mean=read_colours(image, "image_mean", (0.5, 0.5, 0.5)),
        std=read_colours(image, "image_std", (0.5, 0.5, 0.5)),
    )


def _read_grids(fields: Fields, tile: int) -> tuple[tuple[int, int], ...]:
    """Return the listed tile grids as (height, width) in pixels, each a whole number of tiles."""
    listed = fields.items_of("image_grid_pinpoints", None, at_least=1, at_most=MAX_GRIDS)
    if listed is None:
        return PUBLISHED_GRIDS
    grids = [listed.integers(n, size=2, at_least=1, at_most=MAX_GRID_SIDE) for n in listed]
    if any(side % tile for grid in grids for side in grid):
        raise fields.refusal("image_grid_pinpoints", f"heights and widths in whole tiles of {tile} pixels")
    return tuple((rows, columns) for rows, columns in grids)


def picture_files(geometry: TileGeometry) -> dict[str, Json]:
    """Return the settings files of the transformers layout by name."""
    edges = {"height": geometry.tile_size, "width": geometry.tile_size}
    shared = {"size": edges, "image_mean": list(geometry.mean), "image_std": list(geometry.std)}
    image = {
        "image_processor_type": "LlavaOnevisionImageProcessor",
        "image_grid_pinpoints": [list(grid) for grid in geometry.grids],
        **shared,
    }
    processor = {
        "processor_class": "LlavaOnevisionProcessor",
        "num_image_tokens": geometry.side**2,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": f"anyres_max_{geometry.max_tiles}",
    }
    return {
        "preprocessor_config.json": image | {"processor_class": processor["processor_class"]},
        "video_preprocessor_config.json": {"video_processor_type": "LlavaOnevisionVideoProcessor", **shared},
        "processor_config.json": processor,
    }


def lay_out_image(
    image: np.ndarray, geometry: TileGeometry, config: ModelConfig, *, alone: bool, name: str
) -> MediaLayout:
    """Lay out one picture uint8 [H, W, 3]: as tiles if it is the chat's only one, else as one padded square."""
    if not alone:
        return lay_out_square(tile_patches(square_tile(image, geometry), geometry), geometry)
    return lay_out_tiles(tile_patches(cut_tiles(image, geometry), geometry), image.shape[:2], geometry)


def lay_out_clip(clip: Clip, geometry: TileGeometry, config: ModelConfig, *, name: str) -> MediaLayout:
    """Lay out one clip, every frame stretched to one tile; the prompt holds no times."""
    size = (geometry.tile_size, geometry.tile_size)
    return lay_out_frames(tile_patches(resize_frames(clip.frames, size), geometry), geometry)


FAMILY = Family(
    model_type="llava_onevision",
    read_config=read_config,
    write_config=write_config,
    weight_rules=weight_rules,
    name_aliases=(
        # the original LLaVA layout
        (r"^model\.vision_tower\.vision_tower\.", "vision_tower."),
        (r"^model\.mm_projector\.0\.", "multi_modal_projector.linear_1."),
        (r"^model\.mm_projector\.2\.", "multi_modal_projector.linear_2."),
        (r"^model\.(?=layers\.|embed_tokens\.|norm\.)", "language_model.model."),
        # transformers, as in memory and as saved
        (r"^model\.language_model\.", "language_model.model."),
        (r"^model\.(?=vision_tower\.|multi_modal_projector\.|image_newline$)", ""),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^vision_tower\.vision_model\.", "vision_tower."),
    ),
    module_names=(
        (r"^language_model\.model\.", "model.language_model."),
        (r"^language_model\.lm_head", "lm_head"),
        (r"^(?=vision_tower\.|multi_modal_projector\.|image_newline$)", "model."),
    ),
    read_geometry=read_geometry,
    picture_files=picture_files,
    lay_out_image=lay_out_image,
    lay_out_clip=lay_out_clip,
    image_placeholder="<image>",
    video_placeholder="<video>",
    kept_settings=("image_grid_pinpoints", "vision_aspect_ratio"),
    unused_tensors=r"^vision_tower\.head\.",
    chat_template=CHAT_TEMPLATE,
    original_model_type="llava_qwen",
    complete_config=complete_config,
)

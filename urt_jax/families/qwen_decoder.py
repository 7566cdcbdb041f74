"""The published settings of the Qwen2 / Qwen3 decoder and towers that their families share."""

from collections.abc import Sequence
from typing import Any

from urt_jax.errors import BadInputError
from urt_jax.families.config_fields import (
    MAX_CHANNELS,
    MAX_HEADS,
    MAX_LAYERS,
    MAX_SIDE,
    MAX_TOKEN_ID,
    MAX_VOCABULARY,
    MAX_WIDTH,
    refuse_others,
)
from urt_jax.families.family import Json, WeightRule, linear_rules
from urt_jax.files.fields import Fields
from urt_jax.models.config import DecoderConfig, DeepStackVisionConfig, WindowedVisionConfig

# Ids of the placeholders and of the tokens around them in the Qwen-VL families, as published.
VISION_IDS = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}


def read_decoder(
    text: Fields,
    *,
    name: str,
    tied: bool,
    default_theta: float,
    default_section: tuple[int, ...] | None,
    default_eps: float = 1e-6,
    default_head: int | None = None,
    **kind: Any,
) -> DecoderConfig:
    """Translate the settings of the text model into our sizes; ``kind`` are the switches of the family.

    ``default_section`` None means plain rotary positions, written as one section with three equal position rows;
    ``default_head`` None means a head width of width / heads.

    Raises:
        BadInputError: a setting that is missing, out of bounds, or not supported by this decoder.
    """
    refuse_others(text, {"use_sliding_window": (False,), "hidden_act": ("silu",)}, name=name)
    stated = {**text.group("rope_scaling", {}), **text.group("rope_parameters", {})}
    rope = Fields(stated, f"{text.where}: rope_parameters")
    rope_type = rope.text("rope_type", None) or rope.text("type", "default")
    if rope_type not in ("default", "mrope"):
        raise BadInputError(
            f"{text.where} asks for rope type {rope_type!r}; {name} checkpoints use 'default' or 'mrope'"
        )
    refuse_others(rope, {"partial_rotary_factor": (1, 1.0)}, name=name)
    width = text.integer("hidden_size", at_least=1, at_most=MAX_WIDTH)
    heads = text.integer("num_attention_heads", at_least=1, at_most=MAX_HEADS)
    kv_heads = text.integer("num_key_value_heads", heads, at_least=1, at_most=MAX_HEADS)
    head_width = text.integer("head_dim", default_head or width // heads, at_least=2, at_most=MAX_WIDTH)
    if heads % kv_heads:
        raise text.refusal("num_key_value_heads", f"a divisor of num_attention_heads, {heads}")
    default = (head_width // 2, 0, 0) if default_section is None else default_section
    section = default if default_section is None else rope.integers("mrope_section", default, size=3, at_most=MAX_WIDTH)
    if 2 * sum(section) != head_width:
        raise BadInputError(f"{text.where}: mrope_section {section} must sum to half the head width, {head_width // 2}")
    theta = rope.number("rope_theta", None, above=0) or text.number("rope_theta", None, above=0)
    return DecoderConfig(
        vocab_size=text.integer("vocab_size", at_least=1, at_most=MAX_VOCABULARY),
        width=width,
        layers=text.integer("num_hidden_layers", at_least=1, at_most=MAX_LAYERS),
        query_heads=heads,
        kv_heads=kv_heads,
        head_width=head_width,
        feed_forward=text.integer("intermediate_size", at_least=1, at_most=MAX_WIDTH),
        mrope_section=tuple(section),
        norm_eps=text.number("rms_norm_eps", default_eps, at_least=0, at_most=1),
        rope_theta=float(theta or default_theta),
        tied_head=tied,
        **kind,
    )


def write_decoder(decoder: DecoderConfig, model_type: str, token_ids: Json, **rope: Any) -> Json:
    """Write the settings of the text model as transformers 5 does; ``rope`` is added to its rope parameters."""
    return {
        "model_type": model_type,
        "vocab_size": decoder.vocab_size,
        "hidden_size": decoder.width,
        "intermediate_size": decoder.feed_forward,
        "num_hidden_layers": decoder.layers,
        "num_attention_heads": decoder.query_heads,
        "num_key_value_heads": decoder.kv_heads,
        "rms_norm_eps": decoder.norm_eps,
        "hidden_act": "silu",
        "tie_word_embeddings": decoder.tied_head,
        "rope_parameters": {"rope_type": "default", "rope_theta": decoder.rope_theta, **rope},
        **({"head_dim": decoder.head_width} if decoder.qk_norm else {}),  # without qk_norm it is width / heads
        **token_ids,
    }


def decoder_rules(decoder: DecoderConfig, *, prefix: str, head: str) -> list[WeightRule]:
    """Return the tensor names of the decoder, embedding and head; a tied head has no tensor of its own."""
    rules = [
        WeightRule(f"{prefix}embed_tokens.weight", ("embedding",)),
        WeightRule(f"{prefix}norm.weight", ("decoder", "norm", "scale")),
    ]
    if not decoder.tied_head:
        rules.append(WeightRule(head, ("head",)))
    layer, layers, stack = f"{prefix}layers.{{}}.", ("decoder", "layers"), decoder.layers
    for ours in "qkvo":
        path, bias = (*layers, "attention", ours), ours != "o" and decoder.qkv_bias
        rules += linear_rules(f"{layer}self_attn.{ours}_proj", path, bias=bias, stack=stack)
    for ours in ("gate", "up", "down"):
        rules += linear_rules(f"{layer}mlp.{ours}_proj", (*layers, "mlp", ours), bias=False, stack=stack)
    scales: dict[str, tuple[str, ...]] = {
        "input_layernorm": ("input_norm",),
        "post_attention_layernorm": ("post_norm",),
    }
    if decoder.qk_norm:
        scales |= {f"self_attn.{one}_norm": ("attention", f"{one}_norm") for one in "qk"}
    return rules + _scale_rules(layer, layers, scales.items(), stack)


def _scale_rules(layer: str, layers: tuple[str, ...], scales: Any, stack: int) -> list[WeightRule]:
    return [WeightRule(f"{layer}{theirs}.weight", (*layers, *ours, "scale"), stack=stack) for theirs, ours in scales]


def vision_ids(config: Fields) -> dict[str, int]:
    """Return the token ids of pictures and clips in a Qwen-VL model's config.json, by their keys."""
    return {name: token_id(config, [name], default) for name, default in VISION_IDS.items()}


def token_id(config: Fields, names: Sequence[str], default: int) -> int:
    """Return the first of the named ids that config.json has, else ``default``."""
    stated = [config.integer(name, None, at_most=MAX_TOKEN_ID) for name in names]
    return next((found for found in stated if found is not None), default)


def read_tower(vision: Fields, *, patch_size: int, name: str, act: str) -> dict[str, Any]:
    """Translate the common settings of the Qwen2.5-VL and Qwen3-VL towers into our sizes, by field name.

    Raises:
        BadInputError: a setting that is missing, out of bounds, or not supported by these towers.
    """
    refuse_others(vision, {"hidden_act": (act,)}, name=name)
    width = vision.integer("hidden_size", at_least=1, at_most=MAX_WIDTH)
    heads = vision.integer("num_heads", at_least=1, at_most=MAX_HEADS)
    if width % heads or (width // heads) % 4:
        raise vision.refusal("num_heads", f"a divisor of hidden_size, {width}, into heads of a multiple of 4")
    rope = vision.group("rope_parameters", {})
    return {
        "depth": vision.integer("depth", at_least=1, at_most=MAX_LAYERS),
        "width": width,
        "heads": heads,
        "feed_forward": vision.integer("intermediate_size", at_least=1, at_most=MAX_WIDTH),
        "out_width": vision.integer("out_hidden_size", at_least=1, at_most=MAX_WIDTH),
        "patch_size": vision.integer("patch_size", patch_size, at_least=1, at_most=MAX_SIDE),
        "temporal_patch_size": vision.integer("temporal_patch_size", 2, at_least=1, at_most=MAX_CHANNELS),
        "merge_size": vision.integer("spatial_merge_size", 2, at_least=1, at_most=MAX_CHANNELS),
        "rope_theta": rope.number("rope_theta", 10_000.0, above=0),
    }


def check_out_width(tower: dict[str, Any], decoder: DecoderConfig) -> None:
    """Refuse a tower whose output width is not the decoder's width."""
    if tower["out_width"] != decoder.width:
        raise BadInputError(
            f"config.json: the tower's out_hidden_size is {tower['out_width']}, the text model's hidden_size "
            f"{decoder.width}; they must be equal"
        )


def write_tower(tower: WindowedVisionConfig | DeepStackVisionConfig, model_type: str) -> Json:
    """Write the common settings of the Qwen2.5-VL and Qwen3-VL towers as transformers 5 does."""
    return {
        "model_type": model_type,
        "depth": tower.depth,
        "hidden_size": tower.width,
        "intermediate_size": tower.feed_forward,
        "num_heads": tower.heads,
        "out_hidden_size": tower.out_width,
        "patch_size": tower.patch_size,
        "temporal_patch_size": tower.temporal_patch_size,
        "spatial_merge_size": tower.merge_size,
        "in_channels": tower.channels,
    }

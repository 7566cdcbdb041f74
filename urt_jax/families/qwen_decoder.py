"""The Qwen2 / Qwen3 text decoder and vision settings as published: what their families share."""

from collections.abc import Sequence
from typing import Any

from urt_jax.errors import BadInputError
from urt_jax.families.family import Json, WeightRule, linear_rules
from urt_jax.models.config import DecoderConfig, DeepStackVisionConfig, WindowedVisionConfig

# Placeholders and what stands around them in the Qwen-VL families, as published.
VISION_IDS = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}


def read_decoder(
    text: Json,
    *,
    name: str,
    tied: bool,
    default_theta: float,
    default_section: tuple[int, ...] | None,
    default_eps: float = 1e-6,
    **kind: Any,
) -> DecoderConfig:
    """Translate the settings of the text model into our sizes; ``kind`` are the switches of the family.

    ``default_section`` None means plain rotary positions, written as one section of three equal rows.

    Raises:
        KeyError: a needed setting is missing.
        BadInputError: a setting this decoder does not do.
    """
    rope = {**(text.get("rope_scaling") or {}), **(text.get("rope_parameters") or {})}
    if text.get("use_sliding_window"):
        raise BadInputError(f"config.json sets use_sliding_window; only full attention is published for {name}")
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in ("default", "mrope"):
        raise BadInputError(
            f"config.json asks for rope type {rope_type!r}; {name} checkpoints use 'default' or 'mrope'"
        )
    width, heads = text["hidden_size"], text["num_attention_heads"]
    head_width = text.get("head_dim") or width // heads
    section = (head_width // 2, 0, 0) if default_section is None else tuple(rope.get("mrope_section", default_section))
    if 2 * sum(section) != head_width:
        raise BadInputError(f"config.json: mrope_section {section} must sum to half the head width, {head_width // 2}")
    return DecoderConfig(
        vocab_size=text["vocab_size"],
        width=width,
        layers=text["num_hidden_layers"],
        query_heads=heads,
        kv_heads=text.get("num_key_value_heads") or heads,
        head_width=head_width,
        feed_forward=text["intermediate_size"],
        mrope_section=section,
        norm_eps=float(text.get("rms_norm_eps", default_eps)),
        rope_theta=float(rope.get("rope_theta") or text.get("rope_theta") or default_theta),
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
        **({"head_dim": decoder.head_width} if decoder.qk_norm else {}),  # elsewhere it is width / heads
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


def missing_key(missing: KeyError, name: str) -> BadInputError:
    """Return the error for a config.json without a needed setting."""
    return BadInputError(f"config.json lacks {missing}, which {name} needs; is the folder complete?")


def vision_ids(config: Json) -> dict[str, int]:
    """Return the token ids of pictures and clips that config.json of a Qwen-VL model states, by their names there."""
    return {name: token_id(config, [name], default) for name, default in VISION_IDS.items()}


def token_id(config: Json, names: Sequence[str], default: int) -> int:
    """Return the first of the named ids that config.json states."""
    return next((int(config[name]) for name in names if config.get(name) is not None), default)


def read_tower(vision: Json, *, patch_size: int) -> dict[str, Any]:
    """Translate what the towers of Qwen2.5-VL and Qwen3-VL have in common into our sizes, by field name.

    Raises:
        KeyError: a needed setting is missing.
    """
    return {
        "depth": vision["depth"],
        "width": vision["hidden_size"],
        "heads": vision["num_heads"],
        "feed_forward": vision["intermediate_size"],
        "out_width": vision["out_hidden_size"],
        "patch_size": vision.get("patch_size", patch_size),
        "temporal_patch_size": vision.get("temporal_patch_size", 2),
        "merge_size": vision.get("spatial_merge_size", 2),
        "rope_theta": float((vision.get("rope_parameters") or {}).get("rope_theta", 10_000.0)),
    }


def write_tower(tower: WindowedVisionConfig | DeepStackVisionConfig, model_type: str) -> Json:
    """Write what the towers of Qwen2.5-VL and Qwen3-VL have in common as transformers 5 does."""
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

"""The layout from before transformers in which LLaVA-OneVision judges are published: ``model_type: llava_qwen``."""

import re
from collections.abc import Mapping

from urt_jax.errors import BadInputError
from urt_jax.families.family import Json

SO400M = {"hidden_size": 1152, "num_attention_heads": 16, "intermediate_size": 4304, "num_hidden_layers": 27}

CHAT_TEMPLATE = """\
{%- if messages[0]['role'] != 'system' -%}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{{- part['text'] if part['type'] == 'text' else '<' + part['type'] + '>\\n' -}}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def complete_config(config: Json, shapes: Mapping[str, tuple[int, ...]], placeholder_ids: tuple[int, int]) -> Json:
    """Translate config.json of the original LLaVA layout (``llava_qwen``) into that of transformers.

    The tower is named, not described: its sizes come from ``vision_config`` where a folder brings one, else from its
    name and from the ``shapes`` of the stored tensors (by their names in the transformers layout). Placeholders of
    pictures and clips have no ids of their own there: ``placeholder_ids`` are those the tokenizer was given.

    Raises:
        BadInputError: a projector, merge or picture mode that the transformers layout has no place for.
    """
    needed = {"mm_projector_type": "mlp2x_gelu", "mm_patch_merge_type": "spatial_unpad"}
    for key, value in needed.items():
        if config.get(key, value) != value:
            raise BadInputError(f"config.json: {key} is {config[key]!r}; only {value!r} is known for LLaVA-OneVision")
    layer = re.compile(r"^vision_tower\.encoder\.layers\.(\d+)\.")
    stored = {int(match[1]) for name in shapes if (match := layer.match(name))}
    if not stored:
        raise BadInputError(
            f"config.json is of the original LLaVA layout and names the tower {config.get('mm_vision_tower')!r}, whose "
            "weights are not in this folder; give a checkpoint that was trained with its tower"
        )
    patch, size = _named_sizes(str(config.get("mm_vision_tower") or ""))
    described = config.get("vision_config") or {}
    named = {"hidden_size": config.get("mm_hidden_size", SO400M["hidden_size"]), "patch_size": patch}
    inner = shapes["vision_tower.encoder.layers.0.mlp.fc1.bias"][0]
    vision = {**SO400M, **named, "intermediate_size": inner, "image_size": size, **described}
    known = vision["hidden_size"] == SO400M["hidden_size"]
    # The layer is counted from the end of the whole tower, of which a file may leave out the layers behind it.
    select = config.get("mm_vision_select_layer", -2)
    whole = described.get("num_hidden_layers") or (SO400M["num_hidden_layers"] if known else len(stored) - 1 - select)
    text = {key: value for key, value in config.items() if not key.startswith("mm_") and key != "vision_config"}
    return {
        "model_type": "llava_onevision",
        "text_config": text,
        "vision_config": vision | {"num_hidden_layers": len(stored)},
        "vision_feature_layer": whole + select + 1,
        "tie_word_embeddings": config.get("tie_word_embeddings", False),
        "image_grid_pinpoints": _grids(config.get("image_grid_pinpoints"), vision["image_size"]),
        "vision_aspect_ratio": config.get("image_aspect_ratio", "anyres_max_9"),
        "image_token_index": placeholder_ids[0],
        "video_token_index": placeholder_ids[1],
    }


def _named_sizes(tower: str) -> tuple[int, int]:
    """Return patch and picture size of a tower that carries them in its name, such as siglip-so400m-patch14-384."""
    found = re.search(r"patch(\d+)-(\d+)", tower)
    return (int(found[1]), int(found[2])) if found else (14, 384)


def _grids(stated: object, size: int) -> list[list[int]]:
    """Return grids in pixels from a list, or from a range of tile counts written as ``(1x1),...,(6x6)``."""
    if isinstance(stated, list):
        return stated
    counts = [(int(rows), int(columns)) for rows, columns in re.findall(r"(\d+)x(\d+)", str(stated or ""))]
    first, last = (counts[0], counts[-1]) if counts else ((1, 1), (6, 6))
    return [
        [size * rows, size * columns]
        for rows in range(first[0], last[0] + 1)
        for columns in range(first[1], last[1] + 1)
    ]

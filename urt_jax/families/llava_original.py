"""The original LLaVA layout, older than transformers, of published LLaVA-OneVision judges (``llava_qwen``)."""

import re
from collections.abc import Mapping
from typing import Any

from urt_jax.errors import BadInputError, shown
from urt_jax.families.config_fields import MAX_LAYERS, MAX_SIDE, MAX_WIDTH, config_fields, refuse_others
from urt_jax.families.family import Json
from urt_jax.files.fields import Fields

SO400M = {"hidden_size": 1152, "num_attention_heads": 16, "intermediate_size": 4304, "num_hidden_layers": 27}

# Settings that change the layout of pictures, with OneVision's values; null and false count as missing.
_KNOWN: dict[str, tuple[Any, ...]] = {
    "mm_projector_type": ("mlp2x_gelu",),
    "mm_patch_merge_type": ("spatial_unpad",),
    "mm_newline_position": ("one_token",),
    "mm_spatial_pool_mode": ("bilinear",),
    "mm_spatial_pool_stride": (2,),
    "mm_vision_select_feature": ("patch",),
    "mm_resampler_type": (False,),
    "mm_use_im_start_end": (False,),
    "add_faster_video": (False,),
    "add_time_instruction": (False,),
    "use_pos_skipping": (False,),
    "image_crop_resolution": (False,),
    "image_split_resolution": (False,),
}

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

    The original layout names the tower without its sizes: they come from ``vision_config`` if the folder has one, else
    from the name and from the ``shapes`` of the stored tensors (by their names in the transformers layout). It has no
    placeholder ids for pictures and clips: ``placeholder_ids`` are those added to the tokenizer.

    Raises:
        BadInputError: a projector, merge or picture mode that the transformers layout cannot express.
    """
    fields = config_fields(config)
    refuse_others(fields, _KNOWN, name="LLaVA-OneVision")
    layer = re.compile(r"^vision_tower\.encoder\.layers\.(\d+)\.")
    stored = {int(match[1]) for name in shapes if (match := layer.match(name))}
    tower = fields.text("mm_vision_tower", "")
    if not stored or "vision_tower.encoder.layers.0.mlp.fc1.bias" not in shapes:
        raise BadInputError(
            f"config.json is of the original LLaVA layout and names the tower {tower!r}, whose weights are not in this "
            "folder; give a checkpoint that was trained with its tower"
        )
    patch, size = _named_sizes(tower)
    described = fields.group("vision_config", {})
    width = fields.integer("mm_hidden_size", SO400M["hidden_size"], at_least=1, at_most=MAX_WIDTH)
    inner = shapes["vision_tower.encoder.layers.0.mlp.fc1.bias"][0]
    named = {"hidden_size": width, "patch_size": patch, "intermediate_size": inner, "image_size": size}
    vision = {**SO400M, **named, **described}
    known = vision["hidden_size"] == SO400M["hidden_size"]
    # The layer is counted from the end of the whole tower, whose later layers a file may omit.
    select = fields.integer("mm_vision_select_layer", -2, at_least=-MAX_LAYERS, at_most=-1)
    usual = SO400M["num_hidden_layers"] if known else len(stored) - 1 - select
    whole = described.integer("num_hidden_layers", usual, at_least=1, at_most=MAX_LAYERS)
    text = {key: value for key, value in fields.items() if not key.startswith("mm_") and key != "vision_config"}
    tile = Fields(vision, "config.json: vision_config").integer("image_size", at_least=1, at_most=MAX_SIDE)
    return {
        "model_type": "llava_onevision",
        "text_config": text,
        "vision_config": vision | {"num_hidden_layers": len(stored)},
        "vision_feature_layer": whole + select + 1,
        "tie_word_embeddings": fields.flag("tie_word_embeddings", False),
        "image_grid_pinpoints": _grids(fields.get("image_grid_pinpoints"), tile),
        "vision_aspect_ratio": fields.text("image_aspect_ratio", "anyres_max_9"),
        "image_token_index": placeholder_ids[0],
        "video_token_index": placeholder_ids[1],
    }


def _named_sizes(tower: str) -> tuple[int, int]:
    """Return the patch and picture size in a tower's name, such as siglip-so400m-patch14-384."""
    found = re.search(r"patch(\d+)-(\d+)", tower)
    return (int(found[1]), int(found[2])) if found else (14, 384)


def _grids(stated: object, size: int) -> list[list[int]]:
    """Return grids in pixels from a list, or from a range of tile counts written as ``(1x1),...,(6x6)``."""
    if isinstance(stated, list):
        return stated
    if stated is not None and not isinstance(stated, str):
        raise BadInputError(f"config.json: image_grid_pinpoints is {shown(stated)}; needed a list or '(1x1),...,(6x6)'")
    counts = [
        (int(rows), int(columns)) for rows, columns in re.findall(r"(\d{1,3})x(\d{1,3})", str(stated or "")[:200])
    ]
    first, last = (counts[0], counts[-1]) if counts else ((1, 1), (6, 6))
    return [
        [size * rows, size * columns]
        for rows in range(first[0], last[0] + 1)
        for columns in range(first[1], last[1] + 1)
    ]

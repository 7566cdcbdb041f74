"""LoRA adapters in PEFT's layout: ``adapter_model.safetensors`` and ``adapter_config.json``, read strictly.

A projection of ours is one module of transformers, or one module per layer if it is stacked. Its tensors are
``base_model.model.<module>.lora_A.weight`` [r, in] and ``.lora_B.weight`` [out, r].
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import safe_open
from safetensors.numpy import save_file

from urt_jax.checkpoints.adapter_config import CONFIG_NAME, check_options, is_selected, plain_lora, read_settings
from urt_jax.checkpoints.stored_tensors import plain_name
from urt_jax.errors import BadInputError
from urt_jax.families.family import Family, WeightRule
from urt_jax.files.checksums import checked
from urt_jax.files.whole import whole_folder
from urt_jax.models.config import ModelConfig
from urt_jax.models.layers import ADAPTER_LEAVES

WEIGHTS_NAME = "adapter_model.safetensors"
PREFIX = "base_model.model."
_FLOATS = (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)


class Module(NamedTuple):
    """One module of transformers that can be adapted: one layer of a projection of ours."""

    name: str  # path of the module, "model.language_model.layers.0.self_attn.q_proj"
    rule: WeightRule
    layer: int


def save_adapter(
    folder: str | Path,
    params: Mapping[str, Any],
    family: Family,
    config: ModelConfig,
    *,
    base: str,
    revision: str | None = None,
) -> None:
    """Write the adapters of a parameter tree, without its other weights, as PEFT does.

    ``base`` is the name or path of the base model. ``lora_alpha`` is written to six digits.

    Raises:
        ValueError: no adapters, adapters of several ranks or scales, or an adapter on another kind of weight.
    """
    flat = flatten_dict(dict(params))
    rules = {rule.path[:-1]: rule for rule in family.weight_rules(config) if _is_projection(rule)}
    rooms = [path[:-1] for path in flat if path[-1] == "lora_a"]
    found = {(flat[(*room, "lora_a")].shape[-1], *np.unique(flat[(*room, "lora_scale")]).tolist()) for room in rooms}
    if len(found) != 1 or len(next(iter(found))) != 2 or not rules.keys() >= set(rooms):
        wanted = "one rank and one scale for all of them are needed, and plain projections to adapt"
        raise ValueError(f"the tree has adapters of (rank, scales) {sorted(found)} at {rooms}; {wanted}")
    tensors: dict[str, np.ndarray] = {}
    for room in rooms:
        lora_a, lora_b = (np.asarray(flat[(*room, name)], np.float32) for name in ADAPTER_LEAVES[:2])
        for module in _modules_of(rules[room], family):
            a, b = (lora_a[module.layer], lora_b[module.layer]) if module.rule.stack else (lora_a, lora_b)
            tensors[f"{PREFIX}{module.name}.lora_A.weight"] = np.ascontiguousarray(a.T)
            tensors[f"{PREFIX}{module.name}.lora_B.weight"] = np.ascontiguousarray(b.T)
    rank, scale = next(iter(found))
    names = [_module_name(rules[room].name, family) for room in rooms]
    settings = plain_lora(rank=rank, alpha=scale * rank, modules=names)
    named = {"base_model_name_or_path": base, "revision": revision}
    with whole_folder(folder, last=CONFIG_NAME) as unfinished:
        save_file(tensors, unfinished / WEIGHTS_NAME, metadata={"format": "pt"})
        (unfinished / CONFIG_NAME).write_text(json.dumps(settings | named, indent=2, sort_keys=True) + "\n")


def load_adapter(folder: str | Path, params: Mapping[str, Any], family: Family, config: ModelConfig) -> dict[str, Any]:
    """Return the tree with the adapters of a folder, written here or by PEFT, as float32 numpy leaves.

    Layers of a stacked projection without an adapter get one of zeros, which adds nothing.

    Raises:
        BadInputError: unreadable files, unsupported options, and, naming them, tensors that are missing, unexpected,
            or of a shape that does not fit base and rank.
    """
    folder = Path(folder)
    with checked(folder):
        settings = read_settings(folder)
        check_options(folder, settings)
        stored = _read_tensors(folder / WEIGHTS_NAME)
    rank = int(settings["r"])
    modules = {
        plain_name(f"{module.name}.weight", family): module
        for rule in family.weight_rules(config)
        if _is_projection(rule)
        for module in _modules_of(rule, family)
    }
    placed = _place(folder, settings, stored, modules, family)
    flat = flatten_dict(dict(params))
    _check_shapes(folder, placed, flat, rank)
    scale = settings["lora_alpha"] / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    for rule in {module.rule.path: module.rule for module, _ in placed}.values():
        *stack, inner, outer = flat[rule.path].shape
        leaves = (
            np.zeros((*stack, inner, rank), np.float32),
            np.zeros((*stack, rank, outer), np.float32),
            np.full(stack, scale, np.float32),
        )
        for module, side in placed:
            if module.rule is rule:
                leaf = leaves[side == "B"]
                leaf[module.layer if rule.stack else ...] = placed[module, side].T
        flat |= {(*rule.path[:-1], name): leaf for name, leaf in zip(ADAPTER_LEAVES, leaves)}
    return unflatten_dict(flat)


def _is_projection(rule: WeightRule) -> bool:
    return rule.kernel and rule.stored_tail is None  # a kernel with a tail is a convolution in transformers


def _modules_of(rule: WeightRule, family: Family) -> Iterator[Module]:
    for layer, name in enumerate(rule.stored_names()):
        yield Module(_module_name(name, family), rule, layer)


def _module_name(name: str, family: Family) -> str:
    for pattern, replacement in family.module_names:
        name = re.sub(pattern, replacement, name)
    return name.removesuffix(".weight")


def _read_tensors(path: Path) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, "np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # the library raises several types for damaged bytes
        raise BadInputError(
            f"{path}: not a readable safetensors file ({error}); copy it again. Adapters are read from safetensors only"
        ) from None
    for name, tensor in tensors.items():
        if tensor.dtype not in _FLOATS or not np.isfinite(tensor.astype(np.float32)).all():
            odd = " with numbers that are not finite" if tensor.dtype in _FLOATS else ""
            raise BadInputError(
                f"{path}: {name} is {tensor.dtype}{odd}; adapters are finite float16, bfloat16 or float32: train it "
                "again, or save it in one of them"
            )
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def _place(
    folder: Path,
    settings: Mapping[str, Any],
    stored: Mapping[str, np.ndarray],
    modules: Mapping[str, Module],
    family: Family,
) -> dict[tuple[Module, str], np.ndarray]:
    """Return the tensors by module and side; raise a BadInputError for missing or unexpected ones."""
    placed: dict[tuple[Module, str], np.ndarray] = {}
    unexpected = []
    for name, tensor in stored.items():
        parts = re.fullmatch(rf"{re.escape(PREFIX)}(.+)\.lora_([AB])\.weight", name)
        module = modules.get(plain_name(f"{parts[1]}.weight", family)) if parts else None
        if parts and module and (is_selected(parts[1], settings) or is_selected(module.name, settings)):
            placed[module, parts[2]] = tensor
        else:
            unexpected.append(name)
    wanted = {module for module in modules.values() if is_selected(module.name, settings)} | {m for m, _ in placed}
    missing = [
        f"{PREFIX}{module.name}.lora_{side}.weight"
        for module in sorted(wanted)
        for side in "AB"
        if (module, side) not in placed
    ]
    problems = [
        f"{label} {', '.join(names[:5])}" + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        for label, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    if problems or not placed:
        raise BadInputError(
            f"{folder}: tensors do not fit target_modules {settings['target_modules']!r} and the base: "
            f"{'; '.join(problems) or 'there are none'}; copy the folder again, or give the base it was trained on"
        )
    return placed


def _check_shapes(
    folder: Path, placed: Mapping[tuple[Module, str], np.ndarray], flat: Mapping[tuple[str, ...], Any], rank: int
) -> None:
    wrong = []
    for (module, side), tensor in placed.items():
        inner, outer = flat[module.rule.path].shape[-2:]
        wanted = (rank, inner) if side == "A" else (outer, rank)
        if tensor.shape != wanted:
            wrong.append(f"{module.name}.lora_{side} is {tensor.shape}, rank {rank} and the base need {wanted}")
    if wrong:
        raise BadInputError(f"{folder}: the adapter and its base do not belong together: " + "; ".join(wrong[:8]))

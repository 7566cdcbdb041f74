"""``adapter_config.json`` of PEFT: which model an adapter is for, what of it is adapted, and by which options."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from urt_jax.errors import BadInputError

CONFIG_NAME = "adapter_config.json"

# What PEFT may say that changes nothing in how a trained adapter is applied. Any other option must be off.
_HARMLESS = {
    *("peft_type", "peft_version", "task_type", "base_model_name_or_path", "revision", "inference_mode"),
    *("auto_mapping", "r", "lora_alpha", "use_rslora", "target_modules", "lora_dropout", "bias", "init_lora_weights"),
    *("megatron_core", "qalora_group_size", "eva_config", "loftq_config", "ensure_weight_tying", "runtime_config"),
}
_INITS = (True, False, "gaussian", "eva")  # others change the weights of the base too


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds an adapter alone; with a config.json it is a whole model."""
    return (folder / CONFIG_NAME).is_file() and not (folder / "config.json").is_file()


def adapter_base(folder: Path) -> tuple[str, str | None]:
    """Return name or path, and revision, of the model that an adapter is for.

    Raises:
        BadInputError: adapter_config.json cannot be read or names no base.
    """
    settings = read_settings(folder)
    base = settings.get("base_model_name_or_path")
    if not base:
        raise BadInputError(
            f"{folder / CONFIG_NAME} names no base_model_name_or_path; write the name or path of the model there that "
            "the adapter was trained on"
        )
    return str(base), settings.get("revision")


def plain_lora(*, rank: int, alpha: float, modules: Sequence[str]) -> dict[str, Any]:
    """Return the settings of plain LoRA on ``modules``, whose ``{}`` stands for any layer; alpha to six digits.

    The pattern for them selects exactly these modules: PEFT matches it with all of a path, while a list of last names
    would select projections of the vision tower too.
    """
    alpha = float(f"{alpha:.6g}")
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "target_modules": "|".join(re.escape(name).replace(r"\{\}", r"\d+") for name in modules),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
        "use_dora": False,
        "use_rslora": False,
        "modules_to_save": None,
        "layers_to_transform": None,
        "rank_pattern": {},
        "alpha_pattern": {},
    }


def read_settings(folder: Path) -> dict[str, Any]:
    """Return adapter_config.json.

    Raises:
        BadInputError: it is not there, or no JSON object.
    """
    path = folder / CONFIG_NAME
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise BadInputError(f"{path}: not readable as JSON ({error}); copy the adapter's folder again") from None


def check_options(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse what is not plain LoRA.

    Raises:
        BadInputError: naming the options that are not done here, or are missing.
    """
    needed = {"peft_type": ("LORA",), "bias": ("none", None), "init_lora_weights": (*_INITS, None)}
    wrong = {key: settings.get(key) for key, known in needed.items() if settings.get(key) not in known}
    wrong |= {key: value for key, value in settings.items() if key not in _HARMLESS and value}
    wrong |= {key: settings.get(key) for key in ("r", "lora_alpha", "target_modules") if not settings.get(key)}
    if wrong:
        told = ", ".join(f"{key} = {value!r}" for key, value in wrong.items())
        raise BadInputError(
            f"{folder / CONFIG_NAME}: {told}; only plain LoRA with r, lora_alpha and target_modules is read. Merge the "
            "adapter into its base with PEFT (merge_and_unload) and load the merged model instead"
        )


def is_selected(name: str, settings: Mapping[str, Any]) -> bool:
    """Return whether PEFT's ``target_modules`` selects a module: a pattern for all of its path, or names it ends in."""
    targets = settings["target_modules"]
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith(f".{target}") for target in targets)

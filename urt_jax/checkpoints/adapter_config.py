"""PEFT's ``adapter_config.json``: the adapter's base model, its target modules, and its options."""

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from urt_jax.errors import BadInputError
from urt_jax.files.fields import Fields
from urt_jax.files.json_text import read_object

CONFIG_NAME = "adapter_config.json"

MAX_RANK = 4096  # of an adapter; a rank above the width of most layers would save nothing
MAX_PATTERN = 100_000  # characters; a pattern that names every module of a large model has some ten thousand
MAX_REPEATS = 4  # in sequence: with n of them a match of a name of length l takes at most l**n steps; names are short
# PEFT options that do not change how a trained adapter is applied. Any other option must be off.
_HARMLESS = {
    *("peft_type", "peft_version", "task_type", "base_model_name_or_path", "revision", "inference_mode"),
    *("auto_mapping", "r", "lora_alpha", "use_rslora", "target_modules", "lora_dropout", "bias", "init_lora_weights"),
    *("megatron_core", "qalora_group_size", "eva_config", "loftq_config", "ensure_weight_tying", "runtime_config"),
}
_INITS = (True, False, "gaussian", "eva")  # other initialisations also change the base's weights


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds only an adapter; with a config.json it is a whole model."""
    return (folder / CONFIG_NAME).is_file() and not (folder / "config.json").is_file()


def adapter_base(folder: Path) -> tuple[str, str | None]:
    """Return the name or path, and the revision, of an adapter's base model.

    Raises:
        BadInputError: adapter_config.json cannot be read or names no base.
    """
    settings = read_settings(folder)
    base = settings.text("base_model_name_or_path", "")
    if not base:
        raise BadInputError(
            f"{folder / CONFIG_NAME} names no base_model_name_or_path; write the name or path of the model there that "
            "the adapter was trained on"
        )
    return base, settings.text("revision", None)


def plain_lora(*, rank: int, alpha: float, modules: Sequence[str]) -> dict[str, Any]:
    """Return the settings of plain LoRA on ``modules``, whose ``{}`` stands for any layer; alpha to six digits.

    They are written as a pattern that selects exactly these modules: PEFT matches a pattern with the full path, while
    a list of last names would also select projections of the vision tower.
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


def read_settings(folder: Path) -> Fields:
    """Return adapter_config.json.

    Raises:
        BadInputError: it is missing, or not a JSON object.
    """
    path = folder / CONFIG_NAME
    return Fields(read_object(path, remedy="copy the adapter's folder again"), str(path))


def check_options(folder: Path, settings: Fields) -> None:
    """Refuse anything but plain LoRA.

    Raises:
        BadInputError: naming the options that are not supported, missing, or out of bounds.
    """
    settings.integer("r", at_least=1, at_most=MAX_RANK)
    settings.number("lora_alpha", above=0, at_most=1e9)
    if isinstance(settings.get("target_modules"), str):
        _check_pattern(settings)
    else:
        settings.texts("target_modules")
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


def _check_pattern(settings: Fields) -> None:
    """Refuse a pattern of target modules that is invalid, or that has nested repeats and so might not terminate."""
    pattern = settings.text("target_modules")
    needed = "a regular expression without repeats inside repeats, such as .*\\.(q|v)_proj"
    if len(pattern) > MAX_PATTERN:
        raise settings.refusal("target_modules", f"{needed}, of at most {MAX_PATTERN:,} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            parsed = re._parser.parse(pattern)  # type: ignore[attr-defined]
            re.compile(pattern)
    except Exception as error:
        raise settings.refusal("target_modules", f"{needed} ({error})") from None
    if _repeats(parsed) > MAX_REPEATS:
        raise settings.refusal("target_modules", needed)


def _repeats(parsed: Any) -> float:
    """Return how many unbounded repeats of a parsed pattern can match the same characters: infinite if nested."""
    found = 0.0
    for name, value in parsed:
        kind = str(name)
        if kind in ("MAX_REPEAT", "MIN_REPEAT"):
            inner = _repeats(value[2])
            found += inner if value[1] == 1 else math.inf if inner else 1
        elif kind == "POSSESSIVE_REPEAT":
            found += _repeats(value[2])
        elif kind == "BRANCH":
            found += max(_repeats(branch) for branch in value[1])
        elif kind in ("SUBPATTERN", "ATOMIC_GROUP", "ASSERT", "ASSERT_NOT"):
            found += _repeats(value[-1])
        elif kind.startswith("GROUPREF"):
            found += 1
    return found


def is_selected(name: str, settings: Mapping[str, Any]) -> bool:
    """Return whether PEFT's ``target_modules`` selects a module: a pattern for its full path, or a list of endings."""
    targets = settings["target_modules"]
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith(f".{target}") for target in targets)

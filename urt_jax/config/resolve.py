"""Conversion of a user's config to the record of its stage; all problems are reported at once."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from ml_collections import ConfigDict

from urt_jax.config.binding import bind, defaults_merged, plain
from urt_jax.config.parts import StageConfig
from urt_jax.config.stages import STAGES
from urt_jax.data.settings import DataSettings
from urt_jax.errors import BadInputError, unknown_choice

Values: TypeAlias = ConfigDict | Mapping[str, Any]  # a config file's, or plain values


def resolve(config: Values, stage: str | None = None) -> Any:
    """Check a whole config and return the record of its stage (``SftConfig``, ``GrpoConfig``, ...).

    ``stage`` is only for a config that names none.

    Raises:
        BadInputError: lists every unknown key, wrong type, value out of range, conflict of knobs and missing file.
    """
    values = plain(config)
    cls = _stage_class(values.pop("stage", stage))
    problems: list[str] = []
    resolved = bind(cls, values, "config", problems)
    if not problems:
        problems += [f"{where}: {message}" for where, message in _file_problems(resolved, "config")]
    if not problems and not resolved.workdir:
        resolved = replace(resolved, workdir=f"runs/{cls.stage}")
    if problems:
        heading = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise BadInputError(f"{heading} in the config of stage {cls.stage!r}:\n  " + "\n  ".join(problems))
    return resolved


def with_defaults(config: Values) -> dict[str, Any]:
    """Return a config as plain values with every knob of its stage, so that each can be overridden by name."""
    values = plain(config)
    stage = values.get("stage")
    given = {key: value for key, value in values.items() if key != "stage"}
    return {**defaults_merged(_stage_class(stage), given), "stage": stage}


def as_json(config: StageConfig) -> dict[str, Any]:
    """Return the settings as plain JSON values with the stage's name, the content of a run folder's ``config.json``."""
    return {"stage": config.stage, **_jsonable(dataclasses.asdict(config))}


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    return [_jsonable(item) for item in value] if isinstance(value, (list, tuple)) else value


def _stage_class(name: Any) -> type[StageConfig]:
    if not isinstance(name, str) or name not in STAGES:
        raise BadInputError("config.stage: " + unknown_choice(name, list(STAGES)))
    return STAGES[name]


def _file_problems(config: StageConfig, where: str, *, wired: bool = False) -> Iterator[tuple[str, str]]:
    """Yield the missing files that a config names; data of a pipeline's stage need not exist yet."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, DataSettings):
                found = part.template_problems() if wired else part.file_problems()
                yield from ((f"{where}.{item.name}.{key}", message) for key, message in found)
            elif isinstance(part, StageConfig):
                yield from _file_problems(part, f"{where}.{item.name}", wired=True)

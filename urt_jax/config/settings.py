"""Settings of an ablation: each is a GRPO run that changes some knobs of a shared run, within the same compute.

A run is a record with the fields of ``GrpoConfig``, which ``stages`` declares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from urt_jax.config.binding import bind, overlaid
from urt_jax.settings import Problems, knob

START = "start"  # the table's row of the model that all settings start from
_SHARED = {  # knob of a run -> knob that sets it for all runs
    "workdir": "config.workdir",
    "seed": "config.seeds",
    "eval_data": "config.grpo.eval_data",
    "lengths": "config.grpo.lengths",
}


@dataclass(frozen=True)
class SettingConfig:
    """One row of an ablation."""

    name: str = "plain"  # of the row in the table, and of the folder
    changes: dict[str, Any] = knob({})  # the knobs of the shared run that this row changes, and their values


def bind_setting(shared: Any, changes: Mapping[str, Any], problems: list[str]) -> Any:
    """Return the shared run with these changes; note every problem as ``.<knob>: ...``."""
    return bind(type(shared), overlaid(type(shared), asdict(shared), changes), "", problems)


def folder_name(name: str) -> str:
    """Return the folder name of a setting."""
    return name.replace("/", "_").replace(" ", "_")


def settings_problems(shared: Any, settings: Sequence[SettingConfig]) -> Problems:
    """Yield the problems of each setting, on its own and in conflict with the others."""
    names: dict[str, str] = {}
    for number, (name, changes) in enumerate((setting.name, setting.changes) for setting in settings):
        where = f"settings[{number}].changes"
        if not name or folder_name(name) in names:
            taken = f"would share a folder with {names[folder_name(name)]!r}" if name else "is empty"
            yield f"settings[{number}].name", f"{name!r} {taken}; make names differ in more than spaces and slashes"
        if name == START:
            yield f"settings[{number}].name", f"{name!r} is the row of the model all settings start from; give another"
        names.setdefault(folder_name(name), name)
        for key in sorted(_SHARED.keys() & changes.keys()):
            yield f"{where}.{key}", f"must be the same in all settings; give {_SHARED[key]} instead"
        found: list[str] = []
        setting = bind_setting(shared, changes, found)
        for problem in found:
            key, message = problem.split(": ", 1)
            yield where + key, message
        if not found:
            yield from ((where + key, message) for key, message in _advantages(shared, setting))
            if setting.data != shared.data:
                yield from ((f"{where}.data.{key}", message) for key, message in setting.data.file_problems())


def _advantages(shared: Any, setting: Any) -> Problems:
    """Yield a run's advantages over the shared one: another start, more samples, more training."""
    if setting.model.path != shared.model.path:
        yield ".model.path", "is another model; all settings start from config.grpo.model.path"
    for kind, rounds in (("sampled", _rollouts), ("trained on", _updates)):
        given, most = (rounds(run) * run.questions_per_step * run.responses_per_question for run in (setting, shared))
        if given > most:
            message = (
                f"{given} responses may be {kind}, by config.grpo {most}; for equal compute lower steps, questions"
            )
            yield "", f"{message}, responses, updates_per_rollout or dynamic_sampling"


def _rollouts(run: Any) -> int:
    most: int = run.steps * (1 + run.dynamic_sampling)
    return most


def _updates(run: Any) -> int:
    most: int = run.steps * run.updates_per_rollout
    return most

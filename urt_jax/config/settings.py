"""Settings of an ablation: each is a GRPO run that differs from a shared one by the knobs it names, and gets no more.

A run is any record with the fields of ``GrpoConfig``, which ``stages`` declares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from urt_jax.config.binding import bind, overlaid
from urt_jax.settings import Problems, knob

START = "start"  # the row of the model that all settings start from
_SHARED = {  # knob of a run -> where it is given for all of them
    "workdir": "config.workdir",
    "seed": "config.seeds",
    "eval_data": "config.grpo.eval_data",
    "lengths": "config.grpo.lengths",
}


@dataclass(frozen=True)
class SettingConfig:
    """One row of an ablation."""

    name: str = "plain"  # of its row in the table, and of its folder
    changes: dict[str, Any] = knob({})  # knobs of the shared run that it sets to something else


def bind_setting(shared: Any, changes: Mapping[str, Any], problems: list[str]) -> Any:
    """Return the shared run with these knobs changed; note every problem as ``.<knob>: ...``."""
    return bind(type(shared), overlaid(type(shared), asdict(shared), changes), "", problems)


def folder_name(name: str) -> str:
    """Return the folder of a setting."""
    return name.replace("/", "_").replace(" ", "_")


def settings_problems(shared: Any, settings: Sequence[SettingConfig]) -> Problems:
    """Yield what is wrong with each setting, alone or beside the others."""
    names: dict[str, str] = {}
    for number, (name, changes) in enumerate((setting.name, setting.changes) for setting in settings):
        where = f"settings[{number}].changes"
        if not name or folder_name(name) in names:
            taken = f"would share a folder with {names[folder_name(name)]!r}" if name else "is empty"
            yield f"settings[{number}].name", f"{name!r} {taken}; name settings apart, by more than spaces and slashes"
        if name == START:
            yield f"settings[{number}].name", f"{name!r} is the row of the model all settings start from; give another"
        names.setdefault(folder_name(name), name)
        for key in sorted(_SHARED.keys() & changes.keys()):
            yield f"{where}.{key}", f"is the same in all settings; give {_SHARED[key]} instead"
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
    """Yield what a run has over the shared one: another start, more samples, more learning."""
    if setting.model.path != shared.model.path:
        yield ".model.path", "is another start; all settings start from config.grpo.model.path"
    for kind, rounds in (("sampled", _rollouts), ("learnt from", _updates)):
        given, most = (rounds(run) * run.questions_per_step * run.responses_per_question for run in (setting, shared))
        if given > most:
            message = (
                f"{given} responses may be {kind}, of config.grpo {most}; for equal compute lower steps, questions"
            )
            yield "", f"{message}, responses, updates_per_rollout or dynamic_sampling"


def _rollouts(run: Any) -> int:
    most: int = run.steps * (1 + run.dynamic_sampling)
    return most


def _updates(run: Any) -> int:
    most: int = run.steps * run.updates_per_rollout
    return most

"""All knobs of a config by name, for the command line and its help.

A name is the knob's path in the config: ``config.optimizer.b2``, ``config.data[0].path``, ``config.models.base``.
"""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from urt_jax.config.binding import record_type, type_hints
from urt_jax.config.stages import STAGES

ROOT = "config"


@dataclasses.dataclass(frozen=True)
class Knob:
    """One knob, or a whole group, mapping or tuple of knobs."""

    name: str
    path: tuple[str | int, ...]  # keys and indices from the config to the knob
    hint: Any  # its declared type
    value: Any
    declared: tuple[type, str] | None = None  # record and field; None for an entry of a mapping or a tuple

    @property
    def is_group(self) -> bool:
        """Whether it is a record, whose knobs have their own names."""
        return isinstance(self.value, dict) and record_type(self.hint) is not None


def knobs(values: Mapping[str, Any]) -> list[Knob]:
    """Return all knobs of a plain config that holds all defaults; a group precedes its knobs."""
    return list(_fields(STAGES[values["stage"]], values, ROOT, ()))


def _fields(cls: type, values: Mapping[str, Any], where: str, path: tuple[str | int, ...]) -> Iterator[Knob]:
    for item in dataclasses.fields(cls):
        if item.name in values:
            knob = Knob(f"{where}.{item.name}", (*path, item.name), type_hints(cls)[item.name], values[item.name])
            yield from _knobs(dataclasses.replace(knob, declared=(cls, item.name)))


def _knobs(knob: Knob) -> Iterator[Knob]:
    """Yield a knob and all knobs inside it; records of a tuple are numbered, as in ``data[0]``, a single one is not."""
    yield knob
    record, value = record_type(knob.hint), knob.value
    if record and isinstance(value, dict):
        yield from _fields(record, value, knob.name, knob.path)
    elif record and isinstance(value, tuple | list):
        for n, part in enumerate(value):
            yield from _knobs(Knob(f"{knob.name}[{n}]", (*knob.path, n), record, part))
    elif isinstance(value, dict):
        inner = (*typing.get_args(knob.hint), Any, Any)[1]
        for key, part in value.items():
            yield from _knobs(Knob(f"{knob.name}.{key}", (*knob.path, key), inner, part))

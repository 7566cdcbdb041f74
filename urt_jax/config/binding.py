"""Bind a user's ``ConfigDict`` to frozen records, collecting every problem instead of stopping at the first."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, Union

from ml_collections import ConfigDict

from urt_jax.errors import MAX_NAME, shown, unknown_choice
from urt_jax.files.json_text import well_formed
from urt_jax.settings import out_of_bounds

_BAD = object()  # a value that could not be converted; its problem has been noted
_SET_BY_PARENT = ("workdir", "seed")  # of a stage inside another stage
KIND_NAMES: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
MAX_WHOLE = 2**53  # no count comes near it, and every program that reads a run's JSON holds it


def plain(value: Any) -> Any:
    """Return a ``ConfigDict`` as plain dicts, tuples and lists, all the way down."""
    if isinstance(value, (ConfigDict, Mapping)):
        return {str(key): plain(value[key]) for key in value}
    if isinstance(value, (tuple, list)):
        return type(value)(plain(item) for item in value)
    return value


@cache
def type_hints(cls: type) -> dict[str, Any]:
    """Return the types that the fields of a record are declared with."""
    return typing.get_type_hints(cls)


def overlaid(cls: type, values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a record with ``changes`` in their place, group by group; all else is replaced whole."""
    hints, merged = type_hints(cls), dict(values)
    for key, value in changes.items():
        hint = hints.get(key)
        groups = _is_record(hint) and isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = overlaid(typing.cast(type, hint), merged[key], value) if groups else value
    return merged


def record_type(hint: Any) -> type | None:
    """Return the record that a knob is declared to hold, alone or several in a tuple; None of any other type."""
    inner = typing.get_args(hint)
    several = typing.get_origin(hint) is tuple and _is_record(inner[0])
    return typing.cast(type, inner[0] if several else hint) if several or _is_record(hint) else None


def optional_type(hint: Any) -> Any:
    """Return the type beside None of a knob that may be None; None where it may not."""
    if typing.get_origin(hint) not in (types.UnionType, Union):
        return None
    return next(kind for kind in typing.get_args(hint) if kind is not type(None))


def _is_record(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def bind(cls: type, values: dict[str, Any], where: str, problems: list[str]) -> Any:
    """Make a record of type ``cls`` from plain values; note every problem as ``<where>.<key>: ...``.

    A record with a method ``problems()`` is asked for clashes between its knobs once all its values are sound.
    """
    noted = len(problems)
    hints = type_hints(cls)
    fields = {item.name: item for item in dataclasses.fields(cls)}
    for key in values.keys() - fields.keys():
        problems.append(f"{where}.{key[:MAX_NAME]}: " + unknown_choice(key, list(fields)))
    given: dict[str, Any] = {}
    for name, item in fields.items():
        if name not in values:
            continue
        value = _convert(values[name], hints[name], f"{where}.{name}", problems)
        if value is _BAD:
            continue
        if told := out_of_bounds(value, item.metadata):
            problems.append(f"{where}.{name}: {told}")
        else:
            given[name] = value
    record = cls(**given)
    if len(problems) == noted and hasattr(record, "problems"):
        problems.extend(f"{where}.{key}: {message}" for key, message in record.problems())
    return record


def defaults_merged(cls: type, values: Mapping[str, Any], default: Any = None) -> dict[str, Any]:
    """Return ``values`` with every knob of ``cls`` they leave out; unknown keys stay for ``bind`` to report.

    ``default`` is the record whose values fill the gaps (fresh defaults of ``cls`` when None).
    """
    default = cls() if default is None else default
    hints = type_hints(cls)
    merged: dict[str, Any] = {}
    for item in dataclasses.fields(cls):
        value = values.get(item.name, getattr(default, item.name))
        merged[item.name] = _merge_value(value, hints[item.name], getattr(default, item.name))
        within = values.get(item.name, {})
        if hasattr(hints[item.name], "stage") and isinstance(within, dict):
            for key in _SET_BY_PARENT:
                if key not in within:
                    del merged[item.name][key]
    return {**merged, **{key: value for key, value in values.items() if key not in merged}}


def _merge_value(value: Any, hint: Any, default: Any) -> Any:
    record = record_type(hint)
    if record is None:
        return value
    if isinstance(value, record):  # a default
        return defaults_merged(record, {}, value)
    if hint is record:
        return defaults_merged(record, value, default) if isinstance(value, dict) else value
    if isinstance(value, dict):
        return defaults_merged(record, value, default[0] if default else None)
    if not isinstance(value, tuple | list):
        return value
    parts = tuple(_merge_value(part, record, None) for part in value)
    return parts[0] if len(parts) == 1 and isinstance(parts[0], dict) else parts


def _convert(value: Any, hint: Any, where: str, problems: list[str]) -> Any:
    """Return the value in the annotated type, or ``_BAD`` after noting why not."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if _is_record(hint):
        return _convert_record(value, hint, where, problems)
    if (kind := optional_type(hint)) is not None:
        return None if value is None else _convert(value, kind, where, problems)
    if origin is Literal:
        if value in inner:
            return value
        problems.append(f"{where}: " + unknown_choice(value, [str(choice) for choice in inner]))
        return _BAD
    if origin is tuple:
        parts = (value,) if isinstance(value, dict) and _is_record(inner[0]) else value
        if not isinstance(parts, (tuple, list)):
            return _wrong_type(value, "a tuple, e.g. ('...',)", where, problems)
        items = [_convert(part, inner[0], f"{where}[{n}]", problems) for n, part in enumerate(parts)]
        return _BAD if any(item is _BAD for item in items) else tuple(items)
    if hint is Any:  # of a dict whose entries the record that holds it binds itself
        return value
    if origin is dict:
        if not isinstance(value, dict):
            return _wrong_type(value, "a dict", where, problems)
        entries = {
            key: _convert(part, inner[1], f"{where}.{str(key)[:MAX_NAME]}", problems) for key, part in value.items()
        }
        unfit = {key: told for key in value if (told := _unfit(key))}
        problems.extend(f"{where}: has a key {shown(key)}, which holds {told}" for key, told in unfit.items())
        return _BAD if unfit or any(part is _BAD for part in entries.values()) else entries
    if type(value) is int and abs(value) > MAX_WHOLE:
        problems.append(f"{where}: got {_digits(value)}, must be at most {MAX_WHOLE:,}")
        return _BAD
    if hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if hint is str and type(value) is str and (told := _unfit(value)):
        problems.append(f"{where}: got {shown(value)}, which holds {told}; leave it out")
        return _BAD
    return value if type(value) is hint and hint is not float else _wrong_type(value, KIND_NAMES[hint], where, problems)


def _convert_record(value: Any, cls: type, where: str, problems: list[str]) -> Any:
    if not isinstance(value, dict):
        return _wrong_type(value, "a group of knobs", where, problems)
    value = dict(value)
    if hasattr(cls, "stage"):
        stage = value.pop("stage", cls.stage)
        if stage != cls.stage:
            problems.append(f"{where}.stage: is {shown(stage)}, this place takes the settings of stage {cls.stage!r}")
        for key in _SET_BY_PARENT:
            if value.pop(key, None) is not None:
                problems.append(f"{where}.{key}: is set by the enclosing stage; give config.{key} instead")
    return bind(cls, value, where, problems)


def _wrong_type(value: Any, needed: str, where: str, problems: list[str]) -> Any:
    problems.append(f"{where}: got {shown(value)} ({type(value).__name__}), needs {needed}")
    return _BAD


def _digits(value: int) -> str:
    """Return a whole number, or of a very large one its size: its digits may be more than Python writes."""
    return f"{value:,}" if value.bit_length() < 200 else f"a whole number of {value.bit_length():,} bits"


def _unfit(text: str) -> str | None:
    """Return what of a text neither a file nor a file's name can hold."""
    if "\0" in text:
        return "a zero byte"
    return "half of a surrogate pair (text that is not UTF-8)" if well_formed(text) != text else None

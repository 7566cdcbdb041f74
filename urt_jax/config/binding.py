"""Binding of a user's ``ConfigDict`` to frozen records; it collects all problems instead of stopping at the first."""

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
_SET_BY_PARENT = ("workdir", "seed")  # knobs of a nested stage that the enclosing stage sets
KIND_NAMES: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
MAX_WHOLE = 2**53  # far above every count, and exact in every program that reads a run's JSON


def plain(value: Any) -> Any:
    """Return a ``ConfigDict`` as plain dicts, tuples and lists, at every depth."""
    if isinstance(value, (ConfigDict, Mapping)):
        return {str(key): plain(value[key]) for key in value}
    if isinstance(value, (tuple, list)):
        return type(value)(plain(item) for item in value)
    return value


@cache
def type_hints(cls: type) -> dict[str, Any]:
    """Return the declared types of a record's fields."""
    return typing.get_type_hints(cls)


def overlaid(cls: type, values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's values with ``changes`` merged in: groups knob by knob, all other values replaced whole."""
    hints, merged = type_hints(cls), dict(values)
    for key, value in changes.items():
        hint = hints.get(key)
        groups = _is_record(hint) and isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = overlaid(typing.cast(type, hint), merged[key], value) if groups else value
    return merged


def record_type(hint: Any) -> type | None:
    """Return the record type of a knob that holds one record or a tuple of them; None for any other type."""
    inner = typing.get_args(hint)
    several = typing.get_origin(hint) is tuple and _is_record(inner[0])
    return typing.cast(type, inner[0] if several else hint) if several or _is_record(hint) else None


def optional_type(hint: Any) -> Any:
    """Return ``X`` for a knob of type ``X | None``; None for a knob that cannot be None."""
    if typing.get_origin(hint) not in (types.UnionType, Union):
        return None
    return next(kind for kind in typing.get_args(hint) if kind is not type(None))


def _is_record(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def bind(cls: type, values: dict[str, Any], where: str, problems: list[str]) -> Any:
    """Make a record of type ``cls`` from plain values; note every problem as ``<where>.<key>: ...``.

    If all values are valid and the record has a method ``problems()``, the conflicts between knobs that it yields are
    noted too.
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
    """Return ``values`` with every missing knob of ``cls`` filled in; unknown keys stay, and ``bind`` reports them.

    ``default`` is the record that provides the missing values (None: the defaults of ``cls``).
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
    """Return the value converted to the annotated type, or ``_BAD`` after noting the problem."""
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
    if hint is Any:  # an entry of a dict that its record binds itself
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
            problems.append(f"{where}.stage: is {shown(stage)}; this group holds the settings of stage {cls.stage!r}")
        for key in _SET_BY_PARENT:
            if value.pop(key, None) is not None:
                problems.append(f"{where}.{key}: is set by the enclosing stage; give config.{key} instead")
    return bind(cls, value, where, problems)


def _wrong_type(value: Any, needed: str, where: str, problems: list[str]) -> Any:
    problems.append(f"{where}: got {shown(value)} ({type(value).__name__}), needs {needed}")
    return _BAD


def _digits(value: int) -> str:
    """Return a whole number as text, or the size of a very large one, which may have more digits than Python prints."""
    return f"{value:,}" if value.bit_length() < 200 else f"a whole number of {value.bit_length():,} bits"


def _unfit(text: str) -> str | None:
    """Name the characters of a text that neither a file nor a file name can hold; None if it has none."""
    if "\0" in text:
        return "a zero byte"
    return "half of a surrogate pair (text that is not UTF-8)" if well_formed(text) != text else None

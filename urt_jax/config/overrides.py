"""Overrides of knobs from the command line: each value is parsed by the knob's declared type and replaces the file's.

1. The name is looked up among all knobs; the message about an unknown one gives the nearest.
2. A text is taken verbatim; a number, a mapping, a tuple or a group is parsed as a Python literal.
3. A mapping or a tuple replaces the current one; a group changes the knobs that it names; an entry may be added to a
   mapping.

``resolve`` checks the values afterwards, like those of a file.
"""

import ast
import difflib
import typing
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from urt_jax.config.binding import optional_type, overlaid, plain, record_type
from urt_jax.config.knobs import ROOT, Knob, knobs
from urt_jax.config.resolve import with_defaults
from urt_jax.errors import MAX_NAME, BadInputError, nearest, shown, unknown_choice

OPTIONS = ("--config", "--workdir", "--distributed", "--help")  # of the command line, beside the knobs
MAX_LITERAL = 50_000  # characters of a value that is parsed as a Python literal
MAX_DEPTH = 12  # levels of nested brackets in a literal
_TRUTH = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_CLOSE = 0.6  # similarity of names, from 0 to 1, from which a name is suggested
_SIBLING = 0.1  # added to the similarity of a knob in the same group


def override(config: dict[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """Return a config with ``--config.<knob>=<value>`` arguments applied in their order.

    Args:
        config: plain values with all defaults, from ``with_defaults``; it is not changed.
        arguments: the command-line arguments that set knobs.

    Raises:
        BadInputError: an argument names no knob or has no value, a value is not a literal, or it would discard the
            value of an earlier argument.
    """
    seen: list[str] = []
    for argument in arguments:
        name, equals, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--"):
            raise BadInputError(
                f"argument {shown(argument)} is not understood; knobs are given as --config.<knob>=<value>"
            )
        if name == f"{ROOT}.stage":
            raise BadInputError(f"{ROOT}.stage is set by the config file; give --config the file of another stage")
        known = {knob.name: knob for knob in knobs(config)}
        knob = known.get(name) or _new_entry(name, known)
        if knob is None:
            raise BadInputError(f"argument {shown(argument)}: " + _unknown(name, list(known.values())))
        if not equals:
            raise BadInputError(f"argument {shown(argument)} has no value; write {argument}=<value>")
        _check_order(knob, seen)
        seen.append(name)
        config = with_defaults(_put(config, knob.path, _merged(knob, _read(text, knob.hint, argument))))
    return config


def _new_entry(name: str, known: Mapping[str, Knob]) -> Knob | None:
    """Return the entry that a name adds to a mapping; None if it names no mapping."""
    above, _, key = name.rpartition(".")
    mapping = known.get(above)
    if mapping is None or typing.get_origin(mapping.hint) is not dict or not key:
        return None
    return Knob(name, (*mapping.path, key), typing.get_args(mapping.hint)[1], None)


def _check_order(knob: Knob, seen: Sequence[str]) -> None:
    """Refuse a mapping or a tuple that would discard an earlier argument's change of an entry."""
    lost = [name for name in seen if name == knob.name or name.startswith((f"{knob.name}.", f"{knob.name}["))]
    if lost and isinstance(knob.value, dict | tuple | list) and not _is_one_record(knob):
        told = f"--{knob.name} is given after --{lost[0]}, which it would replace"
        raise BadInputError(f"{told}; give the whole value once, and changes of its entries after it")


def _merged(knob: Knob, given: Any) -> Any:
    """Return the new value of a knob; a record keeps the knobs that the given mapping does not name."""
    if not (_is_one_record(knob) and isinstance(given, dict)):
        return given
    return overlaid(knob.hint, knob.value, given)


def _is_one_record(knob: Knob) -> bool:
    return isinstance(knob.value, dict) and record_type(knob.hint) is knob.hint


def _put(values: Any, path: Sequence[str | int], new: Any) -> Any:
    """Return a copy of nested dicts and tuples with one value replaced."""
    if not path:
        return new
    key, *below = path
    if isinstance(values, dict):
        return {**values, key: _put(values.get(key), below, new)}
    return tuple(_put(part, below, new) if n == key else part for n, part in enumerate(values))


def _read(text: str, hint: Any, argument: str) -> Any:
    """Parse an override's text by its knob's type; text that is not a literal stays a text if the knob accepts one."""
    if (kind := optional_type(hint)) is not None:
        return None if text == "None" else _read(text, kind, argument)
    origin = typing.get_origin(hint)
    if hint is str or origin is Literal:
        return text
    if hint is bool:
        return _TRUTH.get(text.lower(), text)
    several = origin is tuple and record_type(hint) is None
    try:
        value = _literal(text)
    except BadInputError as error:
        one_word = several and not set(text) & set(", '\"")
        if not one_word and hint not in (int, float, Any):
            raise BadInputError(f"argument {shown(argument, 120)}: {error}; write {how_to_write(hint)}") from None
        value = text
    return (value,) if several and not isinstance(value, tuple | list | dict | set) else value


def _literal(text: str) -> Any:
    """Return the value of a Python literal.

    Raises:
        BadInputError: the text is not a literal, too long, or nested too deeply.
    """
    if len(text) > MAX_LITERAL:
        raise BadInputError(f"the value has {len(text):,} characters, at most {MAX_LITERAL:,} are allowed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # "\d" in a regular expression
            warnings.simplefilter("ignore", DeprecationWarning)
            value = plain(ast.literal_eval(text))
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        told = error.msg if isinstance(error, SyntaxError) else "names and calls are not allowed"
        raise BadInputError(f"the value is not a Python literal ({told})") from None
    if _depth(value) > MAX_DEPTH:
        raise BadInputError(f"the value has more than {MAX_DEPTH} levels of nested brackets")
    return value


def _depth(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else None
    return 0 if parts is None else 1 + max(map(_depth, parts), default=0)


def how_to_write(hint: Any) -> str:
    """Return the command-line form of a mapping, a tuple or a group; "" for any other type."""
    inner = typing.get_args(hint)
    if record_type(hint) is not None:
        return "\"({'<knob>': <value>, ...}, ...)\"" if inner else "\"{'<knob>': <value>, ...}\""
    if typing.get_origin(hint) is dict:
        return "\"{'<name>': '<value>', ...}\"" if inner[1] is str else "\"{'<name>': <value>, ...}\""
    if typing.get_origin(hint) is tuple:
        return '"(1, 2)"' if inner[0] is int else "\"('a', 'b')\""
    return ""


def _unknown(name: str, known: Sequence[Knob]) -> str:
    """Return the message about an unknown knob: the nearest names, and the knobs of the same group."""
    if name != ROOT and not name.startswith((f"{ROOT}.", f"{ROOT}[")):
        near = nearest(f"--{name}", OPTIONS)[:1] or [f"--{knob}" for knob in _meant(name, known)]
        return unknown_choice(name, (*OPTIONS, f"--{ROOT}.<knob>"), near)
    above = [knob for knob in known if knob.is_group and name.startswith((f"{knob.name}.", f"{knob.name}["))]
    level = max((knob.path for knob in above), key=len, default=())
    keys = sum(isinstance(part, str) for part in level) + 1
    beside = [
        knob
        for knob in known
        if knob.path[: len(level)] == level and sum(isinstance(part, str) for part in knob.path) == keys
    ]
    listed = sorted((f"{knob.name}.*" if knob.is_group else knob.name for knob in beside), key=lambda told: "*" in told)
    return unknown_choice(name[:MAX_NAME], listed, _meant(name, known))


def _meant(name: str, known: Sequence[Knob], most: int = 3) -> list[str]:
    """Return the knobs of any group whose last part is most similar to the last part of a name."""
    group, _, last = name[:MAX_NAME].rpartition(".")
    likeness: dict[str, float] = {}
    for knob in known:
        above, _, part = knob.name.rpartition(".")
        swapped = sorted(part) == sorted(last)  # swapped letters, the commonest typing error
        likeness[knob.name] = max(_alike(part, last), 0.9 * swapped) + _SIBLING * (above == group)
    best = max(likeness.values(), default=0.0)
    near = [knob for knob, value in likeness.items() if value >= max(best - 1e-9, _CLOSE)]
    found = sorted(near, key=lambda knob: -_alike(knob, name[:MAX_NAME]))[:most]
    return found or (_meant(group, known) if "." in group else [])


def _alike(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()

"""Strict reading of JSON and YAML: bytes in, plain values out, every flaw a clear error.

JSON goes through Python's own parser, with further checks. pydantic 2.13 and msgspec 0.20 parse faster, but both keep
the last of duplicate keys silently. Their schemas suit files of our own; most files read here are foreign, with
spellings of several versions and keys we do not use, and need messages that say what to do. What would remain of those
libraries is bounds checking, which takes a hundred lines (``files.fields``).
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from urt_jax.errors import BadInputError, shown
from urt_jax.files.reading import SETTINGS_BYTES, read_whole

MAX_DEPTH = 100  # levels of lists and objects; published files have fewer than 10, Python's own writer fails at 1,000
YAML_BYTES = 1 << 20  # of a mixture file: a thousand entries have 0.1 MB, and PyYAML reads some 0.5 MB a second
_HALF_PAIR = re.compile("[\ud800-\udfff]")


class JsonError(ValueError):
    """The bytes are not valid strict JSON; the message gives the position, not the file."""


def parse_json(data: bytes | str, *, mend: Callable[[str], str] | None = None) -> Any:
    """Parse JSON bytes (UTF-8, with or without a byte order mark) or text.

    ``mend`` is applied to every text and key before they are checked: ``well_formed`` for a reply that was paid for and
    cannot be requested again.

    Raises:
        JsonError: not UTF-8, not JSON, nested deeper than ``MAX_DEPTH``, a duplicate key in an object, or half a
            surrogate pair in a text, which no file could hold.
    """
    text = _text(data)
    value = _loaded(text, _STRICT)
    if text.count("{") + text.count("[") > MAX_DEPTH:
        _check_depth(value)
    if mend is not None:
        value = with_texts(value, mend)
    if "\\u" in text or isinstance(data, str):
        _check_pairs(value)
    return value


def parse_items(data: bytes) -> list[Any]:
    """Parse a JSON list; an item that ``parse_json`` would refuse is replaced by its ``JsonError``.

    Raises:
        JsonError: not UTF-8, not JSON, not a list, or nested too deep for Python's parser.
    """
    doubled: list[dict[str, Any]] = []

    def noted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            doubled.append(made)
        return made

    text = _text(data)
    items = _loaded(text, json.JSONDecoder(object_pairs_hook=noted))
    if not isinstance(items, list):
        raise JsonError(f"{shown(items)} where a JSON list is needed")
    flawed = {id(made) for made in doubled}
    for n, item in enumerate(items):
        try:
            _check_depth(item)
            if flawed and _holds(item, flawed):
                raise JsonError("a key appears twice in one object")
            if "\\u" in text:
                _check_pairs(item)
        except JsonError as error:
            items[n] = error
    return items


def parse_object(data: bytes | str, *, mend: Callable[[str], str] | None = None) -> dict[str, Any]:
    """Parse a JSON object; see ``parse_json``.

    Raises:
        JsonError: as ``parse_json``, or the value is not an object.
    """
    value = parse_json(data, mend=mend)
    if not isinstance(value, dict):
        raise JsonError(f"{shown(value)} where a JSON object is needed")
    return value


def read_json(path: str | Path, *, most: int | None = SETTINGS_BYTES, remedy: str = "copy the file again") -> Any:
    """Return the value of a JSON file of at most ``most`` bytes.

    Raises:
        BadInputError: the file is missing, cannot be read, or ``parse_json`` refuses it; ``remedy`` says what to do.
    """
    try:
        return parse_json(read_whole(path, most=most))
    except JsonError as error:
        raise BadInputError(f"{path}: {error}; {remedy}") from None


def read_object(path: str | Path, *, remedy: str = "copy the file again") -> dict[str, Any]:
    """Return the object of a JSON file; see ``read_json``.

    Raises:
        BadInputError: as ``read_json``, or the value is not an object.
    """
    value = read_json(path, remedy=remedy)
    if not isinstance(value, dict):
        raise BadInputError(f"{path}: {shown(value)} where a JSON object is needed; {remedy}")
    return value


def whole_lines(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number from 1, object) of each complete line of a JSONL file that a run writes line by line.

    Raises:
        BadInputError: ``parse_object`` refuses a line; names file and line.
    """
    content = read_whole(path, most=None)
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].split(b"\n")[:-1], start=1):
        try:
            yield number, parse_object(line)
        except JsonError as error:
            raise BadInputError(
                f"{path} line {number}: {error}; the file was damaged after it was written: remove the line, or "
                "give another --workdir"
            ) from None


def read_yaml(path: str | Path) -> Any:
    """Return the value of a YAML file: plain types only, no duplicate keys.

    Raises:
        BadInputError: the file cannot be read, is not UTF-8, not YAML, nested deeper than ``MAX_DEPTH``, or holds half
            a surrogate pair or a reference (``*name``).
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """SafeLoader that refuses duplicate keys, and references, a few of which can expand to gigabytes."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise JsonError("a reference (*name) is not supported; write out its value")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if twice := next((key for n, key in enumerate(keys) if key in keys[:n]), None):
                raise JsonError(f"the key {shown(twice)} appears twice in one mapping")
            return super().construct_mapping(node, deep)

    try:
        text = read_whole(path, most=YAML_BYTES).decode("utf-8-sig")
        _check_brackets(text)
        value = yaml.load(text, Loader)
        _check_depth(value)
        _check_pairs(value)
    except RecursionError:
        raise BadInputError(f"{path}: nested deeper than {MAX_DEPTH} levels; fix it") from None
    except (ValueError, yaml.YAMLError, TypeError, AttributeError) as error:  # a date out of range, an unhashable key
        if isinstance(error, BadInputError):
            raise
        raise BadInputError(f"{path}: not readable as YAML ({' '.join(str(error).split())[:300]}); fix it") from None
    return value


def _check_brackets(text: str) -> None:
    """Refuse too deeply nested brackets before PyYAML parses them: some thousands would take it minutes."""
    level = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        level = max(level + (1 if bracket in "[{" else -1), 0)
        if level > MAX_DEPTH:
            raise JsonError(f"nested deeper than {MAX_DEPTH} levels")


def well_formed(text: str) -> str:
    """Replace each half surrogate pair of a text, so that the text can be encoded."""
    return _HALF_PAIR.sub("\ufffd", text)


def with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return a JSON value with ``change`` applied to every text and key."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {with_texts(key, change): with_texts(item, change) for key, item in value.items()}
    return [with_texts(item, change) for item in value] if isinstance(value, list | tuple) else value


def _text(data: bytes | str) -> str:
    try:
        return data if isinstance(data, str) else data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise JsonError(f"not UTF-8: byte {error.start} is 0x{data[error.start]:02x}") from None


def _loaded(text: str, decoder: json.JSONDecoder) -> Any:
    try:
        return decoder.decode(text)
    except RecursionError:
        raise JsonError(f"nested deeper than {MAX_DEPTH} levels") from None
    except JsonError:
        raise
    except ValueError as error:  # a JSONDecodeError, or a number of more digits than Python reads
        raise JsonError(f"not JSON: {error}") from None


def _holds(value: Any, searched: set[int]) -> bool:
    """Return whether a value is, or holds, one of the objects with these ids."""
    if isinstance(value, dict):
        return id(value) in searched or any(_holds(item, searched) for item in value.values())
    return isinstance(value, list) and any(_holds(item, searched) for item in value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for n, key in enumerate(keys) if key in keys[:n])
        raise JsonError(f"the key {shown(twice)} appears twice in one object")
    return made


_STRICT = json.JSONDecoder(object_pairs_hook=_object)  # made once: making one takes as long as parsing a short line


def _check_depth(value: Any) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH + 1):
        if not level:
            return
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is dict or type(child) is list
        ]
    raise JsonError(f"nested deeper than {MAX_DEPTH} levels")


def _check_pairs(value: Any) -> None:
    """Refuse half a surrogate pair in any text or key."""
    if isinstance(value, str):
        if half := _HALF_PAIR.search(value):
            raise JsonError(f"a text holds half of a surrogate pair (\\u{ord(half[0]):04x}): {shown(value[:40])}")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_pairs(key)
            _check_pairs(item)
    elif isinstance(value, list):
        for item in value:
            _check_pairs(item)

"""Raw records of a file, each with the place it came from."""

from __future__ import annotations

import difflib
import json
import math
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urt_jax.errors import BadInputError

_STRATEGY = re.compile(r"(all)|(first|end|random):(\d+(?:\.\d+)?%|\d+)")
_MIXTURE_KEYS = ("json_path", "sampling_strategy", "image_folder")


class RecordError(BadInputError):
    """One bad record; ``reason`` is the short name it is counted under when a pool is filtered."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Record:
    """One record as it stands in its file; ``fields`` is the error text where the line is no JSON object."""

    fields: dict[str, Any] | str
    where: str  # "train.jsonl line 7" or "train.json record 7"
    default_id: str
    media_root: Path


def list_records(path: str | Path, *, media_root: str | Path | None, seed: int) -> list[Record]:
    """Return the records of a ``.json``, ``.jsonl`` or mixture ``.yaml`` file, in order.

    Raises:
        BadInputError: missing file, unknown kind of file, or a file that is broken as a whole.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInputError(f"data file {path}: no such file; give the path of a .json, .jsonl or .yaml file")
    if path.suffix in (".yaml", ".yml"):
        return _mixture(path, media_root=media_root, seed=seed)
    root = path.parent if media_root is None else Path(media_root)
    if path.suffix == ".json":
        return _json_list(path, root)
    if path.suffix == ".jsonl":
        return _json_lines(path, root)
    raise BadInputError(f"data file {path}: {path.suffix or 'no'} ending; known are .json, .jsonl, .yaml and .yml")


def _json_list(path: Path, root: Path) -> list[Record]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInputError(
            f"data file {path}: not readable as JSON ({error}); mend it, or write one record a line as .jsonl"
        ) from error
    if not isinstance(content, list):
        raise BadInputError(f"data file {path}: holds a JSON {type(content).__name__}, needed a list of records")
    return [
        Record(
            fields=fields if isinstance(fields, dict) else f"a {type(fields).__name__} instead of a JSON object",
            where=f"{path} record {n}",
            default_id=f"{path.stem}:{n}",
            media_root=root,
        )
        for n, fields in enumerate(content, start=1)
    ]


def _json_lines(path: Path, root: Path) -> list[Record]:
    records = []
    # Split at line feeds alone: other line separators may stand inside a JSON string.
    for n, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip():
            records.append(
                Record(
                    fields=_parse_line(line), where=f"{path} line {n}", default_id=f"{path.stem}:{n}", media_root=root
                )
            )
    return records


def _parse_line(line: bytes) -> dict[str, Any] | str:
    try:
        fields = json.loads(line)
    except ValueError as error:
        return f"not readable as JSON ({error})"
    return fields if isinstance(fields, dict) else f"a {type(fields).__name__} instead of a JSON object"


def _mixture(path: Path, *, media_root: str | Path | None, seed: int) -> list[Record]:
    """Read every data set of a mixture; its paths are relative to the mixture file's folder."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise BadInputError(f"mixture {path}: not readable as YAML ({error})") from error
    entries = content.get("datasets") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadInputError(f"mixture {path}: needed 'datasets:', a list of entries with {', '.join(_MIXTURE_KEYS)}")
    records = []
    for n, entry in enumerate(entries, start=1):
        where = f"mixture {path} entry {n}"
        for key in entry:
            if key not in _MIXTURE_KEYS:
                raise BadInputError(f"{where}: unknown key {key!r}{_nearest(str(key), _MIXTURE_KEYS)}")
        if "json_path" not in entry:
            raise BadInputError(f"{where}: json_path is missing")
        folder = entry.get("image_folder")
        source = path.parent / str(entry["json_path"])
        root = path.parent / str(folder) if folder else media_root
        found = list_records(source, media_root=root, seed=seed)
        strategy = str(entry.get("sampling_strategy", "all"))
        records += [found[i] for i in _choose(strategy, len(found), rng=random.Random(f"{seed}:{n}"), where=where)]
    return records


def _choose(strategy: str, total: int, *, rng: random.Random, where: str) -> list[int]:
    """Return the record numbers that a sampling strategy takes, ascending; no more than there are."""
    match = _STRATEGY.fullmatch(strategy.replace(" ", ""))
    if match is None:
        raise BadInputError(
            f"{where}: sampling_strategy {strategy!r}; known are all, first:N, end:N and random:N, N a number or N%"
            + _nearest(strategy.split(":")[0], ("all", "first", "end", "random"))
        )
    if match[1]:
        return list(range(total))
    share = match[3]
    count = math.ceil(total * float(share[:-1]) / 100) if share.endswith("%") else int(share)
    count = min(count, total)
    if match[2] == "first":
        return list(range(count))
    if match[2] == "end":
        return list(range(total - count, total))
    return sorted(rng.sample(range(total), count))


def _nearest(given: str, known: tuple[str, ...]) -> str:
    """Return the known names and, where one is close, a question."""
    close = difflib.get_close_matches(given, known, n=1)
    return f" (known: {', '.join(known)}" + (f"; did you mean {close[0]}?)" if close else ")")

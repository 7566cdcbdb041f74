"""Raw records of a file, each with the place it came from."""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urt_jax.errors import BadInputError, shown, unknown_choice
from urt_jax.files.fields import Fields
from urt_jax.files.json_text import JsonError, parse_object, read_json, read_yaml
from urt_jax.files.reading import read_whole

_STRATEGIES = ("all", "first", "end", "random")
_STRATEGY = re.compile(r"(all)|(first|end|random):([0-9]{1,12}(?:\.[0-9]{1,12})?%|[0-9]{1,12})")
MAX_MIXTURES = 8  # inside each other
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


def list_records(path: str | Path, *, media_root: str | Path | None, seed: int, depth: int = 0) -> list[Record]:
    """Return the records of a ``.json``, ``.jsonl`` or mixture ``.yaml`` file, in order.

    ``depth`` counts the mixtures around this file.

    Raises:
        BadInputError: missing file, unknown kind of file, or a file that is broken as a whole.
    """
    path = Path(path)
    if path.suffix not in (".json", ".jsonl", ".yaml", ".yml"):
        raise BadInputError(
            f"data file {shown(str(path), 300)}: {shown(path.suffix) if path.suffix else 'no'} ending; known are "
            ".json, .jsonl, .yaml and .yml"
        )
    if path.suffix in (".yaml", ".yml"):
        return _mixture(path, media_root=media_root, seed=seed, depth=depth)
    root = path.parent if media_root is None else Path(media_root)
    return _json_list(path, root) if path.suffix == ".json" else _json_lines(path, root)


def _json_list(path: Path, root: Path) -> list[Record]:
    content = read_json(path, most=None, remedy="mend it, or write one record a line as .jsonl")
    if not isinstance(content, list):
        raise BadInputError(f"data file {path}: holds {shown(content)}, needed a list of records")
    return [
        Record(
            fields=fields if isinstance(fields, dict) else f"{shown(fields)} instead of a JSON object",
            where=f"{path} record {n}",
            default_id=f"{path.stem}:{n}",
            media_root=root,
        )
        for n, fields in enumerate(content, start=1)
    ]


def _json_lines(path: Path, root: Path) -> list[Record]:
    records = []
    # Split at line feeds alone: other line separators may stand inside a JSON string.
    for n, line in enumerate(read_whole(path, most=None).split(b"\n"), start=1):
        if line.strip():
            records.append(
                Record(
                    fields=_parse_line(line), where=f"{path} line {n}", default_id=f"{path.stem}:{n}", media_root=root
                )
            )
    return records


def _parse_line(line: bytes) -> dict[str, Any] | str:
    try:
        return parse_object(line)
    except JsonError as error:
        return str(error)


def _mixture(path: Path, *, media_root: str | Path | None, seed: int, depth: int) -> list[Record]:
    """Read every data set of a mixture; its paths are relative to the mixture file's folder."""
    if depth > MAX_MIXTURES:
        raise BadInputError(
            f"mixture {path}: more than {MAX_MIXTURES} mixtures inside each other; does it name itself?"
        )
    content = read_yaml(path)
    entries = content.get("datasets") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadInputError(f"mixture {path}: needed 'datasets:', a list of entries with {', '.join(_MIXTURE_KEYS)}")
    records = []
    for n, entry in enumerate(entries, start=1):
        fields = Fields(entry, f"mixture {path} entry {n}")
        for key in entry:
            if key not in _MIXTURE_KEYS:
                raise BadInputError(f"{fields.where}: key {unknown_choice(key, _MIXTURE_KEYS)}")
        folder = fields.text("image_folder", None)
        source = path.parent / fields.text("json_path")
        root = path.parent / folder if folder else media_root
        found = list_records(source, media_root=root, seed=seed, depth=depth + 1)
        strategy = fields.text("sampling_strategy", "all")
        chosen = _choose(strategy, len(found), rng=random.Random(f"{seed}:{n}"), where=fields.where)
        records += [found[i] for i in chosen]
    return records


def _choose(strategy: str, total: int, *, rng: random.Random, where: str) -> list[int]:
    """Return the record numbers that a sampling strategy takes, ascending; no more than there are."""
    match = _STRATEGY.fullmatch(strategy.replace(" ", ""))
    if match is None:
        raise BadInputError(
            f"{where}: sampling_strategy {shown(strategy)}: {unknown_choice(strategy.split(':')[0], _STRATEGIES)}; "
            "write all, first:N, end:N or random:N, N a number or N%"
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

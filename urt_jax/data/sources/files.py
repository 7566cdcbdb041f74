"""The raw records of a file, each with its location."""

from __future__ import annotations

import math
import os
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urt_jax.errors import BadInputError, did_you_mean, shown, unknown_choice
from urt_jax.files.fields import Fields
from urt_jax.files.json_text import JsonError, parse_items, parse_object, read_yaml
from urt_jax.files.reading import read_whole

MAX_MIXTURE_FILES = 1000  # that one mixture reads, including nested mixtures, which could multiply without end
MAX_MIXTURE_DEPTH = 8  # mixtures within mixtures; published ones name record files only
MAX_ENTRIES = 1000  # of one mixture
_STRATEGY = re.compile(r"(all)|(first|end|random):([0-9]{1,12}(?:\.[0-9]{1,12})?%|[0-9]{1,12})")
_MIXTURE_KEYS = ("json_path", "sampling_strategy", "image_folder", "first_label")


class RecordError(BadInputError):
    """One bad record; ``reason`` is the short name under which filtering a pool counts it."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Record:
    """One record as in its file; ``fields`` is the error text if the line is not a JSON object."""

    fields: dict[str, Any] | str
    where: str  # "train.jsonl line 7" or "train.json record 7"
    default_id: str
    media_root: Path
    first_label: int = 1  # number of the first candidate in its labels


def list_records(path: str | Path, *, media_root: str | Path | None, seed: int, first_label: int = 1) -> list[Record]:
    """Return the records of a ``.json``, ``.jsonl`` or mixture ``.yaml`` file, in order.

    Raises:
        BadInputError: missing file, unknown kind of file, or a file that cannot be parsed.
    """
    return _Reading(seed).records(Path(path), media_root, first_label, ())


class _Reading:
    """One read of a file, including the files that it names."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._left = MAX_MIXTURE_FILES

    def records(self, path: Path, root: str | Path | None, first_label: int, within: tuple[str, ...]) -> list[Record]:
        """Return the records of a file; ``within`` are the mixtures that contain it, the outermost first."""
        if path.suffix in (".yaml", ".yml"):
            return self._mixture(path, root, first_label, within)
        folder = path.parent if root is None else Path(root)
        if path.suffix == ".json":
            return _json_list(path, folder, first_label)
        if path.suffix == ".jsonl":
            return _json_lines(path, folder, first_label)
        _content(path)  # a missing file is reported as missing
        raise BadInputError(f"data file {path}: {path.suffix or 'no'} ending; known are .json, .jsonl, .yaml and .yml")

    def _mixture(self, path: Path, root: str | Path | None, first_label: int, within: tuple[str, ...]) -> list[Record]:
        """Read every data set of a mixture; its paths are relative to the mixture file's folder."""
        content = read_yaml(path)
        found = content.get("datasets") if isinstance(content, dict) else None
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise BadInputError(
                f"mixture {path}: needed 'datasets:', a list of entries with {', '.join(_MIXTURE_KEYS)}"
            )
        if len(found) > MAX_ENTRIES:
            raise BadInputError(f"mixture {path}: {len(found):,} entries; at most {MAX_ENTRIES:,} are read")
        within = (*within, os.path.realpath(path))
        records: list[Record] = []
        for n, values in enumerate(found, start=1):
            entry = Fields(values, f"mixture {path} entry {n}")
            for key in values:
                if key not in _MIXTURE_KEYS:
                    raise BadInputError(f"{entry.where}: key {unknown_choice(key, _MIXTURE_KEYS)}")
            source, folder = path.parent / entry.text("json_path"), entry.text("image_folder", None)
            if _real(source, entry.where) in within:
                raise BadInputError(f"{entry.where}: json_path {source} names a mixture that contains it; remove it")
            if len(within) > MAX_MIXTURE_DEPTH or self._left == 0:
                raise BadInputError(
                    f"{entry.where}: a mixture may name mixtures {MAX_MIXTURE_DEPTH} deep and read "
                    f"{MAX_MIXTURE_FILES:,} files in all; this one does more"
                )
            self._left -= 1
            first = entry.integer("first_label", first_label, at_most=1)
            listed = self.records(source, path.parent / folder if folder else root, first, within)
            draw = random.Random(f"{self._seed}:{n}")
            strategy = entry.text("sampling_strategy", "all")
            records += [listed[i] for i in _choose(strategy, len(listed), rng=draw, where=entry.where)]
        return records


def _real(path: Path, where: str) -> str:
    try:
        return os.path.realpath(path)
    except ValueError as error:  # a NUL byte
        raise BadInputError(f"{where}: json_path {shown(str(path))} names no file ({error})") from None


def _content(path: Path) -> bytes:
    try:
        return read_whole(path, most=None)
    except BadInputError as error:
        raise BadInputError(f"data file {error}; give the path of a .json, .jsonl or .yaml file") from None


def _json_list(path: Path, root: Path, first_label: int) -> list[Record]:
    try:
        items = parse_items(_content(path))
    except JsonError as error:
        raise BadInputError(f"data file {path}: {error}; fix it, or write one record a line as .jsonl") from None
    return [
        Record(_object_or_flaw(item), f"{path} record {n}", f"{path.stem}:{n}", root, first_label)
        for n, item in enumerate(items, start=1)
    ]


def _json_lines(path: Path, root: Path, first_label: int) -> list[Record]:
    # Split at line feeds only: a JSON string may contain other line separators.
    return [
        Record(_parse_line(line), f"{path} line {n}", f"{path.stem}:{n}", root, first_label)
        for n, line in enumerate(_content(path).split(b"\n"), start=1)
        if line.strip()
    ]


def _parse_line(line: bytes) -> dict[str, Any] | str:
    try:
        return parse_object(line)
    except JsonError as error:
        return str(error)


def _object_or_flaw(item: Any) -> dict[str, Any] | str:
    if isinstance(item, dict):
        return item
    return str(item) if isinstance(item, JsonError) else f"{shown(item)} where a JSON object is needed"


def _choose(strategy: str, total: int, *, rng: random.Random, where: str) -> list[int]:
    """Return the ascending record numbers that a sampling strategy selects, at most ``total`` of them."""
    match = _STRATEGY.fullmatch(strategy.replace(" ", ""))
    if match is None:
        raise BadInputError(
            f"{where}: sampling_strategy {shown(strategy)}; known are all, first:N, end:N and random:N, N a number or "
            "N%" + did_you_mean(strategy.partition(":")[0], ("all", "first", "end", "random"))
        )
    if match[1]:
        return list(range(total))
    share = match[3]
    if share.endswith("%") and float(share[:-1]) > 100:
        raise BadInputError(f"{where}: sampling_strategy {shown(strategy)} takes more than 100 %")
    count = math.ceil(total * float(share[:-1]) / 100) if share.endswith("%") else int(share)
    count = min(count, total)
    if match[2] == "first":
        return list(range(count))
    if match[2] == "end":
        return list(range(total - count, total))
    return sorted(rng.sample(range(total), count))

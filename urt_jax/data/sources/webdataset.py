"""Rows of webdataset tar files: the members of one base name are a row, its ``.json`` the fields."""

from __future__ import annotations

import bisect
import glob
import re
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any

from urt_jax.data.containers import VIDEO_SUFFIXES
from urt_jax.data.sources.archives import members
from urt_jax.data.sources.files import Record
from urt_jax.data.sources.rows import Rows
from urt_jax.data.stored import Stored
from urt_jax.errors import BadInputError
from urt_jax.files.json_text import JsonError, parse_object

_BRACES = re.compile(r"\{([0-9]+)\.\.([0-9]+)\}")
PICTURES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tiff", ".tif", ".ppm", ".avif"))
MAX_SHARDS = 100_000
Sample = dict[str, Stored]  # member by its ending, such as "json", "0.jpg"


def shards(path: str) -> list[str]:
    """Return the tar files of a path, a pattern, or a name with a range such as ``pool-{000..127}.tar``.

    Raises:
        BadInputError: there is none, or the range is empty or too long.
    """
    found = _BRACES.search(path)
    if found is None:
        files = sorted(glob.glob(path)) if glob.has_magic(path) else [path]
    else:
        first, last = int(found[1]), int(found[2])
        if not 0 <= last - first < MAX_SHARDS:
            raise BadInputError(f"data files {path}: the range {found[0]} has no or more than {MAX_SHARDS:,} numbers")
        width = len(found[1])
        files = [path[: found.start()] + str(n).zfill(width) + path[found.end() :] for n in range(first, last + 1)]
    if not files:
        raise BadInputError(f"data files {path}: there is none; give a .tar file, a pattern, or a range {{000..127}}")
    return files


class TarRows(Rows):
    """The rows of several tar files, a block each; members are read by their places when they are asked for."""

    def __init__(self, files: list[str], *, first_label: int) -> None:
        self._files, self._first_label = files, first_label
        self._samples = [_samples(file) for file in files]
        self.blocks = [len(samples) for samples in self._samples]
        self._ends = list(accumulate(self.blocks))

    def at(self, number: int) -> Record:
        """Return row ``number``, from 0, with members in place of their names."""
        block = bisect.bisect_right(self._ends, number)
        key, sample = self._samples[block][number - (self._ends[block - 1] if block else 0)]
        file = self._files[block]
        fields = _fields(sample)
        return Record(fields, f"{file}:{key}", f"{Path(file).stem}:{key}", Path(file), self._first_label)


def _samples(file: str) -> list[tuple[str, Sample]]:
    """Return the rows of a file by key, in order of first appearance."""
    found: dict[str, Sample] = {}
    for name, member in members(file).items():
        folder, base = str(PurePosixPath(name).parent), PurePosixPath(name).name
        stem, _, ending = base.partition(".")
        key = stem if folder == "." else f"{folder}/{stem}"
        found.setdefault(key, {})[ending.lower()] = member
    return list(found.items())


def _fields(sample: Sample) -> dict[str, Any] | str:
    """Return the fields of the row's json; pictures and clips of the row are its media unless the json lists them."""
    fields: dict[str, Any] = {}
    if "json" in sample:
        try:
            fields = parse_object(sample["json"].read())
        except JsonError as error:
            return str(error)
    if "txt" in sample:
        fields.setdefault("caption", sample["txt"].read().decode(errors="replace").strip())
    by_kind: dict[str, list[Stored]] = {
        "images": [sample[ending] for ending in sorted(sample) if f".{ending.rpartition('.')[2]}" in PICTURES],
        "videos": [sample[ending] for ending in sorted(sample) if f".{ending.rpartition('.')[2]}" in VIDEO_SUFFIXES],
    }
    named = any(name in fields for name in ("images", "image", "videos", "video"))
    return fields | ({} if named else {name: found for name, found in by_kind.items() if found})

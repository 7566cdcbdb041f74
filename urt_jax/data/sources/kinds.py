"""The kinds of sources that ``data.path`` can name, and how each is opened."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from urt_jax.data.sources.files import list_records
from urt_jax.data.sources.rows import ListedRows, Rows
from urt_jax.errors import BadInputError

TABLES = (".parquet", ".arrow")


@dataclass(frozen=True)
class Opening:
    """What a source is opened with: ``media_root`` is a folder or an archive of relative media paths."""

    path: str
    media_root: Path | None
    seed: int
    first_label: int


@dataclass(frozen=True)
class Kind:
    """A kind of source: how ``data.path`` names it, whether a path does, and what opens it."""

    form: str
    fits: Callable[[str], bool]
    open: Callable[[Opening], Rows]


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _listed(asked: Opening) -> Rows:
    root = asked.media_root
    return ListedRows(list_records(asked.path, media_root=root, seed=asked.seed, first_label=asked.first_label))


def _csv(asked: Opening) -> Rows:
    from urt_jax.data.sources.tables import csv_rows  # loads pyarrow

    path = Path(asked.path)
    root = path.parent if asked.media_root is None else asked.media_root
    return ListedRows(csv_rows(path, root=root, first_label=asked.first_label))


def _tables(asked: Opening) -> Rows:
    from urt_jax.data.sources.tables import TableRows, table_files

    files = table_files(asked.path)
    return TableRows(files, root=asked.media_root, first_label=asked.first_label, name=Path(files[0]).stem)


def _tars(asked: Opening) -> Rows:
    from urt_jax.data.sources.webdataset import TarRows, shards

    return TarRows(shards(asked.path), first_label=asked.first_label)


def _hub(asked: Opening) -> Rows:
    from urt_jax.data.sources.hub import hub_rows

    return hub_rows(asked.path, first_label=asked.first_label)


def _tfds(asked: Opening) -> Rows:
    from urt_jax.data.sources.tfds import TfdsRows, split_of

    folder, split = split_of(asked.path)
    return TfdsRows(folder, split, root=asked.media_root, first_label=asked.first_label)


def _is_tables(path: str) -> bool:
    if _ending(path) in TABLES:
        return True
    return os.path.isdir(path) and any(glob.glob(os.path.join(glob.escape(path), f"*{kind}")) for kind in TABLES)


KINDS: tuple[Kind, ...] = (
    Kind("hf:org/name[@revision][:config][/split]", lambda path: path.startswith("hf:"), _hub),
    Kind("tfds:folder/split", lambda path: path.startswith("tfds:"), _tfds),
    Kind(".json, .jsonl, a mixture .yaml", lambda path: _ending(path) in (".json", ".jsonl", ".yaml", ".yml"), _listed),
    Kind(".csv", lambda path: _ending(path) == ".csv", _csv),
    Kind(".parquet or .arrow, a folder or a pattern of them", _is_tables, _tables),
    Kind("webdataset .tar, a pattern or {000..127}", lambda path: _ending(path) == ".tar", _tars),
)
FORMS = "; ".join(kind.form for kind in KINDS)


def is_there(path: str) -> bool:
    """Return whether a path names a file, a folder, a pattern or a range that is there; the hub is not asked."""
    if path.startswith("tfds:"):
        return os.path.isdir(path.removeprefix("tfds:").rpartition("/")[0])
    return path.startswith("hf:") or os.path.exists(path) or (("{" in path or glob.has_magic(path)) and _finds(path))


def _finds(path: str) -> bool:
    from urt_jax.data.sources.webdataset import shards

    try:
        return os.path.exists(shards(path)[0])
    except BadInputError:
        return False


def open_rows(path: str | Path, *, media_root: str | Path | None = None, seed: int = 0, first_label: int = 1) -> Rows:
    """Return the rows of a source of any kind.

    Raises:
        BadInputError: no such source, an unknown kind, or a file that cannot be read.
    """
    asked = Opening(str(path), None if media_root is None else Path(media_root), seed, first_label)
    for kind in KINDS:
        if kind.fits(asked.path):
            return kind.open(asked)
    if not os.path.exists(asked.path):
        raise BadInputError(f"data file {path}: there is no such file; give {FORMS}")
    raise BadInputError(f"data file {path}: {_ending(asked.path) or 'no'} ending; known are {FORMS}")

"""Checksums of the files in a folder that this project wrote, checked when the folder is read.

They are zlib's CRC-32: they detect accidental damage, not tampering. At some 4 GB a second CRC-32 is hidden behind
reading the files; a cryptographic hash at 1 to 2 GB a second would slow it down.
"""

import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from urt_jax.errors import BadInputError
from urt_jax.files.fields import Fields
from urt_jax.files.json_text import read_object
from urt_jax.files.reading import open_regular

SUMS_NAME = "checksums.json"
MAX_FILES = 100_000  # in a folder's list
LARGE_BYTES = 1 << 24  # larger files are checked in parallel with reading
_CHUNK_BYTES = 1 << 22
_REMEDY = "copy the folder again, or delete checksums.json if its files were changed on purpose"


def write_sums(folder: Path) -> None:
    """Write ``checksums.json`` for all files of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS_NAME)
    sums = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "crc32": f"{crc32(path):08x}"}
        for path in files
    }
    (folder / SUMS_NAME).write_text(json.dumps({"files": sums}, indent=1) + "\n", encoding="utf-8")


def crc32(path: Path) -> int:
    """Return the CRC-32 of a file.

    Raises:
        OSError, BadInputError: the file cannot be read.
    """
    found = 0
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            found = zlib.crc32(chunk, found)
    return found


@contextmanager
def checked(folder: Path) -> Iterator[None]:
    """Check the files of a folder that the block reads: small ones before the block, large ones in parallel with it.

    A folder without ``checksums.json``, written elsewhere, is not checked.

    Raises:
        BadInputError: a file is missing or its checksum differs; names the file.
    """
    files = _listed(folder)
    large = {name: stated for name, stated in files.items() if stated[0] > LARGE_BYTES}
    for name, stated in files.items():
        if name not in large:
            _check(folder, name, stated)
    found: list[Exception] = []
    beside = threading.Thread(target=_check_all, args=(folder, large, found), daemon=True)
    beside.start()
    try:
        yield
    except BadInputError:
        beside.join()
        if found:  # reading a damaged file can raise anything: report the damage instead
            raise found[0] from None
        raise
    beside.join()
    if found:
        raise found[0]


def _listed(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and checksum of every listed file."""
    path = folder / SUMS_NAME
    if not path.is_file():
        return {}
    files = Fields(read_object(path, remedy=_REMEDY), str(path)).group("files")
    if len(files) > MAX_FILES:
        raise BadInputError(f"{path}: {len(files):,} files, at most {MAX_FILES:,} are listed; {_REMEDY}")
    listed = {}
    for name in files:
        one = files.group(name)
        try:
            listed[name] = one.integer("bytes", at_most=2**62), int(one.text("crc32"), 16)
        except ValueError as error:
            raise BadInputError(f"{path}: {error if isinstance(error, BadInputError) else name}; {_REMEDY}") from None
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BadInputError(f"{path}: {name!r} lies outside the folder; {_REMEDY}")
    return listed


def _check_all(folder: Path, files: dict[str, tuple[int, int]], found: list[Exception]) -> None:
    try:
        for name, stated in files.items():
            _check(folder, name, stated)
    except Exception as error:
        found.append(error)


def _check(folder: Path, name: str, stated: tuple[int, int]) -> None:
    path = folder / name
    if not path.is_file():
        raise BadInputError(f"{path}: it is listed in {SUMS_NAME} but missing; {_REMEDY}")
    if path.stat().st_size != stated[0] or crc32(path) != stated[1]:
        raise BadInputError(f"{path}: it is not as it was written (its checksum differs); {_REMEDY}")

"""Media inside zip and tar archives, read in place: nothing is unpacked."""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from urt_jax.data.media_bytes import MAX_MEDIA_BYTES
from urt_jax.data.stored import Stored
from urt_jax.errors import BadInputError, shown

ARCHIVES = (".zip", ".tar")
# What zipfile raises for a broken, encrypted or oddly compressed member.
BROKEN = (OSError, RuntimeError, KeyError, NotImplementedError, EOFError, ValueError, zipfile.BadZipFile, zlib.error)
MAX_MEMBERS = 20_000_000  # of one archive; published ones have some hundred thousand


@dataclass(frozen=True)
class ZipMember(Stored):
    """A member of a zip archive."""

    archive: str
    name: str

    def __str__(self) -> str:
        return f"{self.archive}:{self.name}"

    def read(self) -> bytes:
        """Return the member's bytes."""
        try:
            return _opened(self.archive, *_state(self.archive)).read(self.name)
        except (
            OSError,
            RuntimeError,
            KeyError,
            NotImplementedError,
            zipfile.BadZipFile,
            EOFError,
            ValueError,
        ) as error:
            raise BadInputError(f"{self}: the archive cannot be read ({error}); fetch it again") from None


@dataclass(frozen=True)
class TarMember(Stored):
    """A member of an uncompressed tar archive: ``size`` bytes from ``offset`` on."""

    archive: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.archive}:{self.name}"

    def read(self) -> bytes:
        """Return the member's bytes."""
        try:
            with open(self.archive, "rb") as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise BadInputError(f"{self}: the archive cannot be read ({error.strerror})") from None
        if len(content) < self.size:
            raise BadInputError(
                f"{self}: the archive ends after {len(content):,} of {self.size:,} bytes; fetch it again"
            )
        return content


def members(archive: str | Path) -> Mapping[str, Stored]:
    """Return the files of an archive by name.

    Raises:
        BadInputError: it is no such archive, is compressed as a whole or encrypted, or holds a link, a member outside
            its own folder, or one of more bytes than are read of a medium.
    """
    path = str(archive)
    return _members(path, *_state(path))


def beside(folder: str | Path) -> list[str]:
    """Return the archives that lie in a folder."""
    return _beside(str(folder), os.stat(folder).st_mtime_ns)


@lru_cache(64)
def _beside(folder: str, changed: int) -> list[str]:
    return sorted(str(path) for path in Path(folder).iterdir() if path.suffix.lower() in ARCHIVES and path.is_file())


def _state(path: str) -> tuple[int, int]:
    """Return what changes with a file: the time of its last change, and its size."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise BadInputError(f"archive {path} cannot be read ({error.strerror}); give a .zip or .tar file") from None
    return found.st_mtime_ns, found.st_size


@lru_cache(8)
def _opened(path: str, changed: int, size: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


@lru_cache(16)
def _members(path: str, changed: int, size: int) -> Mapping[str, Stored]:
    try:
        if path.lower().endswith(".zip"):
            return _zip_members(path, _opened(path, changed, size))
        with tarfile.open(path, "r:") as file:
            return _tar_members(path, file)
    except (zipfile.BadZipFile, tarfile.TarError, OSError, EOFError) as error:
        raise BadInputError(
            f"archive {path} cannot be read ({error}); give a .zip or an uncompressed .tar file, and fetch it again if "
            "it was cut"
        ) from None


def _zip_members(path: str, file: zipfile.ZipFile) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    for info in file.infolist()[: MAX_MEMBERS + 1]:
        if info.is_dir():
            continue
        if stat.S_ISLNK(info.external_attr >> 16):
            raise BadInputError(f"archive {path}: {shown(info.filename)} is a link; pack the files themselves")
        if info.flag_bits & 1:
            raise BadInputError(f"archive {path}: {shown(info.filename)} is encrypted; unpack it and give the folder")
        found[_checked(path, info.filename, info.file_size)] = ZipMember(path, info.filename)
    return _bounded(path, found)


def _tar_members(path: str, file: tarfile.TarFile) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    for info in file:
        if info.isdir():
            continue
        if not info.isreg():
            raise BadInputError(f"archive {path}: {shown(info.name)} is a link or a device; pack the files themselves")
        found[_checked(path, info.name, info.size)] = TarMember(path, info.name, info.offset_data, info.size)
        if len(found) > MAX_MEMBERS:
            break
    return _bounded(path, found)


def _bounded(path: str, found: dict[str, Stored]) -> dict[str, Stored]:
    if len(found) > MAX_MEMBERS:
        raise BadInputError(f"archive {path} has more than {MAX_MEMBERS:,} members; split it")
    return found


def _checked(path: str, name: str, size: int) -> str:
    """Return a member's name without a leading ``./``, after a look at where it lies and how large it is."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[0] == "/" or ".." in parts or ":" in parts[0]:
        raise BadInputError(
            f"archive {path}: member {shown(name)} lies outside its folder; pack it again with plain names"
        )
    if size > MAX_MEDIA_BYTES:
        raise BadInputError(
            f"archive {path}: member {shown(name)} has {size:,} bytes; at most {MAX_MEDIA_BYTES:,} are read"
        )
    return "/".join(parts)

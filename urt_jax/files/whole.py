"""Atomic writes: a file or folder is either complete or absent, even if the process is killed or the disk is full."""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from urt_jax.files.checksums import SUMS_NAME, write_sums

_UNFINISHED_FILE = re.compile(r"\..+\.[0-9]+\.tmp")
_UNFINISHED_FOLDER = re.compile(r"\.unfinished-[0-9]+")


def write_whole(path: str | Path, content: bytes | str, *, durable: bool = False) -> None:
    """Write a file atomically: to a temporary file beside it, which is renamed, or removed on failure.

    ``durable`` waits until the content is on the disk itself: for the few files that must survive a power cut.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def remove_unfinished(folder: str | Path) -> None:
    """Remove the temporary files and folders that a killed process left below ``folder``, where no other writes."""
    for path in list(Path(folder).rglob(".*")):
        if _UNFINISHED_FILE.fullmatch(path.name):
            path.unlink(missing_ok=True)
        elif _UNFINISHED_FOLDER.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def whole_folder(folder: str | Path, *, last: str, replaced: Sequence[str] = ()) -> Iterator[Path]:
    """Yield a temporary folder to write files into; at the end they move to ``folder``, all or none, with checksums.

    ``last`` names the file that makes a folder valid ("config.json"): an old one is removed before the first file is
    replaced, and the new one is moved last. Older files that match the globs ``replaced`` are removed, others stay. A
    failed write leaves no trace.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".unfinished-{os.getpid()}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        yield unfinished
        write_sums(unfinished)
        written = sorted(path.relative_to(unfinished) for path in unfinished.rglob("*") if path.is_file())
        for name in (SUMS_NAME, last):
            (folder / name).unlink(missing_ok=True)
        for stale in (path for pattern in replaced for path in folder.glob(pattern)):
            stale.unlink(missing_ok=True)
        for path in sorted(written, key=lambda path: path.name == last):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (unfinished / path).replace(folder / path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)

"""Files and folders that are either whole or not there, whenever the process is killed or the disk runs full."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from urt_jax.files.checksums import SUMS_NAME, write_sums


def write_whole(path: str | Path, content: bytes | str, *, durable: bool = False) -> None:
    """Write a file beside its place, then rename it; what could not be written to its end is removed again.

    ``durable`` waits until the content is on the disk itself: for the few files that must outlast a power cut.

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


@contextmanager
def whole_folder(folder: str | Path, *, last: str, replaced: Sequence[str] = ()) -> Iterator[Path]:
    """Yield an empty folder to write files into, which are then in ``folder``, with checksums, all of them or none.

    ``last`` names the file without which a folder is nothing ("config.json"): an older one is taken away before the
    first file is replaced, the new one comes when all others are there. Files of earlier times that ``replaced``
    (globs) matches go, all others stay. What could not be written to its end leaves no trace.

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

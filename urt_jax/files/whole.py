"""Files that are either whole or not there, whenever the process is killed or the disk runs full."""

import os
from pathlib import Path


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

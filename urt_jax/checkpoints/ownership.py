"""One run folder, one owner: a lock that a process holds until it ends, however it ends.

POSIX record locks (``fcntl.lockf``): they go with their process, a ``kill -9`` included, are not handed on to its
children, and reach over NFS where the server keeps locks. Of several processes of one run the first holds it for all.
"""

import atexit
import errno
import fcntl
import json
import logging
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from urt_jax.errors import BadInputError, shown
from urt_jax.files.json_text import JsonError, parse_object

LOCK_NAME = ".owner"  # hidden: a folder with nothing else is still an empty one
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_held: dict[Path, TextIO] = {}
_log = logging.getLogger(__name__)


def own(folder: Path) -> None:
    """Make this process the owner of a run folder until ``release`` or its end; again is the same.

    On a disk without locks it says so once and goes on.

    Raises:
        BadInputError: another process owns it; says which, where and since when.
        OSError: the folder cannot be written.
    """
    folder = folder.resolve()
    if folder in _held:
        return
    file = (folder / LOCK_NAME).open("a+", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = _told(file)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            file.close()
            raise BadInputError(
                f"{folder} belongs to a run that goes on ({owner}); wait for it, stop it, or give another --workdir"
            ) from None
        if error.errno not in _NO_LOCKS:
            file.close()
            raise
        _log.warning("%s lies on a disk without locks (%s): take care that one run alone writes there", folder, error)
    _held[folder] = file
    file.seek(0)
    file.truncate()
    file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%F %T %z")}))
    file.flush()


def release() -> None:
    """Let go of all run folders of this process."""
    while _held:
        _, file = _held.popitem()
        with suppress(OSError):
            file.truncate(0)
        file.close()


def _told(file: TextIO) -> str:
    """Return what the owner wrote of itself."""
    file.seek(0)
    try:
        owner = parse_object(file.read(4096))
    except (JsonError, OSError):
        return "of an unknown process"
    return ", ".join(f"{name} {shown(owner.get(name), 60)}" for name in ("host", "pid", "since"))


atexit.register(release)

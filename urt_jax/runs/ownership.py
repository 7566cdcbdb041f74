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
_held: dict[Path, TextIO] = {}  # run folders that this process owns
_below: dict[Path, TextIO] = {}  # run folders that it does not own and writes below
_log = logging.getLogger(__name__)


def own(folder: Path) -> None:
    """Make this process the owner of a run folder until ``release`` or its end; again is the same.

    Run folders above it (a pipeline's, above its stages') cannot get another owner meanwhile. On a disk without locks
    it says so once and goes on.

    Raises:
        BadInputError: another process owns it or a run folder above it; says which, where and since when.
        OSError: the folder cannot be written.
    """
    folder = folder.resolve()
    if folder in _held:
        return
    for above in folder.parents:
        if above not in _held and above not in _below and (above / LOCK_NAME).is_file():
            _below[above] = _locked(above, fcntl.LOCK_SH)
    if folder in _below:
        _below.pop(folder).close()
    file = _locked(folder, fcntl.LOCK_EX)
    try:
        file.seek(0)
        file.truncate()
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%F %T %z")}))
        file.flush()
    except OSError:  # a full disk: closing says so once more
        with suppress(OSError):
            file.close()
        raise
    _held[folder] = file


def release() -> None:
    """Let go of all run folders of this process."""
    while _held:
        _, file = _held.popitem()
        with suppress(OSError):
            file.truncate(0)
        with suppress(OSError):
            file.close()
    while _below:
        _below.popitem()[1].close()


def _locked(folder: Path, kind: int) -> TextIO:
    """Return the lock file of a run folder, locked: alone, or beside others that write below it.

    Raises:
        BadInputError: another process holds it otherwise.
        OSError: it cannot be opened.
    """
    file = (folder / LOCK_NAME).open("a+" if kind == fcntl.LOCK_EX else "r", encoding="utf-8")
    try:
        fcntl.lockf(file, kind | fcntl.LOCK_NB)
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
    return file


def _told(file: TextIO) -> str:
    """Return what the owner wrote of itself."""
    file.seek(0)
    try:
        owner = parse_object(file.read(4096))
    except (JsonError, OSError):
        return "of an unknown process, or of a stage alone below it"
    return ", ".join(f"{name} {shown(owner.get(name), 60)}" for name in ("host", "pid", "since"))


atexit.register(release)

"""One run folder, one owner: a lock that a process holds until it ends, however it ends.

It is a POSIX record lock (``fcntl.lockf``): it ends with its process, even at ``kill -9``, is not inherited by
children, and works over NFS if the server supports locks. The first process of a run holds it for all.
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

LOCK_NAME = ".owner"  # hidden: a folder with no other file still counts as empty
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_held: dict[Path, TextIO] = {}  # run folders that this process owns
_below: dict[Path, TextIO] = {}  # run folders above the owned ones, locked as shared
_log = logging.getLogger(__name__)


def own(folder: Path) -> None:
    """Make this process the owner of a run folder until ``release`` or its end; a second call does nothing.

    Run folders above it (that of a pipeline, above those of its stages) cannot get another owner meanwhile. On a disk
    without locks it warns and continues.

    Raises:
        BadInputError: another process owns it or a run folder above it; names host, process and start time.
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
    except OSError:  # a full disk: closing raises again
        with suppress(OSError):
            file.close()
        raise
    _held[folder] = file


def release() -> None:
    """Release all run folders of this process."""
    while _held:
        _, file = _held.popitem()
        with suppress(OSError):
            file.truncate(0)
        with suppress(OSError):
            file.close()
    while _below:
        _below.popitem()[1].close()


def _locked(folder: Path, kind: int) -> TextIO:
    """Return the lock file of a run folder, locked: exclusively, or shared with others that write below it.

    Raises:
        BadInputError: another process holds a conflicting lock.
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
                f"{folder} belongs to a run in progress ({owner}); wait for it, stop it, or give another --workdir"
            ) from None
        if error.errno not in _NO_LOCKS:
            file.close()
            raise
        _log.warning("%s is on a disk without locks (%s): make sure that only one run writes there", folder, error)
    return file


def _told(file: TextIO) -> str:
    """Return the owner's host, process and start time, as it wrote them."""
    file.seek(0)
    try:
        owner = parse_object(file.read(4096))
    except (JsonError, OSError):
        return "of an unknown process, or of a single stage below it"
    return ", ".join(f"{name} {shown(owner.get(name), 60)}" for name in ("host", "pid", "since"))


atexit.register(release)

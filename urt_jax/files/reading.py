"""Bounded reads of regular files, never of pipes or devices."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from urt_jax.errors import BadInputError, shown

# Limit for a settings file (config.json, a template, a result): the largest published one, a tokenizer's, has 20 MB.
SETTINGS_BYTES = 64 << 20


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading; links are followed.

    Raises:
        OSError: it is missing, a folder, or not readable; or its name is invalid.
        BadInputError: it is a pipe, a socket or a device, whose read might never end.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a NUL byte in the name
        raise OSError(0, str(error)) from None
    kind = os.fstat(handle).st_mode
    if stat.S_ISDIR(kind):
        os.close(handle)
        raise IsADirectoryError(21, "Is a directory", str(path))
    if not stat.S_ISREG(kind):
        os.close(handle)
        raise BadInputError(f"{shown(str(path))} is a pipe, socket or device; give a regular file")
    return os.fdopen(handle, "rb")


def read_whole(path: str | Path, *, most: int | None = SETTINGS_BYTES) -> bytes:
    """Return all bytes of a regular file of at most ``most`` bytes; None = any size.

    Raises:
        BadInputError: it cannot be read, is not a regular file, or is larger.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if most is not None and size > most:
                raise BadInputError(f"{path}: {size:,} bytes, at most {most:,} are allowed; is it the right file?")
            return file.read()
    except FileNotFoundError:
        raise BadInputError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise BadInputError(f"{shown(str(path), 200)}: cannot be read ({error.strerror}); check the path") from None

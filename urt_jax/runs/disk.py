"""Messages for disk errors that a user can fix: full, over quota, read-only, not permitted, path in use."""

import errno
from collections.abc import Iterator

# errno, message of libraries without errno, cause, remedy
_TROUBLES = (
    (errno.ENOSPC, "No space left on device", "the disk is full", "free some space"),
    (errno.EDQUOT, "Disk quota exceeded", "the disk quota is used up", "free some space or ask for more"),
    (errno.EFBIG, "File too large", "a file would be larger than allowed", "raise the file-size limit (ulimit -f)"),
    (errno.EROFS, "Read-only file system", "the file system is read-only", "give a --workdir that can be written"),
    (errno.EACCES, "Permission denied", "access is not permitted", "give a --workdir that can be written"),
    (errno.EPERM, "Operation not permitted", "access is not permitted", "give a --workdir that can be written"),
    (errno.EEXIST, "File exists", "something is in the way of a folder", "remove it"),
    (errno.ENOTDIR, "Not a directory", "something is in the way of a folder", "remove it"),
    (errno.EISDIR, "Is a directory", "a folder is in the way of a file", "remove it"),
)

SHOWN = 300  # characters of a library's message


def disk_trouble(error: BaseException) -> str | None:
    """Return the user's message for a disk error, or None if the error is of another kind.

    Libraries that write files themselves (orbax, safetensors) raise their own types, so causes and messages are
    searched too.
    """
    for cause in _causes(error):
        for number, words, what, remedy in _TROUBLES:
            refused = isinstance(cause, OSError) and cause.errno == number
            if refused or (not isinstance(cause, OSError) and words in str(cause)):
                named = (cause.filename2 or cause.filename) if isinstance(cause, OSError) else None
                where = f" ({named})" if named else ""
                said = _around(words, " ".join(str(cause).split()))
                return (
                    f"{what}{where}: {said}\n{remedy}, then call again with the same arguments: everything finished "
                    "is kept, and training resumes from its last complete checkpoint"
                )
    return None


def _around(words: str, text: str) -> str:
    """Return the part of a long message that ends with ``words``."""
    end = text.find(words) + len(words) if words in text else len(text)
    return text[:end] if end <= SHOWN else f"... {text[end - SHOWN : end]}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        cause = waiting.pop()
        if id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            members = cause.exceptions if isinstance(cause, BaseExceptionGroup) else ()
            waiting += [item for item in (cause.__context__, cause.__cause__, *members) if item is not None]

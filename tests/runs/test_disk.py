"""What a disk refused is told by what it is and what to do, whichever library met it."""

import errno
import os

import pytest

from urt_jax.runs.disk import disk_trouble


@pytest.mark.parametrize(
    ("number", "what", "remedy"),
    [
        (errno.ENOSPC, "the disk is full (/runs/a): ", "free some space, then call again"),
        (errno.EDQUOT, "the disk quota is used up (/runs/a): ", "free some space or ask for more, then"),
        (errno.EFBIG, "a file would be larger than allowed (/runs/a): ", "raise the file-size limit (ulimit -f), then"),
        (errno.EROFS, "the file system is read-only (/runs/a): ", "give a --workdir that can be written, then"),
        (errno.EEXIST, "something is in the way of a folder (/runs/a): ", "remove it, then"),
        (errno.ENOTDIR, "something is in the way of a folder (/runs/a): ", "remove it, then"),
        (errno.EISDIR, "a folder is in the way of a file (/runs/a): ", "remove it, then"),
        (errno.EACCES, "access is not permitted (/runs/a): ", "give a --workdir that can be written, then"),
    ],
)
def test_each_refusal_has_its_words(number: int, what: str, remedy: str) -> None:
    told = disk_trouble(OSError(number, os.strerror(number), "/runs/a"))
    assert told is not None
    assert told.startswith(what)
    assert f"\n{remedy}" in told
    assert "training resumes from its last complete checkpoint" in told


def test_of_a_file_that_cannot_take_its_place_the_place_is_named() -> None:
    told = disk_trouble(IsADirectoryError(errno.EISDIR, "Is a directory", "/runs/.a.tmp", None, "/runs/a"))
    assert (told or "").startswith("a folder is in the way of a file (/runs/a): ")


def test_a_library_that_raises_its_own_kind_is_understood() -> None:
    told = disk_trouble(ValueError("RESOURCE_EXHAUSTED: Error writing a/0.0: No space left on device [os_error_code]"))
    assert told is not None
    assert told.startswith("the disk is full: RESOURCE_EXHAUSTED: Error writing")


def test_the_cause_and_members_of_a_group_are_looked_at() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    outer = RuntimeError("saving failed")
    outer.__cause__ = ExceptionGroup("several", [KeyError("a"), full])
    assert disk_trouble(outer) is not None


def test_other_errors_are_not_the_disk() -> None:
    assert disk_trouble(ValueError("RESOURCE_EXHAUSTED: out of memory allocating 5 bytes")) is None
    assert disk_trouble(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a")) is None

"""Only regular files are read, and only so much of them as is meant."""

import os
from pathlib import Path

import pytest

from urt_jax.errors import BadInputError
from urt_jax.files.reading import open_regular, read_whole


def test_a_regular_file_is_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("a")
    assert read_whole(tmp_path / "link") == b"abc"
    with open_regular(tmp_path / "a") as file:
        assert file.read(2) == b"ab"


@pytest.mark.parametrize("name", ["/dev/zero", "fifo"])
def test_a_pipe_or_device_is_refused_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BadInputError, match="pipe, socket or device"):
        read_whole(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "told"),
    [("missing", "no such file"), (".", "Is a directory"), ("x" * 300, "File name too long"), ("a\0b", "null byte")],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(BadInputError, match=told):
        read_whole(tmp_path / name)


def test_a_file_larger_than_meant_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with pytest.raises(BadInputError, match="3 bytes, at most 2"):
        read_whole(tmp_path / "a", most=2)

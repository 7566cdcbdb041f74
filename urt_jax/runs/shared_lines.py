"""A file of JSON lines that several processes write, each its part of every line, joined to one file at the end.

    records/samples.jsonl           [a b c d]  [e f g h]        whole lines
    records/samples-0-of-2.jsonl    [2, [i j]]  [3, [m n]]      this process's parts of the lines after those,
    records/samples-1-of-2.jsonl    [2, [k l]]                  with the lines' numbers

A line is complete when all its parts are there; incomplete lines are written again. No line is lost or duplicated,
whenever the processes are killed and however many there are when the run resumes.
"""

import json
import os
from pathlib import Path
from typing import Any

from urt_jax.errors import BadInputError, shown
from urt_jax.files.json_text import JsonError, parse_json
from urt_jax.files.whole import write_whole
from urt_jax.runs import processes
from urt_jax.sharding.shares import Share

Line = list[Any]


class SharedLines:
    """A file whose lines are lists; every process appends its share of every line.

    Close it, or use it in a ``with``; ``joined`` closes it too.
    """

    def __init__(self, path: Path, share: Share) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        processes.of_first(lambda: _join_parts(path))
        self.lines = _whole_lines(path)  # finished by earlier calls
        self._written, self._alone = len(self.lines), processes.count() == 1
        own = path if self._alone else part_path(path, share.number, share.of)
        self._file = own.open("a", encoding="utf-8") if share.leads else None

    def __enter__(self) -> "SharedLines":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file of this process."""
        if self._file is not None:
            self._file.close()

    def append(self, part: Line) -> None:
        """Write this process's part of the next line; it survives ``kill -9``."""
        if self._file is not None:
            line = part if self._alone else [self._written, part]
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._file.flush()
        self._written += 1
        if self._alone:
            self.lines.append(part)

    def joined(self) -> list[Line]:
        """Return all lines, once every process has written its parts and the first process has joined them."""
        self.close()
        if not self._alone:
            processes.barrier()
            processes.of_first(lambda: _join_parts(self.path))
            self.lines = _whole_lines(self.path)
            if len(self.lines) != self._written:
                raise RuntimeError(
                    f"{self.path} has {len(self.lines)} lines, {self._written} were written; is it shared?"
                )
        return self.lines


def part_path(path: Path, number: int, of: int) -> Path:
    """Return the path of one process's parts of a file."""
    return path.with_name(f"{path.stem}-{number}-of-{of}{path.suffix}")


def part_paths(path: Path) -> list[Path]:
    """Return the existing parts of a file, ordered by number, whatever the number of processes that wrote them."""
    found = path.parent.glob(f"{path.stem}-*-of-*{path.suffix}")
    return sorted(found, key=lambda part: int(part.stem.split("-")[-3]))


def _join_parts(path: Path) -> None:
    """Append the lines whose parts are complete to the file, and delete the parts."""
    parts = part_paths(path)
    if not parts:
        return
    lines = _whole_lines(path)
    counts = sorted({int(part.stem.split("-")[-1]) for part in parts})
    written = [[_by_number(part_path(path, number, of)) for number in range(of)] for of in counts]
    while whole := next((of_all for of_all in written if all(len(lines) in of_one for of_one in of_all)), None):
        lines.append([item for of_one in whole for item in of_one[len(lines)]])
    write_whole(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), durable=True)
    for part in parts:
        part.unlink()


def _by_number(part: Path) -> dict[int, Line]:
    found: dict[int, Line] = {}
    for n, line in enumerate(_whole_lines(part), start=1):
        if len(line) != 2 or not isinstance(line[0], int) or not isinstance(line[1], list):
            raise BadInputError(f"{part} line {n}: {shown(line)} where [number, list] is needed; {_REMEDY}")
        found[line[0]] = line[1]
    return found


def _whole_lines(path: Path) -> list[Line]:
    """Read the lines that an earlier call finished, and truncate a half-written last one."""
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content and processes.is_first():
        os.truncate(path, len(whole))  # in place, since rewriting the file could lose all of it
    return [_line(path, n, line) for n, line in enumerate(whole.split(b"\n")[:-1], start=1)]


_REMEDY = "the file was damaged after it was written: remove the line and those after it, or give another --workdir"


def _line(path: Path, number: int, line: bytes) -> Line:
    try:
        items = parse_json(line)
    except JsonError as error:
        raise BadInputError(f"{path} line {number}: {error}; {_REMEDY}") from None
    if not isinstance(items, list):
        raise BadInputError(f"{path} line {number}: {shown(items)} where a list is needed; {_REMEDY}")
    return items

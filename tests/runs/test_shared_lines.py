"""Lines that several processes write: whole ones are kept once, whenever the processes were killed."""

import json
from pathlib import Path

import pytest

from urt_jax.runs import shared_lines
from urt_jax.runs.shared_lines import SharedLines, part_path, part_paths
from urt_jax.sharding.shares import WHOLE


def write(path: Path, *lines: object, torn: str = "") -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + torn)


def joined(path: Path) -> list[list[object]]:
    with SharedLines(path, WHOLE) as lines:
        return lines.lines


def test_one_process_appends_to_the_file_itself(tmp_path: Path) -> None:
    path = tmp_path / "records" / "lines.jsonl"
    lines = SharedLines(path, WHOLE)
    lines.append(["a", "b"])
    lines.append(["c"])
    assert lines.joined() == [["a", "b"], ["c"]]
    assert path.read_text() == '["a", "b"]\n["c"]\n'
    with SharedLines(path, WHOLE) as again:
        assert again.lines == [["a", "b"], ["c"]]
        again.append(["d"])
        assert len(again.joined()) == 3


def test_lines_of_which_all_parts_are_there_are_joined_in_the_order_of_the_processes(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    write(path, ["a", "b"])
    write(part_path(path, 0, 2), [1, ["c"]], [2, ["e"]], [3, ["g"]])
    write(part_path(path, 1, 2), [1, ["d"]], [2, ["f"]], torn='[3, ["h')
    assert joined(path) == [["a", "b"], ["c", "d"], ["e", "f"]]
    assert part_paths(path) == []
    assert [json.loads(line) for line in path.read_text().splitlines()] == joined(path)


def test_a_kill_between_joining_and_dropping_the_parts_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lines.jsonl"
    for number in (0, 1):
        write(part_path(path, number, 2), [0, [number]], [1, [number]])
    with monkeypatch.context() as patch:
        patch.setattr(shared_lines.Path, "unlink", interrupt)
        with pytest.raises(KeyboardInterrupt):
            SharedLines(path, WHOLE)
    assert len(path.read_text().splitlines()) == 2
    assert joined(path) == [[0, 1], [0, 1]]
    assert part_paths(path) == []


def test_parts_of_another_number_of_processes_are_joined_too(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    for number in range(12):
        write(part_path(path, number, 12), [0, [number]])
    for number in range(2):
        write(part_path(path, number, 2), [1, ["x" * (number + 1)]])
    write(part_path(path, 0, 3), [2, ["lost: the others wrote nothing"]])
    assert joined(path) == [list(range(12)), ["x", "xx"]]
    assert part_paths(path) == []


def interrupt(*given: object, **named: object) -> None:
    raise KeyboardInterrupt

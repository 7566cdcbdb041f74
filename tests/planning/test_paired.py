"""Programs are asked in turn, and one that ends says why."""

import sys
from pathlib import Path

import pytest

from urt_jax.planning.paired import Program, ProgramError, in_turn

COUNTER = """
import json, sys
print(json.dumps({"warm": True}), flush=True)
for n, line in enumerate(sys.stdin):
    with open(sys.argv[1], "a") as file:
        file.write(sys.argv[2])
    print(json.dumps({"n": n}), flush=True)
"""


def program(folder: Path, source: str, *arguments: str) -> Program:
    return Program([sys.executable, "-c", source, *arguments], log=folder / "program.log")


def test_every_other_round_runs_backwards(tmp_path: Path) -> None:
    order = tmp_path / "order"
    with program(tmp_path, COUNTER, str(order), "a") as one, program(tmp_path, COUNTER, str(order), "b") as other:
        assert one.ready() == other.ready() == {"warm": True}
        assert in_turn({"a": one, "b": other}, 3) == {"a": [{"n": 0}, {"n": 1}, {"n": 2}]} | {
            "b": [{"n": 0}, {"n": 1}, {"n": 2}]
        }
    assert order.read_text() == "abbaab"
    assert one._process.returncode == 0


def test_a_program_that_ends_shows_its_last_lines(tmp_path: Path) -> None:
    failing = "import sys; print('no memory left', file=sys.stderr); sys.exit(3)"
    with (
        program(tmp_path, failing) as failed,
        pytest.raises(ProgramError, match=r"exit code 3 .*program\.log:\n  no memory left"),
    ):
        failed.ready()


def test_a_program_that_ends_between_turns_is_told(tmp_path: Path) -> None:
    with program(tmp_path, "print('{}')") as brief:
        brief.ready()
        with pytest.raises(ProgramError, match="exit code 0 before it answered"):
            brief.repeat()


@pytest.mark.parametrize("answer", ["[1]", "warm", "{" * 5000, "NULL"])
def test_a_program_that_answers_no_object_is_told(tmp_path: Path, answer: str) -> None:
    with program(tmp_path, f"print({answer!r})") as odd, pytest.raises(ProgramError, match=r"answered .*see .*\.log"):
        odd.ready()

"""Whatever comes in ends as a result, a counted skip or a clear error: never as a trace, a hang or a full memory.

``URT_FUZZ_SEED`` (1) and ``URT_FUZZ_EXAMPLES`` (15,000 over all targets) are for the long form, ``-m slow``.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.running import Found, take
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
SEED = int(os.environ.get("URT_FUZZ_SEED", "1"))
EXAMPLES = int(os.environ.get("URT_FUZZ_EXAMPLES", "15000"))


def fuzz(name: str, number: int, count: int, folder: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.process", name, str(number), str(count), str(folder)]
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    print(ended.stdout)
    last = (folder / "current.txt").read_text() if ended.returncode not in (0, 1) else ""
    assert ended.returncode == 0, f"{ended.stdout[-8000:]}\n{ended.stderr[-4000:]}\n{last[-8000:]}"


def test_a_few_spoiled_inputs_and_all_that_were_once_reported(tmp_path: Path) -> None:
    fuzz("all", 0, 0, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_many_spoiled_inputs(name: str, tmp_path: Path) -> None:
    fuzz(name, SEED, EXAMPLES // len(TARGETS) + 1, tmp_path)


def test_what_must_not_be_is_found(tmp_path: Path) -> None:
    def fail(folder: Path, case: int) -> None:
        raise KeyError(case)

    found = Found()
    take(TARGETS["texts"]._replace(take=fail), 7, tmp_path, found)
    assert list(found.faults) == ["KeyError at test_fuzz.py:fail"]
    assert found.ended == {"not caught": 1}

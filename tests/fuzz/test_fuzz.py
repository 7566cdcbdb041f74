"""Whatever comes in ends as a result, a counted skip or a clear error: never as a trace, a hang or a full memory.

``URT_FUZZ_SEED`` (1) and ``URT_FUZZ_EXAMPLES`` (15,000 over all targets) are for the long form, ``-m slow``.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.faults import FAULTS
from tests.fuzz.running import Found, run, take
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
SEED = int(os.environ.get("URT_FUZZ_SEED", "1"))
EXAMPLES = int(os.environ.get("URT_FUZZ_EXAMPLES", "15000"))


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_spoiled_inputs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = run(TARGETS[name], tmp_path, number=0, count=TARGETS[name].shares)
    assert not found.faults, found.told()


@pytest.mark.parametrize("name", FAULTS)
def test_every_input_that_was_once_reported(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = Found()
    TARGETS[name].prepare(tmp_path)
    for case in FAULTS[name]:
        take(TARGETS[name], case, tmp_path, found)
    assert not found.faults, found.told()


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_many_spoiled_inputs_in_a_process_under_limits(name: str, tmp_path: Path) -> None:
    count = EXAMPLES // len(TARGETS) + 1
    command = [sys.executable, "-m", "tests.fuzz.process", name, str(SEED), str(count), str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(ended.stdout)
    last = (tmp_path / "current.txt").read_text() if ended.returncode not in (0, 1) or not ended.stdout else ""
    assert ended.returncode == 0, f"{ended.stdout[-8000:]}\n{ended.stderr[-4000:]}\n{last[-8000:]}"


def test_what_must_not_be_is_found(tmp_path: Path) -> None:
    def fail(folder: Path, case: int) -> None:
        raise KeyError(case)

    found = Found()
    take(TARGETS["texts"]._replace(take=fail), 7, tmp_path, found)
    assert list(found.faults) == ["KeyError at test_fuzz.py:fail"]
    assert found.ended == {"not caught": 1}

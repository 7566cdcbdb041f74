"""A pipeline that is killed or told to leave at any moment, and called again, ends as one that was left alone.

Every run is interrupted at moments drawn from a seed, which is printed; ``URT_KILL_SEED`` sets another one, and
``URT_KILL_RUNS`` how many runs the long form takes.
"""

import os
import random
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.survival.interrupted import Blow, compiled_programs, differences, draw_blows, run_interrupted, run_whole
from urt_jax.data.sources import read_examples

SEED = int(os.environ.get("URT_KILL_SEED", "0"))
RUNS = int(os.environ.get("URT_KILL_RUNS", "25"))
BLOWS = 2  # of each run of the long form, so that its 25 runs have 50


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of all runs; ``whole`` is the uninterrupted one."""
    return tmp_path_factory.mktemp("survival")


@pytest.fixture(scope="module")
def seconds(runs: Path) -> float:
    """Return how long an uninterrupted run takes once its programs are compiled."""
    before = compiled_programs()
    taken = run_whole(runs)
    if compiled_programs() == before:
        return taken
    shutil.rmtree(runs / "whole")
    return run_whole(runs)


def assert_as_whole(runs: Path, name: str) -> None:
    """Check that nothing differs and that every record is there once."""
    assert differences(runs / name / "run", runs / "whole" / "run") == []
    for file in (
        "1-distill/records/cold_start.jsonl",
        "3-reject/records/accepted.jsonl",
        "3-reject/records/hard.jsonl",
    ):
        ids = Counter(example.id for example in read_examples(runs / name / "run" / file))
        assert ids.most_common(1)[0][1] == 1, f"{file}: a record is doubled"


def test_killed_and_told_to_leave_it_ends_with_the_same_bits(runs: Path, seconds: float) -> None:
    rng = random.Random(f"short {SEED}")
    blows = [
        Blow(signal.SIGKILL, rng.uniform(0.2, 0.6) * seconds),
        Blow(signal.SIGTERM, rng.uniform(0.3, 0.6) * seconds),
    ]
    print(f"seed {SEED}: {blows}")
    codes = run_interrupted(runs, "short", blows)
    assert codes[0] == -signal.SIGKILL, "it was over before it was killed"
    assert_as_whole(runs, "short")
    shutil.rmtree(runs / "short")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(RUNS))
def test_interrupted_anywhere_it_ends_with_the_same_bits(runs: Path, seconds: float, number: int) -> None:
    blows = draw_blows(random.Random(f"long {SEED} {number}"), count=BLOWS, seconds=seconds)
    codes = run_interrupted(runs, f"long-{number}", blows)
    print(f"seed {SEED}, run {number}: {blows} gave {codes}")
    assert_as_whole(runs, f"long-{number}")
    shutil.rmtree(runs / f"long-{number}")

"""A pipeline that is killed or told to leave at any moment, and called again, ends as one that was left alone.

Every run is interrupted at moments drawn from a seed, which is printed; ``URT_KILL_SEED`` sets another one, and
``URT_KILL_RUNS`` how many runs of one process the long form takes; of two processes it takes a quarter as many.
"""

import os
import random
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.processes.together import FAST_COMPILE
from tests.stages.story import pairs, small_recipe, write_config
from tests.survival.interrupted import MOMENTS, Blow, Runs, differences, draw_blows
from urt_jax.data.sources import read_examples, write_examples
from urt_jax.runs.processes import LEAVING

SEED = int(os.environ.get("URT_KILL_SEED", "0"))
RUNS = int(os.environ.get("URT_KILL_RUNS", "20"))
BLOWS = 2  # of each run of the long form, so that its 20 and 5 runs have 50


def assert_as_whole(runs: Runs, name: str) -> None:
    """Check that nothing differs and that every record is there once; then delete the run."""
    assert differences(runs.folder / name / "run", runs.folder / "whole" / "run") == []
    for file in (
        "1-distill/records/cold_start.jsonl",
        "3-reject/records/accepted.jsonl",
        "3-reject/records/hard.jsonl",
    ):
        ids = Counter(example.id for example in read_examples(runs.folder / name / "run" / file))
        assert ids.most_common(1)[0][1] == 1, f"{file}: a record is doubled"
    shutil.rmtree(runs.folder / name)


def write_short_pipeline(folder: Path, judge: Path) -> Path:
    """Write the config of a pipeline of a very small judge, that computes little and saves as often as a long one."""
    write_examples(folder / "pairs.jsonl", pairs(8, seed=1))
    recipe = small_recipe(judge)
    for stage in ("sft", "reject", "grpo"):
        recipe[stage] |= {"steps": 4, "save_every": 2}
    moving_pool = {"curriculum": {"highest": 0.95, "rescore_every": 2}, "dynamic_sampling": 1}
    recipe["grpo"] |= {"sample_every": 2, **moving_pool}
    recipe["evaluate"]["data"] = {"path": str(folder / "pairs.jsonl")}
    return write_config(folder / "short.py", "pipeline", **recipe)


def test_killed_and_told_to_leave_it_ends_with_the_same_bits(tmp_path: Path, coin_judge: Path) -> None:
    rng = random.Random(f"short {SEED}")
    blows = [
        Blow(signal.SIGKILL, rng.uniform(0.0, 1.0), rng.choice(MOMENTS[1:5])),
        Blow(signal.SIGTERM, rng.uniform(0.0, 1.0), rng.choice(MOMENTS[5:])),
    ]
    print(f"seed {SEED}: {blows}")
    runs = Runs(tmp_path, config=str(write_short_pipeline(tmp_path, coin_judge)), flags=FAST_COMPILE)
    runs.whole()
    assert runs.interrupted("short", blows) == [[-signal.SIGKILL], [LEAVING], [0]]
    assert_as_whole(runs, "short")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runs, float]:
    """Return runs of one process and how long an uninterrupted one takes."""
    return uninterrupted(Runs(tmp_path_factory.mktemp("alone")))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runs, float]:
    """Return runs of two processes and how long an uninterrupted one takes."""
    return uninterrupted(Runs(tmp_path_factory.mktemp("two"), processes=2))


def uninterrupted(runs: Runs) -> tuple[Runs, float]:
    seconds = runs.whole()
    print(f"uninterrupted: {seconds:.0f} s with {runs.processes} processes", flush=True)
    return runs, seconds


def interrupt_anywhere(runs: Runs, seconds: float, number: int) -> None:
    rng = random.Random(f"long {SEED} {number} of {runs.processes} processes")
    blows = draw_blows(rng, count=BLOWS, seconds=seconds, processes=runs.processes)
    print(f"seed {SEED}, run {number}", flush=True)
    runs.interrupted(f"long-{number}", blows)
    assert_as_whole(runs, f"long-{number}")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(RUNS))
def test_interrupted_anywhere_it_ends_with_the_same_bits(alone: tuple[Runs, float], number: int) -> None:
    interrupt_anywhere(*alone, number)


@pytest.mark.slow
@pytest.mark.parametrize("number", range((RUNS + 3) // 4))
def test_where_one_of_two_processes_is_struck_they_end_with_the_same_bits(two: tuple[Runs, float], number: int) -> None:
    interrupt_anywhere(*two, number)

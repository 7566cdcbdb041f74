"""A disk that fills up, cannot be written or allows small files only: exit code 2, a clear word, and nothing lost.

``Mounted`` disks are real ones of a few MB; where mounting is not allowed these tests skip, the others do not.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stages.story import (
    LENGTHS,
    OPTIMIZER,
    arguments,
    assert_same_weights,
    cache_settings,
    checkpoint_steps,
    metric_lines,
    run_in_process,
    write_config,
)

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """Return a disk of its own, 6 MB large."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip(f"mounting is not allowed here: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, coin_judge: Path, reasonings: Path) -> Path:
    folder = tmp_path_factory.mktemp("disk")
    data, model = {"path": str(reasonings)}, {"path": str(coin_judge)}
    more: dict[str, Any] = {"steps": 8, "batch_size": 8, "optimizer": OPTIMIZER, "lengths": LENGTHS, "save_every": 2}
    return write_config(folder / "sft.py", "sft", data=data, model=model, keep=8, **more)


@pytest.fixture(scope="module")
def finished(config: Path) -> Path:
    return run_in_process(config, config.parent / "whole")


def call(config: Path, workdir: Path, *, kilobytes: int | None = None) -> subprocess.CompletedProcess[str]:
    """Call the stage in a process of its own; with ``kilobytes`` no file may become larger."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)} | cache_settings()
    command = [sys.executable, "-m", "urt_jax.main", *arguments(config, workdir)]
    if kilobytes is not None:
        command = ["bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "bash", *command]
    return subprocess.run(command, env=environment, cwd=config.parent, capture_output=True, text=True, timeout=300)


def assert_refused(ended: subprocess.CompletedProcess[str], what: str, *words: str) -> None:
    """Check code and message; threads of orbax and tensorstore may still print their own errors around it."""
    assert ended.returncode == 2, ended.stderr[-3000:]
    told = ended.stderr[ended.stderr.index(f"error: {what}") :]
    assert "then call again with the same arguments: everything finished is kept" in told
    assert [word for word in words if word not in told] == []


def assert_goes_on_to_the_same_end(config: Path, workdir: Path, finished: Path) -> None:
    run_in_process(config, workdir)
    assert_same_weights(workdir, finished)
    assert [line["loss"] for line in metric_lines(workdir)] == [line["loss"] for line in metric_lines(finished)]


def test_a_full_disk_stops_the_run_and_space_lets_it_go_on(mounted: Path, config: Path, finished: Path) -> None:
    size = sum(path.stat().st_size for path in (finished / "checkpoints").rglob("*") if path.is_file()) // 4
    (mounted / "other").write_bytes(b"x" * (6 * 1024 * 1024 - int(2.6 * size) - 200_000))
    run = mounted / "run"
    assert_refused(call(config, run), "the disk is full", "No space left on device", "free some space")
    kept = checkpoint_steps(run)
    assert kept, "no checkpoint fitted at all"
    assert kept[-1] < 8
    assert not (run / "result.json").exists()
    assert_refused(call(config, run), "the disk is full")
    assert checkpoint_steps(run)[-1] >= kept[-1]
    (mounted / "other").unlink()
    assert_goes_on_to_the_same_end(config, run, finished)


def test_a_disk_without_any_room_is_told_at_the_start(mounted: Path, config: Path) -> None:
    size = os.statvfs(mounted).f_bavail * os.statvfs(mounted).f_frsize
    (mounted / "other").write_bytes(b"x" * size)
    assert_refused(call(config, mounted / "run"), "the disk is full", "No space left on device")


def test_a_disk_that_became_read_only_is_told(mounted: Path, config: Path, finished: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    assert_refused(call(config, mounted / "run"), "the file system is read-only", str(mounted / "run"), "--workdir")


@pytest.mark.parametrize("kilobytes", [1, *(pytest.param(size, marks=pytest.mark.slow) for size in (40, 100))])
def test_a_limit_of_file_size_is_told_and_nothing_is_lost(
    tmp_path: Path, config: Path, finished: Path, kilobytes: int
) -> None:
    """Stands for a disk that fills up in the middle of a file, wherever disks cannot be mounted."""
    run = tmp_path / "run"
    ended = call(config, run, kilobytes=kilobytes)
    assert_refused(ended, "a file would be larger than allowed", "ulimit -f")
    for path in (*run.glob("*.json"), *run.glob("records/*.json")):
        json.loads(path.read_text())
    assert_goes_on_to_the_same_end(config, run, finished)

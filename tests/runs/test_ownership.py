"""One run folder, one owner, for as long as its process lives."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from urt_jax.errors import BadInputError
from urt_jax.runs import ownership
from urt_jax.runs.ownership import own, release
from urt_jax.runs.run_folder import open_run, write_result

ROOT = Path(__file__).parents[2]
# Opens a run, has a child that outlives it, says so, and waits.
OWNER = """
import subprocess, sys, time
from urt_jax.runs.run_folder import open_run
open_run(sys.argv[1], {"seed": 1})
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def let_go() -> Iterator[None]:
    yield
    release()


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    yield process, child
    process.kill()
    process.wait()
    process.stdout.close()
    os.kill(child, signal.SIGKILL)


def test_a_second_process_is_refused_and_told_whose_it_is(
    tmp_path: Path, owner: tuple[subprocess.Popen[str], int]
) -> None:
    with pytest.raises(BadInputError, match=rf"belongs to a run in progress \(host .*, pid {owner[0].pid}, since '2"):
        open_run(tmp_path / "run", {"seed": 1})


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_dies_with_its_process_and_not_with_its_children(
    tmp_path: Path, owner: tuple[subprocess.Popen[str], int], blow: signal.Signals
) -> None:
    owner[0].send_signal(blow)
    owner[0].wait()
    os.kill(owner[1], 0)  # its child lives
    open_run(tmp_path / "run", {"seed": 1})


def test_a_process_may_open_its_own_run_again(tmp_path: Path) -> None:
    for _ in range(3):
        open_run(tmp_path / "run", {"seed": 1})
    open_run(tmp_path / "run" / "1-sft", {"seed": 1})


def test_a_stage_alone_is_refused_below_a_pipeline_that_goes_on(
    tmp_path: Path, owner: tuple[subprocess.Popen[str], int]
) -> None:
    with pytest.raises(BadInputError, match=rf"run belongs to a run in progress \(host .*, pid {owner[0].pid}"):
        open_run(tmp_path / "run" / "1-sft", {"seed": 1})
    owner[0].kill()
    owner[0].wait()
    open_run(tmp_path / "run" / "1-sft", {"seed": 1})


def test_a_pipeline_is_refused_above_a_stage_that_goes_on(tmp_path: Path) -> None:
    open_run(tmp_path / "run", {"seed": 1})
    release()
    open_run(tmp_path / "run" / "1-sft", {"seed": 1})
    pipeline = "import sys; from urt_jax.runs.run_folder import open_run; open_run(sys.argv[1], {'seed': 1})"
    command = [sys.executable, "-c", pipeline, str(tmp_path / "run")]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "belongs to a run in progress" in refused.stderr
    open_run(tmp_path / "run", {"seed": 1})  # this process may
    release()
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def test_a_finished_run_is_read_by_anybody(tmp_path: Path, owner: tuple[subprocess.Popen[str], int]) -> None:
    write_result(tmp_path / "run", "the table")
    open_run(tmp_path / "run", {"seed": 1})


def test_a_disk_without_locks_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(ownership.fcntl, "lockf", no_locks)
    own(tmp_path)
    own(tmp_path)
    assert [record.message.count("disk without locks") for record in caplog.records] == [1]


@pytest.mark.parametrize(
    ("name", "told"), [("x" * 300, "File name too long"), ("a\0b", "null byte"), ("file/below", "Not a directory")]
)
def test_what_cannot_be_a_run_folder_is_told(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInputError, match=told):
        open_run(f"{tmp_path}/{name}", {"seed": 1})


def test_a_pipe_is_no_run_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BadInputError, match="is not a run folder"):
        open_run(tmp_path / "fifo", {"seed": 1})

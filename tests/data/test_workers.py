"""Workers: the same results in any number, errors told once, nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.data.worker_jobs import fail, halve, outlive
from urt_jax.data.workers import WorkerDied, Workers
from urt_jax.errors import BadInputError

REPOSITORY = Path(__file__).parents[2]
OWNER = """
import sys
from tests.data.worker_jobs import sleep
from urt_jax.data.workers import Workers
workers = Workers(sleep, 2)
for path in sys.argv[1:]:
    pending = workers.begin(path)
pending()
"""


def gone(process: int) -> bool:
    """Return whether there is no such process, not even one that nobody has waited for."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def ended(process: int) -> bool:
    """Return whether an orphan has ended; where the system's first process waits for none, it stays as a zombie."""
    state = Path(f"/proc/{process}/stat")
    return gone(process) or (state.is_file() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def test_any_number_of_workers_gives_the_same_results_in_order_and_leaves_nothing_behind() -> None:
    results = {}
    for count in (0, 1, 2):
        with Workers(halve, count) as workers:
            done = list(workers.in_order((workers.begin(n) for n in range(12)), ahead=6))
        results[count] = [array for _, array in done]
        processes = {process for process, _ in done}
        assert (processes == {os.getpid()}) if count == 0 else (os.getpid() not in processes)
        assert len(processes) <= max(count, 1)
        assert count == 0 or all(gone(process) for process in processes)
    for n, expected in enumerate(results[0]):
        for count in (1, 2):
            assert np.array_equal(results[count][n], expected), (count, n)
            assert results[count][n].dtype == np.float32
            assert results[count][n].flags.writeable


def test_an_error_is_that_of_its_own_job_and_the_others_are_done() -> None:
    with Workers(fail, 1) as workers:
        pending = [workers.begin(n) for n in range(8)]
        assert pending[0]() == 0
        with pytest.raises(BadInputError, match=r"^record 1: image 1: 'cut.png' is cut; fetch it again$"):
            pending[1]()
        with pytest.raises(BadInputError, match=r"^record 2 is broken$"):
            pending[2]()
        with pytest.raises(RuntimeError, match=r"^TwoPartError: three 3\n"):
            pending[3]()
        with pytest.raises(ZeroDivisionError, match="four") as caught:
            pending[4]()
        assert 'raise ZeroDivisionError("four")' in caught.value.__notes__[0], "where it was raised"
        with pytest.raises(WorkerDied, match=r"ended with exit code -9 in the middle of its work; .* config.workers"):
            pending[5]()


def test_a_worker_is_deaf_to_what_asks_a_run_to_leave() -> None:
    with Workers(outlive, 1) as workers:
        processes = {workers.begin(n)() for n in range(4)}
    assert len(processes) == 1


def test_one_that_is_forgotten_is_closed() -> None:
    workers = Workers(halve, 1)
    process, _ = workers.begin(0)()
    assert not gone(process)
    del workers
    assert gone(process)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "asked to leave"])
def test_workers_end_with_their_owner_in_the_middle_of_their_work(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path / "a"), str(tmp_path / "b")]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, cwd=REPOSITORY) as owner:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("*.pid"))) < 2:
            assert owner.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        owner.send_signal(number)
    workers = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    deadline = time.monotonic() + 10
    while not all(ended(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert all(ended(worker) for worker in workers), "a job takes a minute"

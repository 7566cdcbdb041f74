"""A SIGTERM is noted inside the block, handed on where it came too late for it, and ends other work with code 75."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from urt_jax.runs.preemption import PreemptionNotice, leaving_on_notice

LEAVING = """
import os, signal, sys
from urt_jax.runs.preemption import PreemptionNotice, leaving_on_notice

with leaving_on_notice():
    if sys.argv[1] == "late":
        with PreemptionNotice():
            os.kill(os.getpid(), signal.SIGTERM)
            print("noted", flush=True)
    else:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException:
            print("could be swallowed")
    print("went on")
"""


def leave(how: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LEAVING, how]
    return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)


def test_sigterm_is_noted_and_the_old_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with PreemptionNotice() as notice:
        assert not notice.arrived
        os.kill(os.getpid(), signal.SIGTERM)
        assert notice.arrived
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_work_ends_at_once_and_says_how_to_go_on() -> None:
    ended = leave("now")
    assert (ended.returncode, ended.stdout) == (75, "")
    assert ended.stderr == (
        "preempted: finished work is in the run folder; call again with the same arguments to resume\n"
    )


def test_a_notice_that_a_block_outlived_ends_the_work_after_it() -> None:
    ended = leave("late")
    assert (ended.returncode, ended.stdout) == (75, "noted\n")


def test_the_old_handler_comes_back_and_other_threads_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with leaving_on_notice():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    ran: list[bool] = []

    def work() -> None:
        with leaving_on_notice():
            ran.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ran == [True]

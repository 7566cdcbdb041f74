"""Preemption notices: at a SIGTERM the training loop saves and exits, and any other work exits at once.

Everything but a training state is written to disk as it is made, so outside the loop there is nothing to save: a run
resumes from its files as after a ``kill -9``. A process that gets the notice passes it on to the others of the run.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType, TracebackType

from urt_jax.runs import processes

EXIT_PREEMPTED = processes.LEAVING


class Preempted(Exception):
    """The run was saved after a preemption notice; the command line ends with exit code 75."""


class PreemptionNotice:
    """In its ``with`` block a SIGTERM sets ``arrived`` instead of ending the process (main thread only).

    A SIGTERM to another process of the run sets it too, a little later.
    """

    def __init__(self) -> None:
        self.arrived = False
        self._elsewhere = ExitStack()

    def __enter__(self) -> "PreemptionNotice":
        self._before = signal.signal(signal.SIGTERM, self._note)
        self._elsewhere.enter_context(processes.taking_notice(self._take))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._elsewhere.close()
        signal.signal(signal.SIGTERM, self._before)
        if self.arrived and kind is None and callable(self._before):
            self._before(signal.SIGTERM, None)  # the block ended in spite of it: call the handler around the block

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._take()
        processes.tell_notice()

    def _take(self) -> None:
        self.arrived = True


@contextmanager
def leaving_on_notice() -> Iterator[None]:
    """In its ``with`` block a SIGTERM ends the process with exit code 75, unless a ``PreemptionNotice`` takes it.

    Only the main thread gets signals; in other threads it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: FrameType | None) -> None:
    # Not by an exception: a library's callback would swallow it, and the notice would be lost.
    told = "preempted: finished work is in the run folder; call again with the same arguments to resume"
    processes.leave(EXIT_PREEMPTED, told)

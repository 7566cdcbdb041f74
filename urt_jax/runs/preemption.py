"""Notice of preemption: a SIGTERM asks the training loop to save and leave, and any other work to leave at once.

Everything but a training state is on disk as it is made, so outside the loop there is nothing to save: a run goes on
from its files as it does after a ``kill -9``. Of several processes of a run one that is told tells the others.
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
    """Within its ``with`` block a SIGTERM sets ``arrived`` instead of ending the process (main thread only).

    One that reached another process of the run does so too, a little later.
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
            self._before(signal.SIGTERM, None)  # the block ended all the same; whoever waits around it is told

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._take()
        processes.tell_notice()

    def _take(self) -> None:
        self.arrived = True


@contextmanager
def leaving_on_notice() -> Iterator[None]:
    """Within its ``with`` block a SIGTERM ends the process with exit code 75, where no ``PreemptionNotice`` takes it.

    Outside the main thread, which alone hears signals, nothing is changed.
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
    # Not by an exception: raised inside a library's callback it would be swallowed, and the notice with it.
    told = "preempted: what was done is in the run folder; call again with the same arguments to go on"
    processes.leave(EXIT_PREEMPTED, told)

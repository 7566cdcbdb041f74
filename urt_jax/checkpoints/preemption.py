"""Notice of preemption: a SIGTERM asks the training loop to save and leave."""

import signal
from types import FrameType, TracebackType


class Preempted(Exception):
    """The run was saved after a preemption notice; the command line ends with exit code 75."""


class PreemptionNotice:
    """Within its ``with`` block a SIGTERM sets ``arrived`` instead of ending the process (main thread only)."""

    def __init__(self) -> None:
        self.arrived = False

    def __enter__(self) -> "PreemptionNotice":
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.arrived = True

"""What workers are given to do in tests; functions of a module, so that they can be sent to another process."""

import os
import signal
import time
from typing import Any

import numpy as np

from urt_jax.data.sources.files import RecordError
from urt_jax.errors import BadInputError


class TwoPartError(Exception):
    """An error that cannot be unpickled: it is made from two values and keeps one."""

    def __init__(self, told: str, number: int) -> None:
        super().__init__(f"{told} {number}")


def halve(number: int) -> tuple[int, np.ndarray]:
    """Return the process and a large array; later jobs are done sooner."""
    time.sleep(0.02 if number % 3 == 0 else 0.0)
    return os.getpid(), np.arange(100_000, dtype=np.float32).reshape(100, 1000)[:, ::2] / (number + 1)


def fail(number: int) -> Any:
    """Return the number, or raise a different error for each of some numbers."""
    if number == 1:
        raise BadInputError("record 1: image 1: 'cut.png' is cut; fetch it again")
    if number == 2:
        raise RecordError("record 2 is broken", reason="broken")
    if number == 3:
        raise TwoPartError("three", 3)
    if number == 4:
        raise ZeroDivisionError("four")
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def outlive(number: int) -> int:
    """Send the own process what asks a run to save and leave, and return its id."""
    os.kill(os.getpid(), (signal.SIGTERM, signal.SIGINT)[number % 2])
    return os.getpid()


def sleep(path: str) -> None:
    """Write the own process id to a file and sleep for a minute."""
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    os.rename(path, f"{path}.pid")
    time.sleep(60)

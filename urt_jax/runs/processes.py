"""One run over several processes: how they find each other, meet, hand each other values, and end together.

Every process runs the same story on its own devices and its own share of the rows. What is known once is known from
the first process, which alone prints and writes the files they share. Beside the story a companion thread

1. counts, so that a process that is gone or stuck is missed by the others, which then stop instead of waiting for it;
2. hears when one of them fails or is told to leave, and ends or asks this one too;

and a watch ends this process when its companion waits too long for the first one, through which all of that goes.

Values go through the coordination service of ``jax.distributed``: small ones, on the host, from the main thread, in
the same order on all. A run of one process needs none of it, and every function here then answers for that one.
"""

import os
import pickle
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

CONNECT_S = 300  # for all processes to find each other
LOST_S = 30  # after which a process that no longer counts is lost
PAUSE_S = 600  # for which all may be stopped together, as with the machine they run on
TICK_S = 1.0
LEAVE_S = 15.0  # the first process, which the others' connections end with, waits for them to leave
_ENDED = "urt/ended"  # a process is about to end, and the others with it
_NOTICE = "urt/notice"  # a process was told to leave, and takes its time to save


class ProcessesError(ValueError):
    """Processes that cannot be told apart or do not find each other."""


class _Joined:
    """This process among the others, and its companion."""

    def __init__(self, client: Any, number: int, count: int) -> None:
        self.client, self.number, self.count = client, number, count
        self.meetings = 0
        self.told_to_leave: Callable[[], bool] = lambda: False  # take a notice here; False: nobody does
        self._stopped = threading.Event()
        # Last count of each, and for how many ticks it has stood. Ticks and not a clock: where a machine stops all
        # processes for a while, none has missed another.
        self._counts = dict.fromkeys(range(count), (-1, 0))
        self._ticks = 0
        self._threads = [threading.Thread(target=of, daemon=True) for of in (self._accompany, self._watch)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End companion and watch."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def others(self) -> list[int]:
        return [number for number in range(self.count) if number != self.number]

    def put(self, key: str, value: Any) -> None:
        self.client.key_value_set_bytes(key, pickle.dumps(value), allow_overwrite=True)

    def look(self, key: str) -> Any:
        """Return what lies under a key, None where there is nothing yet."""
        try:
            return pickle.loads(self.client.key_value_try_get_bytes(key))
        except Exception as error:
            if "NOT_FOUND" in str(error):
                return None
            raise

    def wait_for(self, key: str) -> Any:
        """Wait for a value, a second at a time, so that signals are heard in between."""
        while True:
            try:
                return pickle.loads(self.client.blocking_key_value_get_bytes(key, 1000))
            except Exception as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise

    def put_first(self, key: str, value: Any) -> bool:
        """Put a value where there is none yet; False where there is."""
        try:
            self.client.key_value_set_bytes(key, pickle.dumps(value))
        except Exception as error:
            if "ALREADY_EXISTS" not in str(error):
                raise
            return False
        return True

    def await_others(self, mark: str, until: float) -> None:
        """Wait, not for long, until the others have set a mark."""
        while time.monotonic() < until and any(self.look(f"urt/{mark}/{number}") is None for number in self.others()):
            time.sleep(0.05)

    def _accompany(self) -> None:
        noticed = False
        while not self._stopped.wait(TICK_S):
            self._ticks += 1
            try:
                self.put(f"urt/alive/{self.number}", self._ticks)
                notice, ended = None if noticed else self.look(_NOTICE), self.look(_ENDED)
                if notice is not None:
                    noticed = True
                    if notice != self.number and not self.told_to_leave():
                        ended = ended or (notice, LEAVING, "preempted")
                if ended is not None:
                    self._end(*ended)
                for number in self.others():
                    self._miss(number, self.look(f"urt/alive/{number}"))
            except Exception as error:
                if not self._stopped.is_set():
                    self._lost(0, f"({str(error).splitlines()[0]})")

    def _watch(self) -> None:
        last, stood = -1, 0
        while not self._stopped.wait(TICK_S):
            last, stood = self._ticks, stood + 1 if last == self._ticks else 0
            if stood * TICK_S >= LOST_S:
                self._lost(0, f"has not answered for {LOST_S} s and")

    def _end(self, number: int, code: int, told: str) -> None:
        """A process ends: end too. That one waits until all have heard it."""
        self.put(f"urt/heard/{self.number}", True)
        if number != self.number:
            self.last_word(time.monotonic() + LEAVE_S)
            _end_here(code, f"process {number}: {told}; stopping process {self.number}")

    def last_word(self, until: float) -> None:
        """Say that this process is as good as gone; the first one, on which all connections hang, goes last."""
        if self.number:
            self.put(f"urt/gone/{self.number}", True)
        else:
            self.await_others("gone", until)

    def _miss(self, number: int, count: int | None) -> None:
        last, stood = self._counts[number]
        self._counts[number] = (count or 0, stood + 1 if last == (count or 0) else 0)
        if self._counts[number][1] * TICK_S >= LOST_S:
            self._lost(number, f"has not been heard of for {LOST_S} s and")

    def _lost(self, number: int, how: str) -> None:
        _end_here(
            1,
            f"process {number} {how} is lost; stopping process {self.number}. Call again with the same arguments to go "
            "on from what is in the run folder",
        )


LEAVING = 75  # the exit code after a preemption notice
MAX_PORT = 65535
_PARTS = re.compile(r"([^,\s]+):([0-9]{1,5}),([0-9]{1,6}),([0-9]{1,6})")  # host, port, how many, which
_NOT_FOUND = 2  # as for any other bad input
_joined: _Joined | None = None


def connect(where: str) -> None:
    """Find the other processes of this run; before anything else is asked of jax.

    ``where`` is ``auto``, for what TPU VMs, Slurm, GKE and Open MPI say in the environment, or
    ``HOST:PORT,COUNT,NUMBER`` with the address of process 0, how many there are, and which of them this is. Where they
    do not all come in time, this process ends with exit code 2.

    Raises:
        ProcessesError: ``where`` is neither, or the environment says nothing.
    """
    global _joined
    asked = _parse(where)
    import jax  # first here: the command line is read without it
    from jax._src import distributed  # jax has no public door to the values its processes share

    told = f"the processes of this run did not find each other by {where!r}"
    missing = f"error: {told} in {CONNECT_S} s; start them all, with the address of process 0, and look at their logs"
    late = threading.Timer(CONNECT_S, _end_here, (_NOT_FOUND, missing))
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            **asked,
            initialization_timeout=2 * CONNECT_S,  # at which jax would abort
            heartbeat_timeout_seconds=PAUSE_S,  # by a clock; the companions are sooner
            shutdown_timeout_seconds=2 * LOST_S,
        )
    except Exception as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        hint = "" if asked else "; where no environment says it, give HOST:PORT,COUNT,NUMBER"
        raise ProcessesError(f"{told}: {why}{hint}") from error
    finally:
        late.cancel()
    state = distributed.global_state
    if state.num_processes > 1:
        _joined = _Joined(state.client, state.process_id, state.num_processes)


def disconnect() -> None:
    """Wait for the others to have ended as well, and let go of them."""
    global _joined
    if _joined is not None:
        barrier()
        _joined.stop()
        _joined = None


def number() -> int:
    """Return which process this is."""
    return 0 if _joined is None else _joined.number


def count() -> int:
    """Return how many there are."""
    return 1 if _joined is None else _joined.count


def is_first() -> bool:
    """Return whether this is the one that prints and writes what all share."""
    return number() == 0


def gather(value: T) -> list[T]:
    """Return the value of every process, in their order. All must call it, as often and in the same order."""
    if _joined is None:
        return [value]
    here, _joined.meetings = _joined.meetings, _joined.meetings + 1
    _joined.put(f"urt/met/{here}/{_joined.number}", value)
    values = [_joined.wait_for(f"urt/met/{here}/{other}") for other in range(_joined.count)]
    if here:  # whoever came here has read all of the meeting before
        _joined.client.key_value_delete(f"urt/met/{here - 1}/{_joined.number}")
    return values


def of_first(ask: Callable[[], T]) -> T:
    """Let the first process ask, or write a file of all, and return on every process what it found, when it is done."""
    return ask() if _joined is None else gather(ask() if is_first() else None)[0]  # type: ignore[return-value]


def barrier() -> None:
    """Wait until every process is here."""
    gather(None)


def tell_notice() -> None:
    """Tell the other processes that this one was told to leave and saves first; they do so too, or leave at once."""
    if _joined is not None:
        _joined.put_first(_NOTICE, _joined.number)


def leave(code: int, told: str) -> NoReturn:
    """End this process at once with all others, whatever they are at."""
    if _joined is None:
        _end_here(code, told)
    try:
        if not _joined.put_first(_ENDED, (_joined.number, code, told)):
            told = ""  # another process has told it
        until = time.monotonic() + LEAVE_S
        _joined.await_others("heard", until)
        _joined.last_word(until)
    finally:  # also where process 0 is gone, and with it the way to tell
        _end_here(code, told)


@contextmanager
def taking_notice(take: Callable[[], None]) -> Iterator[None]:
    """Within its ``with`` block, a notice that reached another process is taken here by ``take``."""
    if _joined is None:
        yield
        return

    def taken() -> bool:
        take()
        return True

    before, _joined.told_to_leave = _joined.told_to_leave, taken
    try:
        yield
    finally:
        _joined.told_to_leave = before


def _end_here(code: int, told: str) -> NoReturn:
    # Not by an exception: this may be a thread or a signal's handler, and the main thread in a library's wait.
    if told:
        os.write(2, f"{told}\n".encode())
    os._exit(code)


def _parse(where: str) -> dict[str, Any]:
    """Return the arguments of ``jax.distributed.initialize``.

    Raises:
        ProcessesError: it is neither ``auto`` nor three parts that make sense.
    """
    if where == "auto":
        return {}
    parts = _PARTS.fullmatch(where)
    if parts is None or not 0 < int(parts[2]) <= MAX_PORT:
        raise ProcessesError(
            f"--distributed={where[:80]} is not understood; give auto, or HOST:PORT,COUNT,NUMBER such as "
            "10.0.0.1:8476,2,0"
        )
    total, this = int(parts[3]), int(parts[4])
    if not this < total:
        raise ProcessesError(f"--distributed={where}: {total} processes are numbered 0 to {total - 1}, not {this}")
    return {"coordinator_address": f"{parts[1]}:{parts[2]}", "num_processes": total, "process_id": this}

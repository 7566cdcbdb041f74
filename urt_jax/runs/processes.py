"""One run over several processes: they connect, synchronise, exchange values, and end together.

Every process runs the same stage on its own devices and its own share of the rows. Common values come from the first
process, which alone prints and writes the shared files. Beside the main thread, a companion thread

1. counts up, so that the others notice a process that is dead or stuck, and stop instead of waiting for it;
2. learns when another process fails or is preempted, and ends or notifies this one;

and a watch thread ends this process if its companion gets no answer from the first process, which serves all of this.

Values go through the coordination service of ``jax.distributed``: small host values, from the main thread, in the same
order on all processes. With a single process every function here returns at once, with that process's own value.
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

CONNECT_S = 300  # for all processes to connect
LOST_S = 30  # after which a process that no longer counts up is lost
PAUSE_S = 600  # for which all processes may be suspended together, as with their machine
TICK_S = 1.0
LEAVE_S = 15.0  # for which the first process, whose end closes all connections, waits for the others to exit
_ENDED = "urt/ended"  # a process is about to end, and the others with it
_NOTICE = "urt/notice"  # a process was preempted and saves before it ends


class ProcessesError(ValueError):
    """The address of the processes is invalid, or they do not connect."""


class _Joined:
    """This process among the others, and its companion."""

    def __init__(self, client: Any, number: int, count: int) -> None:
        self.client, self.number, self.count = client, number, count
        self.meetings = 0
        self.told_to_leave: Callable[[], bool] = lambda: False  # take a preemption notice; False = not taken
        self._stopped = threading.Event()
        # Last count of each process, and the ticks since it changed. Ticks and not seconds: if a machine suspends all
        # processes for a while, none counts as lost.
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
        """Return the value of a key, or None if it has none yet."""
        try:
            return pickle.loads(self.client.key_value_try_get_bytes(key))
        except Exception as error:
            if "NOT_FOUND" in str(error):
                return None
            raise

    def wait_for(self, key: str) -> Any:
        """Wait for a value, a second at a time, so that signals are handled in between."""
        while True:
            try:
                return pickle.loads(self.client.blocking_key_value_get_bytes(key, 1000))
            except Exception as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise

    def put_first(self, key: str, value: Any) -> bool:
        """Put a value if the key has none yet; return whether it had none."""
        try:
            self.client.key_value_set_bytes(key, pickle.dumps(value))
        except Exception as error:
            if "ALREADY_EXISTS" not in str(error):
                raise
            return False
        return True

    def await_others(self, mark: str, until: float) -> None:
        """Wait until the others have set a mark, or until the time ``until``."""
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
        """End this process because another ends, which waits until all have read its message."""
        self.put(f"urt/heard/{self.number}", True)
        if number != self.number:
            self.last_word(time.monotonic() + LEAVE_S)
            _end_here(code, f"process {number}: {told}; stopping process {self.number}")

    def last_word(self, until: float) -> None:
        """Announce that this process ends; the first process, which serves all connections, ends last."""
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
            f"process {number} {how} is lost; stopping process {self.number}. Call again with the same arguments to "
            "resume from the run folder",
        )


LEAVING = 75  # the exit code after a preemption notice
MAX_PORT = 65535
_PARTS = re.compile(r"([^,\s]+):([0-9]{1,5}),([0-9]{1,6}),([0-9]{1,6})")  # host, port, count, number
_NOT_FOUND = 2  # as for any other bad input
_joined: _Joined | None = None


def connect(where: str) -> None:
    """Connect to the other processes of this run; call it before any other use of jax.

    ``where`` is ``auto``, which reads the environment of TPU VMs, Slurm, GKE and Open MPI, or
    ``HOST:PORT,COUNT,NUMBER``: the address of process 0, the number of processes, and the number of this one. If they
    do not all connect in time, this process ends with exit code 2.

    Raises:
        ProcessesError: ``where`` is neither, or the environment names no processes.
    """
    global _joined
    asked = _parse(where)
    import jax  # imported here, since the command line is parsed without it
    from jax._src import distributed  # jax has no public interface to its key-value store

    told = f"the processes of this run did not find each other by {where!r}"
    missing = f"error: {told} in {CONNECT_S} s; start them all, with the address of process 0, and look at their logs"
    late = threading.Timer(CONNECT_S, _end_here, (_NOT_FOUND, missing))
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            **asked,
            initialization_timeout=2 * CONNECT_S,  # after which jax would abort
            heartbeat_timeout_seconds=PAUSE_S,  # in wall-clock time; the companions notice sooner
            shutdown_timeout_seconds=2 * LOST_S,
        )
    except Exception as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        hint = "" if asked else "; if the environment does not name them, give HOST:PORT,COUNT,NUMBER"
        raise ProcessesError(f"{told}: {why}{hint}") from error
    finally:
        late.cancel()
    state = distributed.global_state
    if state.num_processes > 1:
        _joined = _Joined(state.client, state.process_id, state.num_processes)


def disconnect() -> None:
    """Wait until the others have finished too, and disconnect."""
    global _joined
    if _joined is not None:
        barrier()
        _joined.stop()
        _joined = None


def number() -> int:
    """Return the number of this process."""
    return 0 if _joined is None else _joined.number


def count() -> int:
    """Return the number of processes."""
    return 1 if _joined is None else _joined.count


def is_first() -> bool:
    """Return whether this is the first process, which prints and writes the shared files."""
    return number() == 0


def gather(value: T) -> list[T]:
    """Return the values of all processes, in order. All must call it, equally often and in the same order."""
    if _joined is None:
        return [value]
    here, _joined.meetings = _joined.meetings, _joined.meetings + 1
    _joined.put(f"urt/met/{here}/{_joined.number}", value)
    values = [_joined.wait_for(f"urt/met/{here}/{other}") for other in range(_joined.count)]
    if here:  # every process that reached this call has read all values of the call before
        _joined.client.key_value_delete(f"urt/met/{here - 1}/{_joined.number}")
    return values


def of_first(ask: Callable[[], T]) -> T:
    """Run ``ask`` on the first process only, and return its result on every process once it is done."""
    return ask() if _joined is None else gather(ask() if is_first() else None)[0]  # type: ignore[return-value]


def barrier() -> None:
    """Wait until every process calls it."""
    gather(None)


def tell_notice() -> None:
    """Pass a preemption notice on to the other processes, which save and exit, or exit at once."""
    if _joined is not None:
        _joined.put_first(_NOTICE, _joined.number)


def leave(code: int, told: str) -> NoReturn:
    """End this process and all others at once."""
    if _joined is None:
        _end_here(code, told)
    try:
        if not _joined.put_first(_ENDED, (_joined.number, code, told)):
            told = ""  # another process has announced its end
        until = time.monotonic() + LEAVE_S
        _joined.await_others("heard", until)
        _joined.last_word(until)
    finally:  # also if process 0 is gone, and with it the connection
        _end_here(code, told)


@contextmanager
def taking_notice(take: Callable[[], None]) -> Iterator[None]:
    """In its ``with`` block, a preemption notice to another process calls ``take`` here."""
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
    # Not by an exception: this may be a thread or a signal handler, while the main thread waits in a library.
    if told:
        os.write(2, f"{told}\n".encode())
    os._exit(code)


def _parse(where: str) -> dict[str, Any]:
    """Return the arguments of ``jax.distributed.initialize``.

    Raises:
        ProcessesError: it is neither ``auto`` nor three valid parts.
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

"""Worker processes: with any number of them, the same results in the same order.

A feed is a function of (seed, step) and, in GRPO, of the rewards so far; its position is the step number, which every
checkpoint has. Workers therefore only do slow work on single records. Grain 0.2.18 was tried for the whole feed and is
not used: the position that it saves with two workers cannot be restored with three, its streams cannot follow a
curriculum, and its workers survive a killed run (SIGKILL).

Each worker is a program at the other end of a socket pair. Arrays are sent as raw memory and received in place; there
are no files and no shared memory to clean up. A worker ignores SIGTERM and SIGINT, which are for the run; it ends, even
during its work, when the run closes its end of the socket or dies.
"""

import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import numpy as np

from urt_jax.errors import BadInputError

Job = TypeVar("Job")
Result = TypeVar("Result")
Pending = Callable[[], Result]  # waits for the result, or computes it, and returns it; raises the work's error

PACKAGE = Path(__file__).parents[1]
SOCKET_BYTES = 2**20  # that one end may write before the other has read
AHEAD = 2  # least number of jobs per worker that are started before their results are needed
END_S = 10.0  # in which a worker must end, before it is killed
# A worker uses no accelerator and a single thread.
_ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "TOKENIZERS_PARALLELISM": "false", "OPENBLAS_NUM_THREADS": "1",
                "OMP_NUM_THREADS": "1"}  # fmt: skip


class WorkerDied(RuntimeError):
    """A worker process ended during its work."""


class Workers(Generic[Job, Result]):
    """Runs ``work(job)`` in up to ``count`` processes; with 0, in this process, when a result is requested.

    ``work`` and jobs are pickled: ``work`` is a function of a module, or a ``partial`` of one. Close it, or use it in a
    ``with``; otherwise it is closed when it is garbage-collected.
    """

    def __init__(self, work: Callable[[Job], Result], count: int) -> None:
        self.count = count
        self._work = work
        self._all = [_Worker() for _ in range(count)]
        self._free: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._all:
            self._free.put(worker)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="worker") if count else None
        self._closed = weakref.finalize(self, _close, self._all, self._threads)

    def begin(self, job: Job) -> Pending[Result]:
        """Start a job, after all earlier ones; return a function that returns its result."""
        return partial(self._work, job) if self._threads is None else self._threads.submit(self._do, job).result

    def in_order(self, begun: Iterable[Pending[Result]], *, ahead: int = 0) -> Iterator[Result]:
        """Yield the results of jobs in order, while workers run the next ``ahead`` jobs, or a few per worker."""
        waiting: deque[Pending[Result]] = deque()
        most = max(ahead, AHEAD * self.count) if self.count else 0
        for pending in begun:
            waiting.append(pending)
            if len(waiting) > most:
                yield waiting.popleft()()
        while waiting:
            yield waiting.popleft()()

    def close(self) -> None:
        """End the processes; pending work is dropped."""
        self._closed()

    def __enter__(self) -> "Workers[Job, Result]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _do(self, job: Job) -> Result:
        worker = self._free.get()
        try:
            return worker.do(self._work, job)
        finally:
            self._free.put(worker)


def _close(workers: Sequence["_Worker"], threads: ThreadPoolExecutor | None) -> None:
    for worker in workers:
        worker.close()
    if threads is not None:
        threads.shutdown(wait=False, cancel_futures=True)  # no wait: garbage collection may run in one of these threads


class _Worker:
    """One worker process, started when first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # so that its start and its end do not overlap
        self._closed = False
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def do(self, work: Callable[[Any], Any], job: Any) -> Any:
        """Return ``work(job)``, or raise its error; ``work`` must be the same in all calls."""
        try:
            if self._socket is None:
                _send(self._start(), work)
            assert self._socket is not None
            _send(self._socket, job)
            done, result = _receive(self._socket)
        except (EOFError, OSError) as error:
            raise WorkerDied(
                f"a worker process ended with exit code {self._ended()} in the middle of its work; -9 is mostly the "
                "system's, for want of memory: lower config.workers, or make pictures and batches smaller"
            ) from error
        if done:
            return result
        raise result

    def close(self) -> None:
        """End the process and close its socket."""
        with self._lock:
            self._closed = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # also wakes a thread that waits for it
            self._ended()
            self._socket.close()

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        command = [sys.executable, "-c", f"from urt_jax.data.workers import serve; serve({theirs.fileno()})"]
        path = os.pathsep.join([str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, **_ENVIRONMENT, "PYTHONPATH": path}
        # A signal to the process group must not end it before the run has saved, so it starts with signals blocked.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        try:
            with self._lock:
                if self._closed:
                    raise EOFError
                self._process = subprocess.Popen(
                    command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
                )
                self._socket = ours
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        return ours

    def _ended(self) -> int | None:
        """Wait until the process, which was closed or has died, ends; return its exit code."""
        if self._process is None:
            return None
        try:
            return self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def serve(descriptor: int) -> None:
    """Run as a worker: receive the work, then jobs one by one, and send each one's result or error."""
    parent = socket.socket(fileno=descriptor)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        work = _receive(parent)
        while True:
            _send(parent, _attempt(work, _receive(parent)))
    except (EOFError, OSError):
        return  # the run has ended


def _attempt(work: Callable[[Any], Any], job: Any) -> tuple[bool, Any]:
    try:
        return True, work(job)
    except BadInputError as error:
        return False, _sendable(error)
    except Exception as error:
        error.add_note(f"in a worker process:\n{traceback.format_exc()}")
        return False, _sendable(error)


def _sendable(error: Exception) -> Exception:
    """Return an error itself, or its message if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        kind = BadInputError if isinstance(error, BadInputError) else RuntimeError
        told = kind(str(error) if kind is BadInputError else f"{type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", ()):
            told.add_note(note)
        return told
    return error


def _end_with(parent: socket.socket) -> None:
    """End this process when the other end of its socket is closed, as it also is when its owner dies."""
    poll = select.poll()
    poll.register(parent, 0)  # hang-ups only
    poll.poll()
    os._exit(0)


def _send(end: socket.socket, value: Any) -> None:
    """Send the number of parts and their sizes, then the parts: the pickle, and each large array separately."""
    buffers: list[pickle.PickleBuffer] = []
    parts: list[Any] = [pickle.dumps(value, protocol=5, buffer_callback=buffers.append)]
    parts += [buffer.raw() for buffer in buffers]
    end.sendall(struct.pack(f"<{len(parts) + 1}Q", len(parts), *map(len, parts)))
    for part in parts:
        end.sendall(part)


def _receive(end: socket.socket) -> Any:
    (count,) = struct.unpack("<Q", _read(end, 8))
    sizes = struct.unpack(f"<{count}Q", _read(end, 8 * count))
    parts = [_read(end, size) for size in sizes]
    return pickle.loads(parts[0], buffers=parts[1:])


def _read(end: socket.socket, size: int) -> memoryview:
    """Read exactly ``size`` bytes.

    Raises:
        EOFError: the other end was closed.
    """
    whole = np.empty(size, np.uint8).data  # not a bytearray, which would be zeroed first
    done = 0
    while done < size:
        received = end.recv_into(whole[done:])
        if not received:
            raise EOFError
        done += received
    return whole

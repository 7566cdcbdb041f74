"""The record of each training row, a pure function of seed and row number, and batches prepared ahead of use."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from urt_jax.data.examples import Example
from urt_jax.data.skipped import Skipped
from urt_jax.errors import BadInputError
from urt_jax.tasks.wording import DEFAULT_TEMPLATE

T = TypeVar("T")


class Source(NamedTuple):
    """An endless stream of records: ``get(n)`` is the n-th record; ``weight`` is the source's share of the rows.

    ``template`` is its prompt template (see ``prompts.render``); ``skipped`` counts the records of its file that were
    left out (None: records are generated).
    """

    weight: float
    get: Callable[[int], Example]
    template: str = DEFAULT_TEMPLATE
    skipped: Skipped | None = None


class Drawn(NamedTuple):
    """The record of one row, and its source's prompt template."""

    example: Example
    template: str


def mix(sources: Sequence[Source], *, seed: int, rows: int) -> Callable[[int], Drawn]:
    """Return ``row number -> record with its template`` for ``rows`` rows.

    Each source is drawn by its weight and read in its own order. The assignment depends on (seed, rows) only,
    so a resumed run gets the same records as an uninterrupted one.
    """
    weights = np.array([source.weight for source in sources], np.float64)
    which = np.random.default_rng([seed, 1]).choice(len(sources), size=rows, p=weights / weights.sum())
    place = np.empty(rows, np.int64)
    for index in range(len(sources)):
        mine = which == index
        place[mine] = np.arange(mine.sum())

    def draw(row: int) -> Drawn:
        source = sources[which[row]]
        return Drawn(source.get(int(place[row])), source.template)

    return draw


def shuffled_epochs(examples: Sequence[Example], *, seed: int) -> Callable[[int], Example]:
    """Return ``n -> record``, which iterates over all records in a new random order each epoch.

    Raises:
        BadInputError: there are no records.
    """
    if not examples:
        raise BadInputError("there are no records to train on; the file is empty or everything was filtered out")
    orders: dict[int, np.ndarray] = {}

    def get(place: int) -> Example:
        epoch, offset = divmod(place, len(examples))
        if epoch not in orders:
            orders[epoch] = np.random.default_rng([seed, 2, epoch]).permutation(len(examples))
        return examples[orders[epoch][offset]]

    return get


def in_random_order(example: Example, *, seed: int, place: int) -> Example:
    """Return a pair in one of its two orders, chosen at random by (seed, place), if it can be swapped.

    A written response fits one order only, so it is dropped in the other.
    """
    if not example.swappable:
        return example
    return example.swapped() if np.random.default_rng([seed, 3, place]).random() < 0.5 else example


def with_twins(examples: Sequence[Example]) -> list[Example]:
    """Return every pair followed by its twin, the same pair in the other order, at indices 2n and 2n + 1.

    Raises:
        BadInputError: a record has no other order.
    """
    return [order for example in examples for order in (example, example.swapped())]


class Prefetcher(Generic[T]):
    """Runs ``make(n)``, ``make(n + 1)``, ... in a thread, ``depth`` items ahead of their use."""

    def __init__(self, make: Callable[[int], T], *, start: int, stop: int, depth: int = 2) -> None:
        self._make, self._stop = make, stop
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._next = start
        self._ready: dict[int, Future[T]] = {}
        self._depth = depth

    def __getitem__(self, n: int) -> T:
        """Return item n, and wait for it if it is not ready; an error of ``make`` is raised here."""
        self._next = max(self._next, n)
        while self._next < min(n + 1 + self._depth, self._stop):
            self._ready[self._next] = self._pool.submit(self._make, self._next)
            self._next += 1
        return self._ready.pop(n).result()

    def close(self) -> None:
        """Stop the thread; unused items are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def batches(count: int, size: int) -> Iterator[tuple[list[int], int]]:
    """Yield index lists of length ``size``, the last padded with its first index, each with its number of real ones."""
    for start in range(0, count, size):
        real = list(range(start, min(start + size, count)))
        yield real + [real[0]] * (size - len(real)), len(real)

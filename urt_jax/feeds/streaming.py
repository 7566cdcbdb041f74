"""An endless stream of the records of a large source: read where they are asked for, in a new order each epoch."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from urt_jax.data.examples import Example
from urt_jax.data.skipped import SOUND, Skipped
from urt_jax.data.sources.files import Record, RecordError
from urt_jax.data.sources.rows import Rows
from urt_jax.errors import BadInputError

CHECKED_FROM = 200  # records looked at before the share of unusable ones is judged


class Streamed:
    """The records of ``rows`` by place, a pure function of (seed, place), so that a resumed run goes on where it was.

    Each epoch shuffles the blocks, and the rows within a block: neighbours in the stream are read from disk together.
    ``convert(record, place)`` makes the example or raises a ``RecordError``; an unusable record is counted once, and
    the next usable one of its block takes its place.
    """

    def __init__(
        self, rows: Rows, convert: Callable[[Record, int], Example], *, seed: int, name: str, most_skipped: float
    ) -> None:
        if not len(rows):
            raise BadInputError(f"{name} holds no record: the file is empty")
        self._rows, self._convert, self._seed, self._most = rows, convert, seed, most_skipped
        self._sizes = np.array(rows.blocks)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._looked: set[int] = set()
        self._counts: dict[str, int] = {}
        self._messages: dict[str, str] = {}
        self._flaws: dict[int, str] = {}
        self.skipped = Skipped(name, len(rows), self._counts, self._messages)  # grows as records are looked at
        self._blocks = lru_cache(2)(self._shuffled_blocks)
        self._within = lru_cache(8)(self._shuffled_rows)

    def row(self, place: int, step: int = 0) -> int:
        """Return the number of the row at a place of the stream, or of the one ``step`` further in its block."""
        epoch, offset = divmod(place, len(self._rows))
        order, ends = self._blocks(epoch)
        at = int(np.searchsorted(ends, offset, side="right"))
        block = int(order[at])
        size = int(self._sizes[block])
        within = (offset - int(ends[at]) + size + step) % size
        return int(self._starts[block] + self._within(epoch, block)[within])

    def get(self, place: int) -> Example:
        """Return the example at a place of the stream.

        Raises:
            BadInputError: no record of its block can be used, or too many of the source so far.
        """
        for step in range(int(self._sizes.max())):
            number = self.row(place, step)
            self._looked.add(number)
            if number in self._flaws:
                continue
            try:
                return self._convert(self._rows.at(number), place)
            except RecordError as error:
                self._note(number, error)
        raise BadInputError(f"{self.skipped.source}: a whole block of records cannot be used\n{self.skipped.told()}")

    def _note(self, number: int, error: RecordError) -> None:
        self._flaws[number] = error.reason
        self._counts[error.reason] = self._counts.get(error.reason, 0) + 1
        self._messages.setdefault(error.reason, str(error))
        unsound = sum(count for reason, count in self._counts.items() if reason not in SOUND)
        if len(self._looked) >= min(CHECKED_FROM, len(self._rows)) and unsound > self._most * len(self._looked):
            raise BadInputError(
                f"{self.skipped.source}: {unsound} of the first {len(self._looked)} records cannot be used, "
                f"data.max_skipped_share allows {self._most:g} of them\n{self.skipped.told()}"
            )

    def _shuffled_blocks(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        order = np.random.default_rng([self._seed, 2, epoch]).permutation(len(self._sizes))
        return order, np.cumsum(self._sizes[order])

    def _shuffled_rows(self, epoch: int, block: int) -> np.ndarray:
        key = (
            [self._seed, 2, epoch] if len(self._sizes) == 1 else [self._seed, 2, epoch, block]
        )  # as of a listed source
        return np.random.default_rng(key).permutation(int(self._sizes[block]))

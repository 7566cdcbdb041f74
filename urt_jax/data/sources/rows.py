"""The rows of a source: read one by one by number, cheap within a block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from urt_jax.data.sources.files import Record


class Rows:
    """Rows by number. ``blocks`` are the sizes of runs of rows that are read from disk together, in order.

    Rows of several blocks, or of large files, are read when they are asked for (``streamed``).
    """

    blocks: Sequence[int]
    streamed = True

    def __len__(self) -> int:
        return sum(self.blocks)

    def at(self, number: int) -> Record:
        """Return row ``number``, from 0.

        Raises:
            BadInputError: the file cannot be read.
        """
        raise NotImplementedError

    def __iter__(self) -> Iterator[Record]:
        return (self.at(number) for number in range(len(self)))


class ListedRows(Rows):
    """Rows that are all in memory, one block."""

    streamed = False

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records
        self.blocks = [len(records)]

    def at(self, number: int) -> Record:
        """Return row ``number``, from 0."""
        return self._records[number]

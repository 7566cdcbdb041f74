"""Bytes inside a larger file: a cell of a table, a member of an archive; read only when they are needed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stored:
    """Where bytes lie; small, comparable and picklable, so that records can be held and sent without their pictures."""

    def read(self) -> bytes:
        """Return the bytes.

        Raises:
            BadInputError: the file is gone, broken, or holds no bytes there.
        """
        raise NotImplementedError

"""Entries of the tables of losses by name, with an error that names the nearest spelling."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

Entry = TypeVar("Entry")


def chosen(what: str, name: str, table: Mapping[str, Entry]) -> Entry:
    """Return ``table[name]``.

    Raises:
        ValueError: no such name; the message lists the known ones and the nearest.
    """
    if name not in table:
        near = difflib.get_close_matches(name, table, cutoff=0.0)
        near.sort(key=lambda known: sorted(known) != sorted(name))  # swapped letters are the commonest slip
        raise ValueError(f"{what} is {name!r}; known are {list(table)}, did you mean {near[0]!r}?")
    return table[name]

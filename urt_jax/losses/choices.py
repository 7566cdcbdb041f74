"""Entries of the tables of losses by name, with an error that names the nearest spelling."""

from collections.abc import Mapping
from typing import TypeVar

from urt_jax.errors import unknown_choice

Entry = TypeVar("Entry")


def chosen(what: str, name: str, table: Mapping[str, Entry]) -> Entry:
    """Return ``table[name]``.

    Raises:
        ValueError: no such name; the message lists the known ones and the nearest.
    """
    if name not in table:
        raise ValueError(f"{what} {unknown_choice(name, table)}")
    return table[name]

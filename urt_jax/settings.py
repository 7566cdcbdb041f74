"""How a room declares its settings: frozen records whose fields carry bounds and, in a comment, their meaning."""

import dataclasses
from collections.abc import Iterator
from typing import Any

Problems = Iterator[tuple[str, str]]  # (knob, what is wrong with it)


def knob(
    default: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    nonempty: bool = False,
) -> Any:
    """Declare a record's field with its bounds; a value of None is outside all bounds' reach."""
    metadata = {"at_least": at_least, "above": above, "at_most": at_most, "nonempty": nonempty}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)

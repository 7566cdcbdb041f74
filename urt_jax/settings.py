"""How a room declares its settings: a frozen record whose fields carry their bounds, and the words for what is wrong.

A record may have a method ``problems()`` that yields the clashes between its knobs. The comment beside a field, or
above it, is what ``--help`` says of it.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

Problems: TypeAlias = Iterator[tuple[str, str]]  # (key below this record, what is wrong with it)


def knob(
    default: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    nonempty: bool = False,
) -> Any:
    """Declare a record's field with its bounds; a value of None meets all of them."""
    metadata = {"at_least": at_least, "above": above, "at_most": at_most, "nonempty": nonempty}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def beyond_bounds(value: Any, bounds: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a value under the bounds that ``knob`` declared; None where nothing is."""
    if bounds.get("nonempty") and not value:
        return "is empty, needs at least one entry"
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return f"got {value}, must be a finite number"
    for name, holds in (
        ("at_least", lambda bound: value >= bound),
        ("above", lambda bound: value > bound),
        ("at_most", lambda bound: value <= bound),
    ):
        bound = bounds.get(name)
        if bound is not None and not holds(bound):
            return f"got {value}, must be {name.replace('_', ' ')} {bound}"
    return None


def bounds_problems(record: Any) -> Problems:
    """Yield each field of a record that is outside the bounds it was declared with."""
    for item in dataclasses.fields(record):
        if told := beyond_bounds(getattr(record, item.name), item.metadata):
            yield item.name, told

"""Declaration of settings: frozen records whose fields have bounds and a comment that explains them."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

Problems = Iterator[tuple[str, str]]  # (knob, message about it)


def knob(
    default: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    nonempty: bool = False,
) -> Any:
    """Declare a record's field with its default and bounds; bounds do not apply to the value None."""
    metadata = {"at_least": at_least, "above": above, "at_most": at_most, "nonempty": nonempty}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def out_of_bounds(value: Any, bounds: Mapping[str, Any]) -> str | None:
    """Return a message if a value is outside the bounds in its field's ``metadata``, else None."""
    if bounds.get("nonempty") and not value:
        return "is empty, needs at least one entry"
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    for name, holds in (
        ("at_least", lambda bound: value >= bound),
        ("above", lambda bound: value > bound),
        ("at_most", lambda bound: value <= bound),
    ):
        bound = bounds.get(name)
        if bound is not None and not holds(bound):
            return f"got {value}, must be {name.replace('_', ' ')} {bound}"
    return None


def bound_problems(settings: Any) -> Problems:
    """Yield each field of a record whose value is outside its bounds, with the message."""
    for field in dataclasses.fields(settings):
        if (told := out_of_bounds(getattr(settings, field.name), field.metadata)) is not None:
            yield field.name, told

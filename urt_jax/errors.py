"""The error for input that a user must correct, and messages about misspelt names; every room may import this one."""

import difflib
from collections.abc import Iterable, Sequence

MAX_NAME = 200  # characters of a misspelt name that are compared with the known ones


class BadInputError(ValueError):
    """Input that the user must correct; the message says what was given, what was needed and what to do."""


def unknown_choice(given: object, known: Iterable[str], near: Sequence[str] | None = None) -> str:
    """Return a message that a name is unknown, with the nearest known spelling and the list of known names.

    ``near`` names likely meanings; None takes the nearest of ``known``.
    """
    known = list(known)
    return f"{shown(given)} is unknown{did_you_mean(given, known, near) or ';'} known: {', '.join(known) or 'none'}"


def did_you_mean(given: object, known: Iterable[str], near: Sequence[str] | None = None) -> str:
    """Return ``; did you mean 'name'?`` with the nearest known names, or with ``near``; "" if there are none."""
    near = nearest(given, known)[:1] if near is None else near
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def nearest(given: object, known: Iterable[str]) -> list[str]:
    """Return the known names that are spelt like the given one, nearest first."""
    text = str(given)[:MAX_NAME]
    near = difflib.get_close_matches(text, list(known), cutoff=0.5)
    return sorted(near, key=lambda name: sorted(name) != sorted(text))  # swapped letters are the commonest typo


def shown(value: object, most: int = 80) -> str:
    """Return a value quoted for a message: at most ``most`` characters, on one line, without memory addresses."""
    if isinstance(value, str | int | float | bool | type(None)):
        told = repr(value[: most + 1] if isinstance(value, str) else value)
    elif isinstance(value, list | tuple):
        told = f"a list of {len(value)}" if len(value) > 8 else f"[{', '.join(shown(item, 24) for item in value)}]"
    elif isinstance(value, dict):
        told = f"an object of {len(value)} keys"
    else:
        told = f"a value of type {type(value).__name__}"
    return told if len(told) <= most + 2 else f"{told[: most - 1]}...{told[0] if told[0] in chr(34) + chr(39) else ''}"

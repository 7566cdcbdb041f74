"""The errors a user can mend, and how a misspelt name is told; every room may import this one."""

import difflib
from collections.abc import Iterable


class BadInputError(ValueError):
    """Input that the user must mend: says what was given, what was needed and what to do."""


def unknown_choice(given: object, known: Iterable[str]) -> str:
    """Say that a name is unknown, with the nearest known spelling and the list of all."""
    known = list(known)
    near = difflib.get_close_matches(str(given), known, cutoff=0.5)
    near.sort(key=lambda name: sorted(name) != sorted(str(given)))  # swapped letters are the commonest slip
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"{shown(given)} is unknown{hint} known: {', '.join(known)}"


def shown(value: object, most: int = 80) -> str:
    """Return a value as it is quoted in a message: at most ``most`` characters, on one line, with no heap address."""
    if isinstance(value, str | int | float | bool | type(None)):
        told = repr(value[: most + 1] if isinstance(value, str) else value)
    elif isinstance(value, list | tuple):
        told = f"a list of {len(value)}" if len(value) > 8 else f"[{', '.join(shown(item, 24) for item in value)}]"
    elif isinstance(value, dict):
        told = f"an object of {len(value)} keys"
    else:
        told = f"a value of type {type(value).__name__}"
    return told if len(told) <= most + 2 else f"{told[: most - 1]}...{told[0] if told[0] in chr(34) + chr(39) else ''}"

"""What a chat template may do for one chat: a budget that texts, lists and rounds are paid from, often ahead."""

import re
import threading
import time
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from jinja2.utils import Namespace

# What a template may do for one chat: characters and items it makes or goes through. A long prompt of a million
# characters takes a few million; what is left is held in memory at four bytes each at most.
MAX_WORK = 50_000_000
ROUND = 50  # of it, what a round, a call of a macro or an item of a list costs beside the characters: a microsecond
LOOK = 20 * ROUND  # of work, after which a round looks at the clock
MAX_SECONDS = 1.0  # of this thread's own time, for what no count of characters sees; published templates take 0.001
MAX_BITS = 4096  # of a whole number; published templates count turns
MAX_PADDING = 1000  # columns that a format may fill up to

_WIDE = re.compile(r"%[^a-zA-Z%]*(?:\*|\d{4,})")


class TooMuch(RuntimeError):
    """A template went beyond its bounds."""


class _Budget(threading.local):
    """What is left to the thread, and when it is next to look at its clock and must have ended by it."""

    left = 0
    look = 0
    ends: float | None = None


_BUDGET = _Budget()


def start_budget() -> None:
    """Give this thread a fresh budget."""
    _BUDGET.left, _BUDGET.look, _BUDGET.ends = MAX_WORK, MAX_WORK - LOOK, None


def spend(amount: int) -> None:
    """Take from the budget of what this thread renders.

    Raises:
        TooMuch: there is not as much left.
    """
    _BUDGET.left -= amount
    if _BUDGET.left < 0:
        raise TooMuch(f"more than {MAX_WORK:,} characters and items are made or gone through")


def spend_round(amount: int) -> None:
    """Take a round from the budget, and after every so many look at the clock, which runs from the first look.

    Raises:
        TooMuch: there is not as much left, or the time is used up.
    """
    spend(amount)
    budget = _BUDGET
    if budget.left > budget.look:
        return
    budget.look = budget.left - LOOK
    now = time.thread_time()
    if budget.ends is None:
        budget.ends = now + MAX_SECONDS
    elif now > budget.ends:
        raise TooMuch(f"more than {MAX_SECONDS:g} seconds are used")


def size_of(value: Any) -> int:
    """Return how many characters a value is written as, about; what cannot be paid for is not counted to its end."""
    if isinstance(value, str | bytes | range):
        return len(value)
    if isinstance(value, Namespace):
        value = object.__getattribute__(value, "_Namespace__attrs")  # which reads names as a template does
    if not isinstance(value, list | tuple | dict | set | frozenset):
        return 0
    total = 0
    parts: Iterable[Any] = (part for pair in value.items() for part in pair) if isinstance(value, dict) else value
    for part in parts:
        total += ROUND + size_of(part)
        if total > _BUDGET.left:
            break
    return total


def paid(value: Any) -> Any:
    """Return a value that was made, once it is paid for."""
    spend(len(value) if type(value) is str else size_of(value))
    return value


def check_product(left: Any, right: Any) -> None:
    """Pay for ``left * right`` ahead."""
    if isinstance(left, int) and isinstance(right, int):
        check_bits(left.bit_length() + right.bit_length())
    for many, times in ((left, right), (right, left)):
        if isinstance(many, str | bytes | list | tuple) and isinstance(times, int):
            spend(max(times, 0) * (size_of(many) + ROUND * isinstance(many, list | tuple)))


def check_bits(bits: int) -> None:
    """Refuse a whole number of that many bits."""
    if bits > MAX_BITS:
        raise TooMuch(f"a whole number of more than {MAX_BITS} bits")


def check_format(wanted: str, values: Any) -> None:
    """Pay for ``wanted % values`` ahead."""
    if _WIDE.search(wanted):
        raise TooMuch(f"a format fills up to more than {MAX_PADDING} columns")
    spend(len(wanted) + (1 + wanted.count("%(")) * (size_of(values) + MAX_PADDING))


def paid_ahead(owner: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Pay for what a method of a text or number may make; return its arguments, of which one may be used up."""
    if name == "replace" and isinstance(owner, str) and len(args) > 1:
        _pay_replaced(owner, args[0], args[1])
    elif name == "join" and args:
        args = (list(args[0]), *args[1:])
        spend(size_of(args[0]) + len(owner) * len(args[0]))
    else:
        spend(sum(abs(n) for n in (*args, *kwargs.values()) if isinstance(n, int)))
    return args


def _pay_replaced(text: str, old: Any, new: Any) -> None:
    if isinstance(old, str) and isinstance(new, str):
        spend(len(text) + (text.count(old) + (not old)) * len(new))


def _pay_indented(text: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    spend(str(text).count("\n") * (len(width) if isinstance(width, str) else abs(int(width))))


def _pay_json(value: Any, *args: Any, indent: Any = None, **_: Any) -> None:
    given = args[1] if len(args) > 1 else indent
    spend(size_of(value) * (2 + (len(given) if isinstance(given, str) else abs(int(given or 0)))))


def _pay_numbers(value: Any, *args: Any, **kwargs: Any) -> None:
    spend(sum(abs(n) for n in (*args, *kwargs.values()) if isinstance(n, int)))


def _pay_sum(value: list[Any], *_: Any, **kwargs: Any) -> None:
    if not all(isinstance(item, int | float) for item in value):
        spend(len(value) * size_of(value))


def _pay_joined(value: list[Any], separator: Any = "", *_: Any, **__: Any) -> None:
    spend(size_of(value) + size_of(separator) * len(value))


def _pay_wrapped(text: Any, width: Any = 79, *_: Any, **__: Any) -> None:
    spend(len(str(text)) * (1 + len(str(text)) // max(int(width), 1)))  # a long word is cut off line by line


def _pay_spelled(value: Any, *_: Any, **__: Any) -> None:
    spend(10 * size_of(value))  # "&quot;" and "%F0%9F%99%82" are the longest that one character becomes


# What filters may make that is larger than what they are given, paid for ahead.
_AHEAD: dict[str, Callable[..., None]] = {
    "center": _pay_numbers,
    "batch": _pay_numbers,
    "slice": _pay_numbers,
    "indent": _pay_indented,
    "tojson": _pay_json,
    "sum": _pay_sum,
    "wordwrap": _pay_wrapped,
    "join": _pay_joined,
    "replace": lambda text, old, new, *_, **__: _pay_replaced(str(text), old, new),
    "format": lambda text, *args, **kwargs: check_format(str(text), args or kwargs),
    **dict.fromkeys(("escape", "e", "forceescape", "urlencode", "xmlattr", "urlize", "pprint"), _pay_spelled),
}


def paying_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the filter of that name so that it pays for what it makes."""
    ahead, first = _AHEAD.get(name), 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def paying(*args: Any, **kwargs: Any) -> Any:
        if ahead is not None:
            value = args[first]
            if name in ("join", "sum") and not isinstance(value, str):
                value = list(value)
            args = (*args[:first], value, *args[first + 1 :])
            ahead(*args[first:], **kwargs)
        return paid(function(*args, **kwargs))

    return paying

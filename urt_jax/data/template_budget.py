"""The budget of a chat template for one chat, charged for texts, lists and iterations, often in advance."""

import re
import threading
import time
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from jinja2.utils import Namespace

# Characters and items that a template may make or iterate over for one chat. A long prompt of a million characters
# takes a few million; at four bytes each at most, the rest fits in memory.
MAX_WORK = 50_000_000
ROUND = 50  # charge for an iteration, a macro call or a list item besides its characters: about a microsecond
LOOK = 20 * ROUND  # work after which an iteration checks the clock
MAX_SECONDS = 1.0  # of this thread's CPU time, for work without characters; published templates take 0.001
MAX_BITS = 4096  # of an integer; published templates only count turns
MAX_PADDING = 1000  # columns that a format may fill up to

_WIDE = re.compile(r"%[^a-zA-Z%]*(?:\*|\d{4,})")


class TooMuch(RuntimeError):
    """A template exceeded its bounds."""


class _Budget(threading.local):
    """The thread's remaining budget, the work at which it next checks the clock, and its deadline."""

    left = 0
    look = 0
    ends: float | None = None


_BUDGET = _Budget()


def start_budget() -> None:
    """Give this thread a fresh budget."""
    _BUDGET.left, _BUDGET.look, _BUDGET.ends = MAX_WORK, MAX_WORK - LOOK, None


def spend(amount: int) -> None:
    """Charge this thread's budget.

    Raises:
        TooMuch: the budget is exceeded.
    """
    _BUDGET.left -= amount
    if _BUDGET.left < 0:
        raise TooMuch(f"more than {MAX_WORK:,} characters and items are made or gone through")


def spend_round(amount: int) -> None:
    """Charge an iteration, and check the clock every so often; the clock starts at the first check.

    Raises:
        TooMuch: the budget or the time is exceeded.
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
    """Return the approximate length of a value's text; counting stops once the budget is exceeded."""
    if isinstance(value, str | bytes | range):
        return len(value)
    if isinstance(value, Namespace):
        value = object.__getattribute__(value, "_Namespace__attrs")  # Namespace redefines attribute access
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
    """Charge for a value and return it."""
    spend(len(value) if type(value) is str else size_of(value))
    return value


def check_product(left: Any, right: Any) -> None:
    """Charge for ``left * right`` in advance."""
    if isinstance(left, int) and isinstance(right, int):
        check_bits(left.bit_length() + right.bit_length())
    for many, times in ((left, right), (right, left)):
        if isinstance(many, str | bytes | list | tuple) and isinstance(times, int):
            spend(max(times, 0) * (size_of(many) + ROUND * isinstance(many, list | tuple)))


def check_bits(bits: int) -> None:
    """Refuse an integer of more than ``MAX_BITS`` bits."""
    if bits > MAX_BITS:
        raise TooMuch(f"a whole number of more than {MAX_BITS} bits")


def check_format(wanted: str, values: Any) -> None:
    """Charge for ``wanted % values`` in advance."""
    if _WIDE.search(wanted):
        raise TooMuch(f"a format fills up to more than {MAX_PADDING} columns")
    spend(len(wanted) + (1 + wanted.count("%(")) * (size_of(values) + MAX_PADDING))


def paid_ahead(owner: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Charge for the result of a method of a text or number; return its arguments, copied if one is an iterator."""
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
    spend(len(str(text)) * (1 + len(str(text)) // max(int(width), 1)))  # a long word is split line by line


def _pay_spelled(value: Any, *_: Any, **__: Any) -> None:
    spend(10 * size_of(value))  # the longest escapes of one character are "&quot;" and "%F0%9F%99%82"


# Filters whose results can be larger than their inputs, with their charge in advance.
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
    """Wrap the filter of that name so that it charges for its result."""
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

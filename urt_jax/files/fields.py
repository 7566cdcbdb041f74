"""Typed access to the fields of a parsed object: type, bounds and finiteness are checked; errors name the field."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, overload

from urt_jax.errors import BadInputError, shown, unknown_choice

T = TypeVar("T")
_NEEDED: Any = object()  # the default of a field that has none


class Fields(Mapping[str, Any]):
    """A parsed object and its location ``where`` ("config.json", "train.jsonl line 7").

    A field that is missing or null takes its ``default``; without a default it is an error. The only conversion is of
    a whole number written as 7.0. As a mapping it returns the values as read.

    ``error`` makes the exception from a message, for callers that need their own type.
    """

    def __init__(
        self, values: Mapping[str, Any], where: str, *, error: Callable[[str], BadInputError] = BadInputError
    ) -> None:
        self._values = values
        self.where = where
        self._error = error

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value as read."""
        return self._values.get(key, default)

    @overload
    def integer(self, key: str, *, at_least: int = ..., at_most: int) -> int: ...
    @overload
    def integer(self, key: str, default: T, *, at_least: int = ..., at_most: int) -> int | T: ...
    def integer(self, key: str, default: Any = _NEEDED, *, at_least: int = 0, at_most: int) -> Any:
        """Return a whole number from ``at_least`` to ``at_most``.

        Raises:
            BadInputError: as from all methods, with location, key, value, and what was needed.
        """
        if default is not _NEEDED and self._values.get(key) is None:
            return default
        needed = f"a whole number from {at_least:,} to {at_most:,}"
        value = self._given(key, default, needed)
        if value is default:
            return value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not at_least <= value <= at_most:
            raise self.refusal(key, needed)
        return value

    @overload
    def number(self, key: str, *, at_least: float = ..., at_most: float = ..., above: float = ...) -> float: ...
    @overload
    def number(
        self, key: str, default: T, *, at_least: float = ..., at_most: float = ..., above: float = ...
    ) -> float | T: ...
    def number(
        self,
        key: str,
        default: Any = _NEEDED,
        *,
        at_least: float = -math.inf,
        at_most: float = math.inf,
        above: float = -math.inf,
    ) -> Any:
        """Return a finite number within its bounds."""
        if default is not _NEEDED and self._values.get(key) is None:
            return default
        bounds = {"above": above, "at least": at_least, "at most": at_most}
        told = " and ".join(f"{name} {bound:g}" for name, bound in bounds.items() if math.isfinite(bound))
        needed = f"a number{f' {told}' if told else ''}"
        value = self._given(key, default, needed)
        if value is default:
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refusal(key, needed)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not (math.isfinite(number) and at_least <= number <= at_most and number > above):
            raise self.refusal(key, needed)
        return number

    @overload
    def text(self, key: str) -> str: ...
    @overload
    def text(self, key: str, default: T) -> str | T: ...
    def text(self, key: str, default: Any = _NEEDED) -> Any:
        """Return a text."""
        return self._of_type(key, default, str, "a text")

    @overload
    def flag(self, key: str) -> bool: ...
    @overload
    def flag(self, key: str, default: T) -> bool | T: ...
    def flag(self, key: str, default: Any = _NEEDED) -> Any:
        """Return true or false."""
        return self._of_type(key, default, bool, "true or false")

    def choice(self, key: str, known: tuple[str, ...], default: Any = _NEEDED) -> Any:
        """Return one of the known names."""
        value = self.text(key, default)
        if value is not default and value not in known:
            raise self._error(f"{self.where}: {key} " + unknown_choice(value, known))
        return value

    def group(self, key: str, default: Any = _NEEDED) -> Any:
        """Return an object, or a default that is a mapping, as ``Fields``."""
        value = self._of_type(key, default, Mapping, "an object")
        return Fields(value, f"{self.where}: {key}", error=self._error) if isinstance(value, Mapping) else value

    def values_of(self, key: str, default: Any = _NEEDED, *, at_least: int = 0, at_most: int) -> Any:
        """Return a list of ``at_least`` to ``at_most`` items of any kind."""
        if default is not _NEEDED and self._values.get(key) is None:
            return default
        needed = f"a list of {at_least:,} to {at_most:,} items" if at_least else f"a list of at most {at_most:,} items"
        value = self._of_type(key, default, list, needed)
        if value is not default and not at_least <= len(value) <= at_most:
            raise self._error(f"{self.where}: {key} has {len(value):,} items; needed {needed}")
        return value

    def items_of(self, key: str, default: Any = _NEEDED, *, at_least: int = 0, at_most: int) -> Any:
        """Return a list as ``Fields`` with the keys "0", "1", ..., so that items are read by type."""
        values = self.values_of(key, default, at_least=at_least, at_most=at_most)
        if values is default:
            return values
        numbered = {str(n): value for n, value in enumerate(values)}
        return Fields(numbered, f"{self.where}: {key}", error=self._error)

    def integers(
        self, key: str, default: Any = _NEEDED, *, size: int | None = None, at_least: int = 0, at_most: int
    ) -> Any:
        """Return a tuple of whole numbers, of ``size`` items if given."""
        items = self.items_of(key, default, at_least=size or 0, at_most=size or 4096)
        if items is default:
            return items
        return tuple(items.integer(n, at_least=at_least, at_most=at_most) for n in items)

    def numbers(self, key: str, default: Any = _NEEDED, *, size: int | None = None, **bounds: float) -> Any:
        """Return a tuple of finite numbers, of ``size`` items if given."""
        items = self.items_of(key, default, at_least=size or 0, at_most=size or 4096)
        return items if items is default else tuple(items.number(n, **bounds) for n in items)

    def texts(self, key: str, default: Any = _NEEDED, *, at_most: int = 4096) -> Any:
        """Return a tuple of texts."""
        items = self.items_of(key, default, at_most=at_most)
        return items if items is default else tuple(items.text(n) for n in items)

    def refusal(self, key: str, needed: str) -> BadInputError:
        """Return the error for a field with a wrong value; the caller raises it."""
        return self._error(f"{self.where}: {key} is {shown(self._values.get(key))}; needed {needed}")

    def _of_type(self, key: str, default: Any, kind: type, needed: str) -> Any:
        value = self._given(key, default, needed)
        if value is not default and not isinstance(value, kind):
            raise self.refusal(key, needed)
        return value

    def _given(self, key: str, default: Any, needed: str) -> Any:
        value = self._values.get(key)
        if value is not None:
            return value
        if default is _NEEDED:
            raise self._error(f"{self.where}: {key} is missing; needed {needed}")
        return default

"""What the layouts share: a row's label by its published spelling, numbers, and the fields that become ``meta``."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from urt_jax.data.sources.files import RecordError
from urt_jax.errors import shown
from urt_jax.files.fields import Fields

Label = int | Literal["tie"] | None
MAX_RATING = 1e6
_OURS = frozenset(("scores", "aspects", "candidates", "correct_of", "history", "prompt_group", "unseen", "swapped"))


@dataclass(frozen=True)
class Layout:
    """A published layout: it is recognised by ``columns``, which a row has, and by ``matches``, if they are not enough.

    ``convert`` turns a row into the fields of our own schema (``docs/data.md``). It raises a ``RecordError`` for a
    label that it does not know.
    """

    name: str
    columns: frozenset[str]
    convert: Callable[[Fields], dict[str, Any]]
    matches: Callable[[Fields], bool] = lambda fields: True

    def fits(self, fields: Fields) -> bool:
        """Return whether a row has this layout."""
        return self.columns <= fields.keys() and self.matches(fields)


def bad_label(fields: Fields, name: str, needed: str) -> RecordError:
    """Return the error for a label field with a value that its layout does not know."""
    return RecordError(f"{fields.where}: {name} is {shown(fields.get(name))}; needed {needed}", reason="bad label")


def spelt(fields: Fields, name: str, labels: Mapping[str, Label]) -> Label:
    """Return the label of a field that spells it; a missing field is None.

    Raises:
        RecordError: another spelling.
    """
    value = fields.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str) or value.strip() not in labels:
        raise bad_label(fields, name, " or ".join(map(repr, labels)))
    return labels[value.strip()]


def larger(first: float | None, second: float | None) -> Label:
    """Return which of two numbers is larger, "tie" if they are equal, None if one is missing."""
    if first is None or second is None:
        return None
    return "tie" if first == second else 1 if first > second else 2


def number(fields: Fields, name: str) -> float | None:
    """Return a number of a row, None if it is missing."""
    found: float | None = fields.number(name, None, at_least=-MAX_RATING, at_most=MAX_RATING)
    return found


def ranks(fields: Fields, name: str, *, size: int) -> list[int]:
    """Return ranks counted from 1; published ones count from 0 or 1, and the least is the best.

    Raises:
        RecordError: not one whole number per candidate.
    """
    given: tuple[int, ...] = fields.integers(name, size=size, at_most=4096)
    return [rank - min(given) + 1 for rank in given]


def scores_by_people(fields: Fields) -> tuple[dict[str, list[float]], tuple[str, ...]]:
    """Return the scores ``model1_dim1_score``, ``model2_dim1_score``, ... of EditReward's files, and their columns."""
    scores: dict[str, list[float]] = {}
    used: list[str] = []
    for name in fields:
        found = re.fullmatch(r"model1_(dim[0-9]{1,2})_score", name)
        if found is None:
            continue
        both = [number(fields, f"model{place}_{found[1]}_score") for place in (1, 2)]
        used += [f"model{place}_{found[1]}_score" for place in (1, 2)]
        if both[0] is not None and both[1] is not None:
            scores[found[1]] = [both[0], both[1]]
    return scores, tuple(used)


def better_sum(scores: Mapping[str, Sequence[float]]) -> Label:
    """Return which candidate has the larger sum of scores; None without scores."""
    return larger(*(sum(column) for column in zip(*scores.values()))) if scores else None


def meta(fields: Fields, used: Collection[str]) -> dict[str, Any]:
    """Return the other fields of a row; one that has a name which we read in ``meta`` becomes ``published_<name>``."""
    return {f"published_{name}" if name in _OURS else name: value for name, value in fields.items() if name not in used}


def record(fields: Fields, used: Sequence[str], **own: Any) -> dict[str, Any]:
    """Return our own fields without missing ones, with the row's id and, as ``meta``, its other fields."""
    told = {name: value for name, value in own.items() if value is not None}
    extra = told.pop("meta", {})
    kept = meta(fields, {"id", *used}) | extra
    identity = {"id": fields["id"]} if "id" in fields else {}
    return identity | told | ({"meta": kept} if kept else {})

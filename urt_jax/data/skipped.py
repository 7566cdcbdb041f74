"""Counts of skipped records by reason: printed, stored, and limited to a share of the source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from urt_jax.errors import BadInputError

MAX_SKIPPED = 0.05  # share of a source; above it the source is probably of another kind than assumed
LEAKED = "in a benchmark"
TWIN = "the other order of a pair"
SOUND = ("tie", TWIN, LEAKED)  # reasons that do not count against a source: valid records that a stage cannot use


@dataclass(frozen=True)
class Skipped:
    """How many of a source's ``records`` were skipped for each reason, and each reason's first full message."""

    source: str
    records: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    messages: Mapping[str, str] = field(default_factory=dict)

    def and_also(self, reason: str, messages: Iterable[str]) -> Skipped:
        """Return the counts with further records skipped for one reason, one message each."""
        further = list(messages)
        if not further:
            return self
        counts = {**self.counts, reason: self.counts.get(reason, 0) + len(further)}
        return Skipped(self.source, self.records, counts, {reason: further[0], **self.messages})

    def told(self) -> str:
        """Return a line per reason, the commonest first; "" if no record was skipped."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        lines = [f"  {count} x {reason}; the first: {self.messages[reason]}" for reason, count in ordered]
        total = f"skipped {sum(self.counts.values())} of {self.records} records of {self.source}:"
        return "\n".join([total, *lines]) if lines else ""

    def check(self, most: float) -> None:
        """Refuse the source if more than this share of its records was skipped as invalid.

        Raises:
            BadInputError: the counts by reason, with the first message of each.
        """
        unsound = sum(count for reason, count in self.counts.items() if reason not in SOUND)
        if unsound > most * self.records:
            raise BadInputError(
                f"{self.source}: {unsound} of {self.records} records cannot be used, data.max_skipped_share allows "
                f"{most:g} of them; fix them, or raise data.max_skipped_share knowingly\n{self.told()}"
            )

    def as_json(self) -> dict[str, Any]:
        """Return the form that ``result.json`` stores."""
        reasons = {name: {"count": count, "first": self.messages[name]} for name, count in self.counts.items()}
        return {"source": self.source, "records": self.records, "reasons": reasons}

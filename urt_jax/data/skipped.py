"""What was left out of a source of records, by reason: told, stored, and bounded by a share of the source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from urt_jax.errors import BadInputError

MAX_SKIPPED = 0.05  # share of a source: above it the source is of another kind than was taken for, not a little dirty
SOUND = ("tie",)  # reasons that say nothing against a source: a sound record that a stage has no use for


@dataclass(frozen=True)
class Skipped:
    """How many of the ``records`` of a source were left out for which reason, and the full message of each first."""

    source: str
    records: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    messages: Mapping[str, str] = field(default_factory=dict)

    def and_also(self, reason: str, messages: Iterable[str]) -> Skipped:
        """Return this with further records left out for one reason, one message each."""
        further = list(messages)
        if not further:
            return self
        counts = {**self.counts, reason: self.counts.get(reason, 0) + len(further)}
        return Skipped(self.source, self.records, counts, {reason: further[0], **self.messages})

    def told(self) -> str:
        """Return one line a reason, the commonest first; nothing where nothing was left out."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        lines = [f"  {count} x {reason}; the first: {self.messages[reason]}" for reason, count in ordered]
        total = f"skipped {sum(self.counts.values())} of {self.records} records of {self.source}:"
        return "\n".join([total, *lines]) if lines else ""

    def check(self, most: float) -> None:
        """Refuse the source where more than this share of its records was skipped as unsound.

        Raises:
            BadInputError: the counts by reason, with the first message of each.
        """
        unsound = sum(count for reason, count in self.counts.items() if reason not in SOUND)
        if unsound > most * self.records:
            raise BadInputError(
                f"{self.source}: {unsound} of {self.records} records cannot be used, data.max_skipped_share allows "
                f"{most:g} of them; mend them, or raise data.max_skipped_share knowingly\n{self.told()}"
            )

    def as_json(self) -> dict[str, Any]:
        """Return what ``result.json`` keeps of it."""
        reasons = {name: {"count": count, "first": self.messages[name]} for name, count in self.counts.items()}
        return {"source": self.source, "records": self.records, "reasons": reasons}

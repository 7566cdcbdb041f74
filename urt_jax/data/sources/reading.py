"""Read a file of records as examples, stopping at the first bad record or counting the bad ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from urt_jax.data.examples import Example
from urt_jax.data.sources.files import Record, RecordError, list_records
from urt_jax.data.sources.schemas import to_example
from urt_jax.errors import BadInputError


class LeftOut(NamedTuple):
    """What was not taken of a source, by reason, with the full message of the first record of each."""

    source: str
    read: int  # records of the source
    counts: dict[str, int]
    messages: dict[str, str]

    def told(self) -> str:
        """Return a line for each reason, below one that counts all; empty where everything was taken."""
        if not self.counts:
            return ""
        lines = [f"skipped {sum(self.counts.values()):,} of {self.read:,} records of {self.source}:"]
        for reason, count in sorted(self.counts.items(), key=lambda item: -item[1]):
            lines.append(f"  {count:,} x {reason}; first: {self.messages[reason][:400]}")
        return "\n".join(lines)

    def check(self, most: float) -> None:
        """Refuse a source of which more than this share was left out.

        Raises:
            BadInputError: it was; says what for.
        """
        if sum(self.counts.values()) > most * self.read:
            raise BadInputError(
                f"{self.told()}\nmore than {100 * most:g} % of the source (data.max_skipped_share): mend the records, "
                "or raise the share if they are meant to be left out"
            )

    def beside(self, reason: str, left: list[Example]) -> LeftOut:
        """Return the same with examples that were read but are of no use to a stage."""
        if not left:
            return self
        first = {reason: f"record {left[0].id}"}
        return self._replace(counts={**self.counts, reason: len(left)}, messages={**self.messages, **first})


class Pool(NamedTuple):
    """The good records of a source, and what was left out."""

    examples: list[Example]
    left_out: LeftOut


def read_examples(
    path: str | Path,
    *,
    media_root: str | Path | None = None,
    require_label: bool = False,
    first_label: int = 1,
    seed: int = 0,
) -> list[Example]:
    """Read every record of a file; media are located, not decoded.

    Reads a ``.json`` list, a ``.jsonl`` file, or a mixture ``.yaml`` (``datasets: [{json_path, image_folder,
    sampling_strategy}]``, strategy ``all``, ``first:N``, ``end:N`` or ``random:N``, N a number or a percentage). Known
    records: SFT ``conversations`` / ``messages``, GRPO ``problem`` + ``solution``, DPO ``chosen`` + ``rejected``, and
    our own ``caption`` or ``question`` + ``answers``. Of a conversation with several replies the last is the response,
    the turns before it go to ``meta["history"]``. A DPO record has its winner first: swap it before showing it.

    Args:
        media_root: folder that relative media paths start from; the file's own folder when None.
        require_label: refuse a record without a winner or a declared tie.
        first_label: what the file calls the first candidate in ``label``, 1 or 0.
        seed: decides what ``random:N`` takes.

    Raises:
        BadInputError: file and record number of the first bad record, and what is wrong with it.
    """
    records = list_records(path, media_root=media_root, seed=seed)
    return list(_examples(records, require_label=require_label, first_label=first_label, bad=None))


def read_pool(
    path: str | Path,
    *,
    media_root: str | Path | None = None,
    require_label: bool = False,
    first_label: int = 1,
    seed: int = 0,
) -> Pool:
    """Read the good records of a file and count the bad ones by reason; arguments as in ``read_examples``.

    Raises:
        BadInputError: the file itself cannot be read (its bad records are counted, not raised), or a label 0 says that
            it counts from 0 and ``first_label`` says 1.
    """
    bad: list[RecordError] = []
    records = list_records(path, media_root=media_root, seed=seed)
    examples = list(_examples(records, require_label=require_label, first_label=first_label, bad=bad))
    first = {error.reason: str(error) for error in reversed(bad)}
    return Pool(examples, LeftOut(str(path), len(records), dict(Counter(error.reason for error in bad)), first))


def _examples(
    records: list[Record], *, require_label: bool, first_label: int, bad: list[RecordError] | None
) -> Iterator[Example]:
    """Yield the examples; errors go to ``bad`` where given. An id that comes again gets ``#2``, ``#3``, ..."""
    seen: Counter[str] = Counter()
    for record in records:
        try:
            example = to_example(record, require_label=require_label, first_label=first_label)
        except RecordError as error:
            if bad is None:
                raise
            bad.append(error)
            continue
        seen[example.id] += 1
        count = seen[example.id]
        yield example if count == 1 else replace(example, id=f"{example.id}#{count}")

"""Reading a file of records as examples, either stopping at the first bad record or counting bad ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from urt_jax.data.examples import Example
from urt_jax.data.skipped import Skipped
from urt_jax.data.sources.files import Record, RecordError
from urt_jax.data.sources.kinds import open_rows
from urt_jax.data.sources.layouts.table import layout_named
from urt_jax.data.sources.schemas import to_example


class Pool(NamedTuple):
    """The good records of a filtered pool, and the counts of skipped ones."""

    examples: list[Example]
    skipped: Skipped


def read_examples(
    path: str | Path,
    *,
    media_root: str | Path | None = None,
    require_label: bool = False,
    seed: int = 0,
    first_label: int = 1,
    layout: str | None = None,
) -> list[Example]:
    """Read every record of a file; media are located, not decoded.

    Reads every kind of source in ``kinds.KINDS``. A mixture ``.yaml`` is ``datasets: [{json_path, image_folder,
    sampling_strategy, first_label}]``, strategy ``all``, ``first:N``, ``end:N`` or ``random:N``, N a number or a
    percentage. Known records: SFT ``conversations`` / ``messages``, GRPO ``problem`` + ``solution``, DPO ``chosen`` +
    ``rejected``, our own ``caption``, ``instruction`` or ``question`` + ``answers``, and the published layouts of
    ``layouts.table``. Of a conversation with several replies the last is the response; the turns before it go to
    ``meta["history"]``. A DPO record has its winner first, so swap pairs at random before use.

    Args:
        media_root: folder of relative media paths; the file's own folder when None.
        require_label: refuse a record without a winner or a declared tie.
        seed: seed of ``random:N``.
        first_label: number of the first candidate in ``label`` and ``solution``: 1, or 0.
        layout: name of the source's published layout (``layouts.table``), or ``module:function``; None = found by each
            record's columns.

    Raises:
        BadInputError: file and record number of the first bad record, and its fault.
    """
    records = open_rows(path, media_root=media_root, seed=seed, first_label=first_label)
    return list(_examples(records, require_label=require_label, bad=None, layout=layout))


def read_pool(
    path: str | Path,
    *,
    media_root: str | Path | None = None,
    require_label: bool = False,
    seed: int = 0,
    first_label: int = 1,
    layout: str | None = None,
) -> Pool:
    """Read the good records of a file and count the bad ones by reason; arguments as in ``read_examples``.

    Raises:
        BadInputError: the file itself cannot be read, or a record shows that its labels count from 0 (other bad
            records are counted, not raised).
    """
    bad: list[RecordError] = []
    records = open_rows(path, media_root=media_root, seed=seed, first_label=first_label)
    examples = list(_examples(records, require_label=require_label, bad=bad, layout=layout))
    first = {error.reason: str(error) for error in reversed(bad)}
    return Pool(examples, Skipped(str(path), len(records), dict(Counter(error.reason for error in bad)), first))


def _examples(
    records: Iterable[Record], *, require_label: bool, bad: list[RecordError] | None, layout: str | None
) -> Iterator[Example]:
    """Yield the examples; errors go to ``bad`` if given. Repeated ids get ``#2``, ``#3``, ..."""
    named = None if layout is None else layout_named(layout)
    seen: Counter[str] = Counter()
    for record in records:
        try:
            example = to_example(record, require_label=require_label, layout=named)
        except RecordError as error:
            if bad is None:
                raise
            bad.append(error)
            continue
        seen[example.id] += 1
        count = seen[example.id]
        yield example if count == 1 else replace(example, id=f"{example.id}#{count}")

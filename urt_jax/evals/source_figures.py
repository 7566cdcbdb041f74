"""What a source of records holds: labels, ties, order, duplicates, sizes and prompt lengths; and a page to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from urt_jax.data.examples import Example
from urt_jax.data.leaks import normalised
from urt_jax.evals.pictures import question_shown
from urt_jax.evals.report import page_template
from urt_jax.evals.tables import Cell
from urt_jax.files.json_text import well_formed
from urt_jax.files.whole import write_whole

ALL = "all"


@dataclass(frozen=True)
class Looked:
    """What was found in one record beside its own fields."""

    media: tuple[tuple[str, int, int], ...] = ()  # (hash, height, width) of each picture or clip
    tokens: int = 0  # of the prompt with its pictures


def source_rows(examples: Sequence[Example], looked: Mapping[str, Looked]) -> list[dict[str, Cell]]:
    """Return a table row per task, and one of all records if there are several tasks.

    ``looked`` is what was found in the records that were decoded, by id. "first better" is the share of decided pairs
    whose first candidate is the better one.
    """
    tasks = list(dict.fromkeys(str(example.task) for example in examples))
    rows = [_row(task, [e for e in examples if str(e.task) == task], looked) for task in tasks]
    return rows if len(rows) == 1 else [*rows, _row(ALL, examples, looked)]


def _row(name: str, examples: Sequence[Example], looked: Mapping[str, Looked]) -> dict[str, Cell]:
    labels = Counter(example.label for example in examples)
    decided = labels[1] + labels[2]
    asked = Counter(normalised(example.prompt or example.text or "") for example in examples)
    return {
        "task": name,
        "records": len(examples),
        "labelled": sum(example.judged for example in examples),
        "ties": labels["tie"],
        "first better": f"{100 * labels[1] / decided:.1f} %" if decided else "–",
        "responses": sum(example.response is not None for example in examples),
        "prompts repeated": sum(count - 1 for count in asked.values()),
        **_looked_cells([looked[example.id] for example in examples if example.id in looked]),
    }


def _looked_cells(found: Sequence[Looked]) -> dict[str, Cell]:
    """Return the cells of what only decoding tells."""
    media = [item for one in found for item in one.media]
    hashes = Counter(name for name, _, _ in media)
    sides = np.array([(height, width) for _, height, width in media] or [(0, 0)])
    pixels = sides.prod(axis=1)
    least, most = sides[pixels.argmin()], sides[pixels.argmax()]
    return {
        "looked at": len(found),
        "media": len(media),
        "media repeated": sum(count - 1 for count in hashes.values()),
        "smallest": f"{least[1]} x {least[0]}",
        "largest": f"{most[1]} x {most[0]}",
        "longest prompt": max((one.tokens for one in found), default=0),
    }


def write_page(
    path: Path, *, title: str, note: str, rows: Sequence[Mapping[str, Any]], shown: Sequence[Example]
) -> None:
    """Write a page with the table and records with their pictures, atomically.

    Raises:
        BadInputError: a picture or clip cannot be read.
    """
    records = [
        {
            **question_shown(example, swapped=False),
            "response": example.response or "",
            "solution": example.solution or "",
            "meta": {key: value for key, value in example.meta.items() if key not in ("candidates", "history")},
        }
        for example in shown
    ]
    page = page_template("source.html").render(title=title, note=note, rows=rows, records=records)
    write_whole(path, well_formed(page))

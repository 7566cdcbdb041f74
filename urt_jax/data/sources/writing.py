"""Writing examples as JSONL in the original's schemas, with our own fields."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from urt_jax.data import prompts
from urt_jax.data.examples import Example, Media
from urt_jax.data.sources.files import Record
from urt_jax.data.sources.media import store_media
from urt_jax.data.sources.schemas import to_example
from urt_jax.errors import BadInputError
from urt_jax.files.json_text import parse_object
from urt_jax.files.whole import write_whole
from urt_jax.tasks import TASKS

_ROLES = {"user": "human", "assistant": "gpt", "system": "system"}
_TOP_LEVEL_META = ("scores", "difficulty", "split", "provenance")


def write_examples(path: str | Path, examples: Iterable[Example]) -> None:
    """Write examples atomically as JSONL that ``read_examples`` can read.

    An example with a response becomes an SFT record (``conversations``), one without a GRPO record (``problem``,
    ``solution``); both also carry our own fields. Media that are not files are written under ``media/`` beside it.

    Raises:
        BadInputError: an example that cannot be rendered, or that ``read_examples`` would not accept.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)  # media paths such as "../1.png" are relative to it
    write_whole(path, "".join(_line(example, path.parent) for example in examples))


def _line(example: Example, folder: Path) -> str:
    """Return the line of an example, after parsing it as a check."""
    try:
        line = json.dumps(
            fields_of(example, lambda item: store_media(item, folder)), ensure_ascii=False, default=_plain
        )
        to_example(Record(parse_object(line), "its line", example.id, folder), require_label=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise BadInputError(f"record {example.id}: it cannot be written so that it is read back: {error}") from None
    return line + "\n"


def fields_of(example: Example, store: Callable[[Media], Any] | None = None) -> dict[str, Any]:
    """Return an example as the fields of a record, with what ``store`` returns for its media; None: without them.

    Raises:
        BadInputError: the example cannot be rendered.
    """
    media = prompts.all_media(example)
    task = None if example.task is None else TASKS[example.task]
    record: dict[str, Any] = {"id": example.id, "task": example.task}
    asked = prompts.prompt_text(example)
    history = example.meta.get("history", [])
    if example.response is not None or history:
        if media and not prompts.media_tags(example):
            asked = "".join(f"<{item.kind}>" for item in media) + asked
        turns = [*history, {"role": "user", "content": asked}]
        if example.response is not None:
            turns.append({"role": "assistant", "content": example.response})
        record["conversations"] = [{"from": _ROLES[turn["role"]], "value": turn["content"]} for turn in turns]
    else:
        record["problem"] = asked
    if example.solution is not None:
        record["solution"] = example.solution
    elif example.label is not None:
        record["label"] = example.label
    if example.ranking is not None:
        record["ranking"] = list(example.ranking)
    if example.text is not None and (example.prompt or asked != example.text):
        record["text"] = example.text
    if example.prompt:
        record["question" if task is None else task.prompt_field] = example.prompt
    answers = [item for item in example.candidates if isinstance(item, str)]
    if answers:
        record["answers"] = answers
    record |= _media_fields(example, media, store)
    if example.votes is not None:
        record["votes"] = list(example.votes)
    record |= {key: example.meta[key] for key in _TOP_LEVEL_META if key in example.meta}
    rest = {key: value for key, value in example.meta.items() if key not in (*_TOP_LEVEL_META, "history")}
    return record | ({"meta": rest} if rest else {})


def _media_fields(example: Example, media: tuple[Media, ...], store: Callable[[Media], Any] | None) -> dict[str, Any]:
    """Return ``images``, ``videos``, ``fps`` and, unless the task implies it, the number of context media."""
    fields: dict[str, Any] = {}
    for kind in ("image", "video"):
        items = [item for item in media if item.kind == kind]
        if not items:
            continue
        if store is not None:
            fields[f"{kind}s"] = [store(item) for item in items]
        shared = sum(item.kind == kind for item in example.context)
        if shared != (TASKS[example.task].context_media(len(items)) if example.task else len(items)):
            fields[f"context_{kind}s"] = shared
    rates = [item.fps for item in media if item.kind == "video"]
    if any(rate is not None for rate in rates):
        fields["fps"] = rates[0] if len(set(rates)) == 1 else rates
    return fields


def _plain(value: Any) -> Any:
    """Convert numpy values of ``meta`` to JSON values."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} in an example's meta cannot be written as JSON")

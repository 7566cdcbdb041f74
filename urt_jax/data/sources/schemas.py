"""Conversion of a record of any known schema to an example."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from urt_jax.data import prompts
from urt_jax.data.examples import Example, Media
from urt_jax.data.sources.files import Record, RecordError
from urt_jax.data.sources.labels import (
    LABEL_FIELDS,
    check_first_label,
    check_no_unread_label,
    check_words_count_from_one,
    read_label,
    read_ranking,
    read_votes,
    verdict_of,
)
from urt_jax.data.sources.layouts.row import Layout
from urt_jax.data.sources.layouts.table import find_layout
from urt_jax.data.sources.media import MAX_MEDIA, MEDIA_FIELDS, listed_media, read_media
from urt_jax.data.sources.turns import merged_media
from urt_jax.data.sources.words import TAGS, WORD_FIELDS, Words, read_words
from urt_jax.errors import BadInputError, shown, unknown_choice
from urt_jax.files.fields import Fields
from urt_jax.tasks import PAPER_TASKS, TASKS, Task, find_task, is_task

MAX_ID = 1024  # characters of an id, which every message about its record contains
MAX_DIMENSIONS = 64  # scored dimensions of one record; published ones have 3 to 10

# Fields that are read here; a record's other fields are kept in ``Example.meta``.
_KNOWN = frozenset(
    ("id", "task", *WORD_FIELDS, *LABEL_FIELDS, *MEDIA_FIELDS, "context_images", "context_videos", "meta")
)
# Fields of ``meta`` that stages read as a name or a switch.
_NAMES_IN_META = ("difficulty", "prompt_group", "unseen", "swapped", "split")

_wrong_type: Callable[[str], RecordError] = partial(RecordError, reason="wrong type")


def to_example(record: Record, *, require_label: bool, layout: Layout | None = None) -> Example:
    """Convert a raw record to an example, with its files located. A null field counts as missing.

    ``layout`` is the published layout of the source; None = that of the record's columns, or our own schema.

    Raises:
        RecordError: file and record number, the fault, and the reason under which it is counted.
        BadInputError: the record shows that its source's labels count from 0, against the setting.
    """
    if isinstance(record.fields, str):
        raise RecordError(f"{record.where}: {record.fields}; fix or remove the line", reason="broken line")
    identity = _identity(record)
    values = {key: value for key, value in record.fields.items() if value is not None}
    if "chosen_messages" in values:  # LLaMA-Factory's newer name of chosen and rejected as conversations
        for key in ("chosen", "rejected"):
            values.setdefault(key, values.pop(f"{key}_messages", None))
    fields = Fields(values, f"{record.where} (id {identity})", error=_wrong_type)
    layout = find_layout(fields) if layout is None else layout
    if layout is not None:
        converted = {key: value for key, value in layout.convert(fields).items() if value is not None}
        fields = Fields(converted, f"{fields.where}, layout {layout.name}", error=_wrong_type)
        record = replace(record, fields=converted, first_label=1)
        identity = _identity(record)
    check_first_label(fields, record.first_label)
    check_no_unread_label(fields)
    return _example(record, fields, identity, require_label=require_label)


def _identity(record: Record) -> str:
    assert isinstance(record.fields, dict)
    given = record.fields.get("id")
    if given is None:
        return record.default_id
    if isinstance(given, bool) or not isinstance(given, str | int | float) or len(str(given)) > MAX_ID:
        raise _wrong_type(
            f"{record.where}: id is {shown(given)}; needed a text of at most {MAX_ID:,} characters or a number"
        )
    return str(given)


def _example(record: Record, fields: Fields, identity: str, *, require_label: bool) -> Example:
    where = fields.where
    words = read_words(fields)
    sources = merged_media(words.turns, listed_media(fields))
    media = read_media(fields, sources, root=record.media_root)
    explicit_chat = "task" in record.fields and "task" not in fields
    verdict = verdict_of(fields, words)
    task = None if explicit_chat else _task(fields, words, media, verdict)
    judged_as = None if task is None else TASKS[task]
    if judged_as and judged_as.medium == "video" and media and all(item.kind == "image" for item in media):
        media = _clips_of_pictures(media, 1 if judged_as.answers else judged_as.candidates, where)
    context, compared = _split_media(fields, judged_as, media)
    candidates: tuple[Media | str, ...] = (*compared, *words.answers)
    text = _own_text(fields, words, task)
    check_words_count_from_one(text or "", words.response or "", where)
    label = read_label(fields, verdict, task, record.first_label)
    places = max(len(candidates), 2 if judged_as is None else judged_as.candidates)
    ranking, label = read_ranking(fields, places, label)
    if isinstance(label, int) and not 1 <= label <= places:
        given = shown(fields.get("label", fields.get("solution", label)))
        raise RecordError(f"{where}: label {given}, but it has {len(candidates)} candidates", reason="bad label")
    example = Example(
        id=identity,
        task=task,
        prompt=words.prompt,
        context=context,
        candidates=candidates,
        label=label,
        ranking=ranking,
        answer=fields.text("solution", None) if judged_as and judged_as.candidates == 0 else None,
        votes=read_votes(fields, places),
        text=text,
        response=words.response,
        meta=_meta(fields, words, places),
    )
    if require_label and not example.judged:
        raise RecordError(
            f"{where}: no label and this stage needs one; give solution ('Image 1 is better'), label (1, 2, \"tie\"), "
            "a ranking, or scores of a single candidate",
            reason="no label",
        )
    _check_prompt(example, words, where)
    return example


def _task(fields: Fields, words: Words, media: tuple[Media, ...], verdict: re.Match[str] | None) -> str | None:
    """Return the task that a record names, else the one that its answer and media imply; None is a plain chat."""
    if "task" in fields:
        given: Any = fields["task"]
        if not is_task(given):
            raise RecordError(f"{fields.where}: task {unknown_choice(given, TASKS)}", reason="unknown task")
        return given
    if "instruction" in fields and words.asked is None:
        return "image_edit"
    of_media = {TASKS[name].noun: name for name in PAPER_TASKS if not TASKS[name].answers}
    if verdict is not None and verdict[1] in of_media:
        return of_media[verdict[1]]
    answers = verdict is not None or bool(words.answers)
    if not answers and "caption" not in fields:
        return None
    has_video = any(item.kind == "video" for item in media)
    return find_task("video" if has_video else "image", answers=answers).name


def _clips_of_pictures(media: tuple[Media, ...], clips: int, where: str) -> tuple[Media, ...]:
    """Group the pictures of a video task, which are its frames, into clips of equal length."""
    if len(media) % clips:
        raise RecordError(
            f"{where}: {len(media)} pictures cannot be the frames of {clips} clips of equal length; "
            "give videos, each a list of frame paths",
            reason="media count",
        )
    length = len(media) // clips
    return tuple(
        Media("video", [item.source for item in media[n * length : (n + 1) * length]], media[0].fps)
        for n in range(clips)
    )


def _split_media(
    fields: Fields, task: Task | None, media: tuple[Media, ...]
) -> tuple[tuple[Media, ...], tuple[Media, ...]]:
    """Return (context, candidates): media are the candidates of a generation task, and the context of any other."""
    context: list[Media] = []
    candidates: list[Media] = []
    for kind in ("image", "video"):
        items = [item for item in media if item.kind == kind]
        implied = task.context_media(len(items)) if task else len(items)
        shared = fields.integer(f"context_{kind}s", implied, at_most=MAX_MEDIA)
        if shared > len(items):
            raise RecordError(
                f"{fields.where}: context_{kind}s is {shared}, but it has {len(items)} {kind}s", reason="media count"
            )
        context += items[:shared]
        candidates += items[shared:]
    return tuple(context), tuple(candidates)


def _own_text(fields: Fields, words: Words, task: str | None) -> str | None:
    """Return the record's own prompt text; None if the record has the fields for a template of its task."""
    if "text" in fields:
        return fields.text("text")
    templated = (
        words.prompt and task is not None and (not TASKS[task].answers or len(words.answers) >= TASKS[task].candidates)
    )
    return None if templated else words.asked


def _meta(fields: Fields, words: Words, candidates: int) -> dict[str, Any]:
    meta = {key: fields[key] for key in fields if key not in _KNOWN}
    if "meta" in fields:
        meta |= dict(fields.group("meta"))
    if meta:
        _check_meta(Fields(meta, fields.where, error=_wrong_type), candidates)
    return meta | {"history": [turn.as_message() for turn in words.history]} if words.history else meta


def _check_meta(meta: Fields, candidates: int) -> None:
    """Refuse fields of ``meta`` that stages read but that have a wrong type."""
    if "scores" in meta:
        _check_scores(meta.group("scores"), candidates)
    if "aspects" in meta:
        aspects = meta.group("aspects")
        for name in aspects:
            if aspects[name] != "tie":
                aspects.integer(name, at_least=1, at_most=max(candidates, 1))
    meta.values_of("candidates", None, at_most=candidates)
    meta.integers("correct_of", None, size=2, at_most=1_000_000)
    for name in _NAMES_IN_META:
        if isinstance(meta.get(name), list | dict):
            raise meta.refusal(name, "a name, a number, or true or false")
    if "history" in meta:
        raise meta.refusal("history", "it as a field of the record, not in meta")


def _check_scores(scores: Mapping[str, Any], candidates: int) -> None:
    """Refuse gold scores that are not one finite number per candidate and dimension."""
    assert isinstance(scores, Fields)
    if len(scores) > MAX_DIMENSIONS:
        raise _wrong_type(f"{scores.where} has {len(scores):,} dimensions; at most {MAX_DIMENSIONS} are read")
    for name in scores:
        scores.numbers(name, size=candidates)


def _check_prompt(example: Example, words: Words, where: str) -> None:
    """Refuse control-token text, tags that do not match the media, and records that cannot be rendered."""
    try:
        prompts.check_control_text(example)
    except BadInputError as error:
        raise RecordError(f"{where}: {error}", reason="control text") from error
    problem = _tag_problem(example, words)
    if problem is not None:
        raise RecordError(f"{where}: {problem}", reason="media count")
    if example.text is None:
        _check_template(example, where)


def _check_template(example: Example, where: str) -> None:
    """Refuse a record that no template of its task can render."""
    if example.task is None or not example.prompt.strip():
        raise RecordError(
            f"{where}: nothing to ask: task {example.task}, and {shown(example.prompt)} as its caption or question; "
            "give both, or a prompt of its own as problem or text",
            reason="unknown schema",
        )
    task = TASKS[example.task]
    answers = sum(isinstance(item, str) for item in example.candidates)
    count = answers if task.answers else len(example.candidates)
    if count < task.candidates or (count > 1 and task.candidates == 1):
        needed = ("an open question", "a score", "a comparison")[task.candidates]
        number = ("no candidate", "one candidate", "two candidates")[task.candidates]
        raise RecordError(f"{where}: {needed} for {example.task} needs {number}, it has {count}", reason="media count")
    if task.source and len(example.context) != 1:
        raise RecordError(
            f"{where}: {example.task} needs one source picture before its edits, it has {len(example.context)}",
            reason="media count",
        )


def _tag_problem(example: Example, words: Words) -> str | None:
    """Return how the prompt's media tags differ from the media, or None; also if a template will replace the prompt."""
    if example.text is None and TAGS.search(" ".join((words.prompt, *words.answers))):
        return None  # "<image>" is a word of its caption or of an answer
    media = prompts.all_media(example)
    for text in dict.fromkeys((words.asked, example.text)):
        if text is None:
            continue
        asked = replace(example, text=text)
        if text is words.asked and words.tags_needed and media and not prompts.media_tags(asked):
            return f"more media than placeholders: {len(media)} for no tag; write <image> or <video> where each belongs"
        try:
            prompts.own_text_media(asked, media)
        except BadInputError as error:
            return str(error)
    return None

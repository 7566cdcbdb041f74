"""One record of any known schema as an example."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from typing import Any, Literal, NamedTuple, cast

from urt_jax.data import prompts
from urt_jax.data.examples import NOUNS, TASKS, Example, Media, Task
from urt_jax.data.sources.files import Record, RecordError
from urt_jax.data.sources.media import read_media
from urt_jax.errors import BadInputError

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_VERDICT = re.compile(r"(Image|Video|Answer) (\d+) is better")
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_TAGS = re.compile(r"\s*<(?:image|video)>\s*")
_VIDEO_TASKS = ("video_gen", "video_und")

# Fields that are read here; whatever else a record says is kept in ``Example.meta``.
_PROMPT_FIELDS = ("conversations", "messages", "problem", "prompt", "caption", "question", "text", "answers")
_ANSWER_FIELDS = ("solution", "chosen", "rejected", "jpg_0", "jpg_1", "label_0", "label_1", "label", "votes")
_MEDIA_FIELDS = ("images", "image", "videos", "video", "fps", "context_images", "context_videos")
_KNOWN = frozenset(("id", "task", *_PROMPT_FIELDS, *_ANSWER_FIELDS, *_MEDIA_FIELDS, "meta"))


class _Words(NamedTuple):
    """What a record says in words, before tasks and media are known."""

    prompt: str = ""  # its own caption or question
    answers: tuple[str, ...] = ()
    asked: str | None = None  # complete prompt text, maybe with media tags
    tags_needed: bool = False  # the schema wants one tag in the prompt for each of the media
    history: tuple[dict[str, str], ...] = ()
    response: str | None = None


def to_example(record: Record, *, require_label: bool) -> Example:
    """Turn a raw record into an example, all its files located.

    Raises:
        RecordError: file and record number, what is wrong, and the reason it is counted under.
    """
    if isinstance(record.fields, str):
        raise RecordError(f"{record.where}: {record.fields}; mend the line or take it out", reason="broken line")
    try:
        return _example(record, record.fields, require_label=require_label)
    except BadInputError:
        raise
    except (TypeError, ValueError) as error:
        raise RecordError(f"{record.where}: a field is of the wrong type ({error})", reason="wrong type") from error


def _example(record: Record, fields: dict[str, Any], *, require_label: bool) -> Example:
    identity = str(fields.get("id", record.default_id))
    where = f"{record.where} (id {identity})"
    words = _words(fields, where)
    media = read_media(fields, root=record.media_root, where=where)
    task = _task(fields, words, media, where)
    if task in _VIDEO_TASKS and media and all(item.kind == "image" for item in media):
        media = _clips_of_pictures(media, 2 if task == "video_gen" else 1, where)
    context, shown = _split_media(fields, task, media)
    candidates: tuple[Media | str, ...] = (*shown, *words.answers)
    label = _label(fields, words, task, where)
    if require_label and label is None:
        raise RecordError(
            f"{where}: no label and this stage needs one; give solution ('Image 1 is better') or label (1, 2, \"tie\")",
            reason="no label",
        )
    if isinstance(label, int) and not 1 <= label <= max(len(candidates), 2):
        raise RecordError(f"{where}: label {label}, but it has {len(candidates)} candidates", reason="bad label")
    votes = fields.get("votes")
    example = Example(
        id=identity,
        task=task,
        prompt=words.prompt,
        context=context,
        candidates=candidates,
        label=label,
        votes=None if votes is None else tuple(float(vote) for vote in votes),
        text=_own_text(fields, words, task),
        response=words.response,
        meta=_meta(fields, words),
    )
    _check_prompt(example, words, where)
    return example


def _words(fields: dict[str, Any], where: str) -> _Words:
    """Read the words of a record by the schema that its fields show."""
    own = str(fields.get("caption") or fields.get("question") or "")
    answers = tuple(str(answer) for answer in fields.get("answers") or ())
    turns = fields.get("conversations", fields.get("messages"))
    if "chosen" in fields and "caption" not in fields:
        asked = fields["prompt"] if "prompt" in fields else _turns(turns, where)[-1]["content"] if turns else ""
        replies = tuple(_reply(fields.get(key), key, where) for key in ("chosen", "rejected"))
        return _Words(prompt=own or _TAGS.sub("\n", str(asked)).strip(), answers=replies, asked=str(asked))
    if turns is not None:
        parsed = _turns(turns, where)
        response = parsed.pop()["content"] if parsed[-1]["role"] == "assistant" else None
        if not parsed or parsed[-1]["role"] != "user":
            raise RecordError(
                f"{where}: a conversation needs a human turn before the last reply", reason="unknown schema"
            )
        return _Words(own, answers, parsed[-1]["content"], True, tuple(parsed[:-1]), response)
    if "problem" in fields:
        return _Words(own, answers, str(fields["problem"]))
    if own:
        return _Words(own, answers)
    raise RecordError(
        f"{where}: fields {', '.join(fields) or 'none'}; needed conversations or messages (SFT), problem and solution "
        "(GRPO), chosen and rejected (DPO), or caption, or question and answers",
        reason="unknown schema",
    )


def _turns(turns: Any, where: str) -> list[dict[str, str]]:
    """Return a conversation as ``{"role", "content"}`` turns, from either spelling."""
    if not isinstance(turns, list) or not turns:
        raise RecordError(f"{where}: conversations is empty or no list", reason="unknown schema")
    parsed = []
    for turn in turns:
        given = turn.get("from", turn.get("role")) if isinstance(turn, dict) else None
        content = turn.get("value", turn.get("content")) if isinstance(turn, dict) else None
        if given not in _ROLES or not isinstance(content, str):
            raise RecordError(
                f"{where}: a turn is from {given!r} with a {type(content).__name__}; "
                f"needed text from one of {', '.join(_ROLES)}",
                reason="unknown schema",
            )
        parsed.append({"role": _ROLES[given], "content": content})
    return parsed


def _reply(value: Any, key: str, where: str) -> str:
    reply = value.get("value", value.get("content")) if isinstance(value, dict) else value
    if not isinstance(reply, str):
        raise RecordError(f"{where}: {key} is {value!r}; needed the text of an answer", reason="unknown schema")
    return reply


def _task(fields: dict[str, Any], words: _Words, media: tuple[Media, ...], where: str) -> Task | None:
    """Return the task a record names, or else the one its answer and media show; None is a plain chat."""
    if "task" in fields:
        given = fields["task"]
        if given is not None and given not in TASKS:
            close = difflib.get_close_matches(str(given), TASKS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise RecordError(
                f"{where}: unknown task {given!r}; known: {', '.join(TASKS)}{hint}", reason="unknown task"
            )
        return given
    has_video = any(item.kind == "video" for item in media)
    match = _verdict(fields, words)
    if match is not None and match[1] != "Answer":
        return "image_gen" if match[1] == "Image" else "video_gen"
    if match is not None or words.answers:
        return "video_und" if has_video else "image_und"
    if "caption" in fields:
        return "video_gen" if has_video else "image_gen"
    return None


def _verdict(fields: dict[str, Any], words: _Words) -> re.Match[str] | None:
    """Return the decided answer: the record's solution, or else the last answer of its written response."""
    if fields.get("solution") is not None:
        return _VERDICT.fullmatch(str(fields["solution"]).strip())
    written = _ANSWER.findall(words.response or "")
    return _VERDICT.fullmatch(written[-1].strip()) if written else None


def _clips_of_pictures(media: tuple[Media, ...], clips: int, where: str) -> tuple[Media, ...]:
    """Group the pictures of a video task, which are frames, into clips of equal length."""
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
    fields: dict[str, Any], task: Task | None, media: tuple[Media, ...]
) -> tuple[tuple[Media, ...], tuple[Media, ...]]:
    """Return (context, candidates): a generation task compares its media, any other task is about them."""
    context: list[Media] = []
    candidates: list[Media] = []
    for kind in ("image", "video"):
        items = [item for item in media if item.kind == kind]
        shared = int(fields.get(f"context_{kind}s", 0 if task in ("image_gen", "video_gen") else len(items)))
        context += items[:shared]
        candidates += items[shared:]
    return tuple(context), tuple(candidates)


def _label(fields: dict[str, Any], words: _Words, task: Task | None, where: str) -> int | Literal["tie"] | None:
    """Return the winner (from 1), "tie", or None where the record does not say."""
    given = fields.get("label")
    if given == "tie" or (isinstance(given, int) and not isinstance(given, bool)):
        return cast("int | Literal['tie']", given)
    if given is not None:
        raise RecordError(f'{where}: label {given!r}; needed 1, 2, ... or "tie"', reason="bad label")
    match = _verdict(fields, words)
    if match is not None and task is not None and match[1] == NOUNS[task]:
        return int(match[2])
    if fields.get("solution") is not None:
        noun = NOUNS[task] if task else "Image"
        raise RecordError(f"{where}: solution {fields['solution']!r}; needed '{noun} N is better'", reason="bad label")
    if "label_0" in fields:
        share = float(fields["label_0"])
        return "tie" if share == 0.5 else 1 if share > 0.5 else 2
    return 1 if "chosen" in fields or "jpg_0" in fields else None


def _own_text(fields: dict[str, Any], words: _Words, task: Task | None) -> str | None:
    """Return the prompt text to use unchanged: none where the record has what a template of its task asks for."""
    if fields.get("text") is not None:
        return str(fields["text"])
    templated = words.prompt and task is not None and (NOUNS[task] != "Answer" or len(words.answers) >= 2)
    return None if templated else words.asked


def _meta(fields: dict[str, Any], words: _Words) -> dict[str, Any]:
    meta = {key: value for key, value in fields.items() if key not in _KNOWN} | dict(fields.get("meta") or {})
    return meta | {"history": list(words.history)} if words.history else meta


def _check_prompt(example: Example, words: _Words, where: str) -> None:
    """Refuse control-token text, tags that do not match the media, and a pair without two candidates."""
    try:
        prompts.check_control_text(example)
    except BadInputError as error:
        raise RecordError(f"{where}: {error}", reason="control text") from error
    problem = _tag_problem(example, words)
    if problem is None and example.text is None and example.task in ("image_gen", "video_gen"):
        count = len(example.candidates)
        problem = None if count >= 2 else f"a comparison for {example.task} needs two candidates, it has {count}"
    if problem is not None:
        raise RecordError(f"{where}: {problem}", reason="media count")


def _tag_problem(example: Example, words: _Words) -> str | None:
    """Say how the media tags of the prompt differ from the media, whether or not the prompt will be used."""
    if example.text is None and _TAGS.search(" ".join((words.prompt, *words.answers))):
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

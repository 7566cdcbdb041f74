"""One record of any known schema as an example."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

from urt_jax.data import prompts
from urt_jax.data.examples import NOUNS, TASKS, Example, Media, Task
from urt_jax.data.sources.files import Record, RecordError
from urt_jax.data.sources.media import MAX_MEDIA, read_media
from urt_jax.data.sources.turns import read_turns, reply_of, turns_before, with_system
from urt_jax.errors import BadInputError, shown, unknown_choice
from urt_jax.files.fields import Fields

MAX_CANDIDATES = 1000  # of one record; published groups have at most some dozens
_VERDICT = re.compile(r"(Image|Video|Answer) ([0-9]{1,4}) is better")
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_TAGS = re.compile(r"\s*<(?:image|video)>\s*")
_VIDEO_TASKS = ("video_gen", "video_und")

# Fields that are read here; whatever else a record says is kept in ``Example.meta``.
_PROMPT_FIELDS = ("conversations", "messages", "problem", "prompt", "caption", "question", "text", "answers", "system")
_ANSWER_FIELDS = ("solution", "chosen", "rejected", "jpg_0", "jpg_1", "label_0", "label_1", "label", "votes")
_MEDIA_FIELDS = ("images", "image", "videos", "video", "fps", "context_images", "context_videos", "system_prompt")
_KNOWN = frozenset(("id", "task", "has_label", *_PROMPT_FIELDS, *_ANSWER_FIELDS, *_MEDIA_FIELDS, "meta"))


class CountsFromZeroError(BadInputError):
    """A label 0: its source counts from 0, and taking its other labels as they are would turn them round."""


class _Words(NamedTuple):
    """What a record says in words, before tasks and media are known."""

    prompt: str = ""  # its own caption or question
    answers: tuple[str, ...] = ()
    asked: str | None = None  # complete prompt text, maybe with media tags
    tags_needed: bool = False  # the schema wants one tag in the prompt for each of the media
    history: tuple[dict[str, str], ...] = ()
    response: str | None = None
    images: tuple[Any, ...] = ()  # that stood inside the turns, as the record names them
    videos: tuple[Any, ...] = ()


def to_example(record: Record, *, require_label: bool, first_label: int = 1) -> Example:
    """Turn a raw record into an example, all its files located; its labels count from ``first_label``, 0 or 1.

    Raises:
        RecordError: file and record number, what is wrong, and the reason it is counted under.
        CountsFromZeroError: a label 0 where labels count from 1: the whole source is in doubt.
    """
    if isinstance(record.fields, str):
        raise RecordError(f"{record.where}: {record.fields}; mend the line or take it out", reason="broken line")
    wrong = partial(RecordError, reason="wrong type")
    identity = record.fields.get("id")
    if identity is None:
        identity = record.default_id
    if isinstance(identity, bool) or not isinstance(identity, str | int | float):
        raise wrong(f"{record.where}: id is {shown(identity)}; needed a text or a number")
    where = f"{record.where} (id {str(identity)[:80]})"
    fields = Fields(record.fields, where, error=wrong)
    return _example(record, fields, str(identity), require_label=require_label, first_label=first_label)


def _example(record: Record, fields: Fields, identity: str, *, require_label: bool, first_label: int) -> Example:
    where = fields.where
    words = _words(fields)
    media = read_media(_with_inline(fields, words), root=record.media_root)
    task = _task(fields, words, media)
    if task in _VIDEO_TASKS and media and all(item.kind == "image" for item in media):
        media = _clips_of_pictures(media, 2 if task == "video_gen" else 1, where)
    context, compared = _split_media(fields, task, media)
    candidates: tuple[Media | str, ...] = (*compared, *words.answers)
    label = _label(fields, words, task, first_label)
    if require_label and label is None:
        raise RecordError(
            f"{where}: no label and this stage needs one; give solution ('Image 1 is better') or label (1, 2, \"tie\")",
            reason="no label",
        )
    if isinstance(label, int) and not 1 <= label <= max(len(candidates), 2):
        raise RecordError(f"{where}: label {label}, but it has {len(candidates)} candidates", reason="bad label")
    example = Example(
        id=identity,
        task=task,
        prompt=words.prompt,
        context=context,
        candidates=candidates,
        label=label,
        votes=_votes(fields, len(candidates)),
        text=_own_text(fields, words, task),
        response=None if words.response is None else prompts.strip_end(words.response),
        meta=_meta(fields, words, len(candidates)),
    )
    _check_prompt(example, words, where)
    return example


def _words(fields: Fields) -> _Words:
    """Read the words of a record by the schema that its fields show."""
    own = fields.text("caption", "") or fields.text("question", "")
    answers = fields.texts("answers", (), at_most=MAX_CANDIDATES)
    key = "conversations" if "conversations" in fields else "messages"
    if "chosen" in fields and "caption" not in fields:
        return _preference(fields, own, key)
    if key in fields:
        found = read_turns(fields, key)
        parsed = found.turns
        response = parsed.pop()["content"] if parsed[-1]["role"] == "assistant" else None
        if not parsed or parsed[-1]["role"] != "user":
            raise _unknown(f"{fields.where}: a conversation needs a human turn before the last reply")
        *before, asked = with_system(parsed, fields)
        words = _Words(own, answers, asked["content"], True, tuple(before), response)
        return words._replace(images=tuple(found.images), videos=tuple(found.videos))
    history = tuple(with_system([], fields))
    if "problem" in fields:
        return _Words(own, answers, fields.text("problem"), history=history)
    if own:
        return _Words(own, answers, history=history)
    raise _unknown(
        f"{fields.where}: fields {', '.join(map(str, fields))[:200] or 'none'}; needed conversations or messages "
        "(SFT), problem and solution (GRPO), chosen and rejected (DPO), or caption, or question and answers"
    )


def _preference(fields: Fields, own: str, key: str) -> _Words:
    """Read a question with a preferred and a rejected answer, each a text, a turn or a list of turns."""
    replies = tuple(reply_of(fields, name) for name in ("chosen", "rejected"))
    if isinstance(fields.get("prompt"), str):
        return _Words(own or _bare(fields.text("prompt")), replies, fields.text("prompt"), history=_system(fields))
    if isinstance(fields.get("prompt"), list):
        found = read_turns(fields, "prompt")
    elif key in fields:
        found = read_turns(fields, key)
    else:
        found = turns_before(fields, "chosen")
        if found.turns != turns_before(fields, "rejected").turns:
            raise fields.refusal("rejected", "a conversation that begins as the chosen one")
    if not found.turns:
        return _Words(own, replies, own, history=_system(fields))
    *before, last = with_system(found.turns, fields)
    words = _Words(own or _bare(last["content"]), replies, last["content"], history=tuple(before))
    return words._replace(images=tuple(found.images), videos=tuple(found.videos))


def _system(fields: Fields) -> tuple[dict[str, str], ...]:
    return tuple(with_system([], fields))


def _bare(text: str) -> str:
    return _TAGS.sub("\n", text).strip()


def _unknown(message: str) -> RecordError:
    return RecordError(message, reason="unknown schema")


def _with_inline(fields: Fields, words: _Words) -> Fields:
    """Return the fields with the media that stood inside the turns in their place."""
    inline = {"images": list(words.images), "videos": list(words.videos)}
    inline = {key: media for key, media in inline.items() if media}
    for key in inline:
        if fields.get(key) or fields.get(key[:-1]):
            raise fields.refusal(key, "media inside the turns or in a field of their own, not both")
    return Fields({**fields, **inline}, fields.where, error=partial(RecordError, reason="wrong type"))


def _task(fields: Fields, words: _Words, media: tuple[Media, ...]) -> Task | None:
    """Return the task a record names, or else the one its answer and media show; None is a plain chat."""
    if "task" in fields:
        given = fields["task"]
        if given is not None and given not in TASKS:
            told = unknown_choice(given if isinstance(given, str) else shown(given), TASKS)
            raise RecordError(f"{fields.where}: task {told}", reason="unknown task")
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


def _verdict(fields: Fields, words: _Words) -> re.Match[str] | None:
    """Return the decided answer: the record's solution, or else the last answer of its written response."""
    if fields.get("solution") is not None:
        return _decided(fields.text("solution"))
    written = _ANSWER.findall(words.response or "")
    return _VERDICT.fullmatch(written[-1].strip()) if written else None


def _decided(solution: str) -> re.Match[str] | None:
    """Return the verdict that a solution is, with or without its ``<answer>`` tags."""
    tagged = _ANSWER.fullmatch(solution.strip())
    return _VERDICT.fullmatch((tagged[1] if tagged else solution).strip())


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
    fields: Fields, task: Task | None, media: tuple[Media, ...]
) -> tuple[tuple[Media, ...], tuple[Media, ...]]:
    """Return (context, candidates): a generation task compares its media, any other task is about them."""
    context: list[Media] = []
    candidates: list[Media] = []
    for kind in ("image", "video"):
        items = [item for item in media if item.kind == kind]
        usual = 0 if task in ("image_gen", "video_gen") else len(items)
        shared = fields.integer(f"context_{kind}s", usual, at_most=MAX_MEDIA)
        if shared > len(items):
            raise fields.refusal(f"context_{kind}s", f"at most the number of its {kind}s, {len(items)}")
        context += items[:shared]
        candidates += items[shared:]
    return tuple(context), tuple(candidates)


def _label(fields: Fields, words: _Words, task: Task | None, first: int) -> int | Literal["tie"] | None:
    """Return the winner (from 1), "tie", or None where the record does not say."""
    given = fields.get("label")
    if given == "tie":
        return "tie"
    if given is not None:
        if isinstance(given, bool) or not (isinstance(given, int) or (isinstance(given, float) and given.is_integer())):
            raise _bad_label(fields, f'label {shown(given)}; needed 1, 2, ... or "tie"')
        if given == 0 and first == 1:
            raise CountsFromZeroError(_from_zero(fields, "label 0"))
        return int(given) + 1 - first
    match = _verdict(fields, words)
    if match is not None and int(match[2]) == 0:
        raise CountsFromZeroError(
            f"{fields.where}: {shown(match[0])} counts candidates from 0; write its texts so that they count from 1, "
            "as judges are asked to"
        )
    if match is not None and task is not None and match[1] == NOUNS[task]:
        return int(match[2])
    if fields.get("solution") is not None:
        noun = NOUNS[task] if task else "Image"
        raise _bad_label(fields, f"solution {shown(fields['solution'])}; needed '{noun} N is better'")
    return _preferred(fields)


def _preferred(fields: Fields) -> int | Literal["tie"] | None:
    """Return the winner by the shares of a preference record, or the first where the schema puts it there."""
    if fields.get("has_label") is False:
        return None
    shares = [fields.number(key, None, at_least=0, at_most=1) for key in ("label_0", "label_1")]
    if shares[0] is not None and shares[1] is not None and abs(shares[0] + shares[1] - 1) > 1e-3:
        raise _bad_label(fields, f"label_0 {shares[0]:g} and label_1 {shares[1]:g}; needed shares that add up to 1")
    share = shares[0] if shares[0] is not None else None if shares[1] is None else 1 - shares[1]
    if share is not None:
        return "tie" if share == 0.5 else 1 if share > 0.5 else 2
    return 1 if "chosen" in fields or "jpg_0" in fields else None


def _bad_label(fields: Fields, told: str) -> RecordError:
    return RecordError(f"{fields.where}: {told}", reason="bad label")


def _from_zero(fields: Fields, told: str) -> str:
    return (
        f"{fields.where}: {told}, but labels count from 1, so the other labels of this source may mean the other "
        "candidate; say data.first_label=0 if it counts from 0 (0 is the first candidate), or mend the record"
    )


def _votes(fields: Fields, candidates: int) -> tuple[float, ...] | None:
    """Return the votes of a record: one number a candidate, perhaps one more for a tie."""
    votes = fields.numbers("votes", None, at_least=0)
    if votes is not None and candidates and not candidates <= len(votes) <= candidates + 1:
        raise fields.refusal("votes", f"a number for each of its {candidates} candidates (and one for ties)")
    return votes


def _own_text(fields: Fields, words: _Words, task: Task | None) -> str | None:
    """Return the prompt text to use unchanged: none where the record has what a template of its task asks for."""
    own = fields.text("text", None)
    if own is not None:
        return own
    spoken = any(turn["role"] != "system" for turn in words.history)
    templated = words.prompt and task is not None and (NOUNS[task] != "Answer" or len(words.answers) >= 2)
    return None if templated and not spoken else words.asked


def _meta(fields: Fields, words: _Words, candidates: int) -> dict[str, Any]:
    """Return what else the record says; what stages read of it is checked here, once."""
    meta = {key: value for key, value in fields.items() if key not in _KNOWN} | dict(fields.group("meta", {}))
    meta.pop("history", None)
    checked = Fields(meta, fields.where, error=partial(RecordError, reason="wrong type"))
    scores = checked.group("scores", {})
    for dimension in scores:
        scores.numbers(dimension, size=max(candidates, 2))
    right, of = checked.integers("correct_of", (0, 1), size=2, at_most=10**6)
    if not right <= of or of < 1:
        raise checked.refusal("correct_of", "[right, samples], with at least one sample")
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

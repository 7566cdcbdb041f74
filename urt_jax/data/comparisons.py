"""Records of comparisons and chats from a caller's arguments: pictures, clips or answers in any form."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from urt_jax.data.containers import VIDEO_SUFFIXES
from urt_jax.data.examples import Chat, Example, FramePicking, Media
from urt_jax.errors import BadInputError, shown, unknown_choice
from urt_jax.tasks import TASKS, find_task, is_task

MAX_CANDIDATES = 512  # of one ranking; all pairs in both orders make a quarter of a million judgements
MAX_MESSAGES = 10_000  # of one chat

_NEEDED = "give caption= with two images= or videos=, or question= with two answers= and context= (picture or clip)"


def make_pair(*, caption: Any, question: Any, images: Any, videos: Any, answers: Any, context: Any = None) -> Example:
    """Build the record of one comparison from the arguments of ``RewardModel.compare``, of any type.

    Raises:
        BadInputError: the arguments name no task, there are not two candidates, or a candidate has a wrong type.
    """
    for name, words in (("caption", caption), ("question", question)):
        if words is not None and not isinstance(words, str):
            raise BadInputError(f"{name} is {shown(words)}; give a text")
    given = {
        name: value
        for name, value in (("images", images), ("videos", videos), ("answers", answers))
        if value is not None
    }
    if len(given) != 1:
        raise BadInputError(f"candidates were given as {', '.join(given) or 'nothing'}; {_NEEDED}")
    kind, value = next(iter(given.items()))
    candidates = _listed(kind, value)
    if len(candidates) != 2:
        raise BadInputError(f"{kind} holds {len(candidates)} candidates; compare takes 2, rank takes any number")
    text = question if kind == "answers" else caption
    if text is None or (kind == "answers") != (context is not None):
        raise BadInputError(
            f"{kind} came with caption={shown(caption)}, question={shown(question)}, context={shown(context)}; "
            f"{_NEEDED}"
        )
    for n, answer in enumerate(candidates if kind == "answers" else ()):
        if not isinstance(answer, str):
            raise BadInputError(f"answers[{n}] is {shown(answer)}; give two texts")
    return pair_of(candidates[0], candidates[1], caption, question, context, "pair", video=kind == "videos")


def make_single(*, caption: Any, question: Any, image: Any, video: Any, answer: Any, context: Any) -> Example:
    """Build the record of one candidate from the arguments of ``RewardModel.score``, of any type.

    Raises:
        BadInputError: the arguments name no task, or the candidate has a wrong type.
    """
    given = {name: v for name, v in (("image", image), ("video", video), ("answer", answer)) if v is not None}
    text = question if "answer" in given else caption
    if len(given) != 1 or not isinstance(text, str) or ("answer" in given) != (context is not None):
        raise BadInputError(
            f"score got {', '.join(given) or 'no candidate'} with caption={shown(caption)}, "
            f"question={shown(question)}, context={shown(context)}; "
            "give caption= with image= or video=, or question= with answer= and context="
        )
    kind, value = next(iter(given.items()))
    if kind == "answer":
        if not isinstance(value, str):
            raise BadInputError(f"answer is {shown(value)}; give a text")
        about = as_media(context, video=None, name="context")
        return Example(id="single", task="answer_score", prompt=text, context=(about,), candidates=(value,))
    medium = as_media(value, video=kind == "video", name=kind)
    return Example(id="single", task=f"{kind}_score", prompt=text, candidates=(medium,))


def listed_candidates(candidates: Any) -> list[Any]:
    """Return the candidates of a ranking.

    Raises:
        BadInputError: not a list, fewer than two, or more than ``MAX_CANDIDATES``.
    """
    made = _listed("candidates", candidates)
    if not 2 <= len(made) <= MAX_CANDIDATES:
        many = "more" if len(made) > MAX_CANDIDATES else len(made)
        raise BadInputError(f"rank needs at least two candidates, got {many}; at most {MAX_CANDIDATES} are ranked")
    return made


def pair_of(
    first: Any, second: Any, caption: str | None, question: str | None, context: Any, name: str, *, video: bool = False
) -> Example:
    """Build the record of two candidates: answers to a question about ``context``, or media for a caption.

    Raises:
        BadInputError: a context with media candidates, or a medium of unknown type.
    """
    if isinstance(first, str) and isinstance(second, str) and context is not None:
        about = as_media(context, video=None, name="context")
        task = find_task(about.kind, answers=True).name
        return Example(id=name, task=task, prompt=question or "", context=(about,), candidates=(first, second))
    if context is not None:
        raise BadInputError(f"context={shown(context)} came with candidates that are no texts; {_NEEDED}")
    media = tuple(as_media(item, video=video or None, name=f"{name}: a candidate") for item in (first, second))
    task = find_task(media[0].kind, answers=False).name
    return Example(id=name, task=task, prompt=caption or "", candidates=media)


def as_media(item: Any, *, video: bool | None, name: str) -> Media:
    """Wrap a medium: an array of four axes, a list of frames or a video file name is a clip, all else a picture.

    Raises:
        BadInputError: its type cannot hold a picture or a clip.
    """
    if isinstance(item, Media):
        return item
    if item is None or isinstance(item, bool | int | float | Mapping | set | frozenset):
        raise BadInputError(
            f"{name} is {shown(item)}; give a path, data URL, bytes, PIL image or array, of a clip also its frames"
        )
    is_file = isinstance(item, str | Path) and Path(str(item)[-16:]).suffix.lower() in VIDEO_SUFFIXES
    seen = is_file or isinstance(item, list | tuple) or getattr(item, "ndim", 3) == 4
    return Media("video" if (seen if video is None else video) else "image", item)


def make_chat(messages: Any, images: Any, videos: Any) -> Chat:
    """Build a chat from the arguments of ``RewardModel.logits`` and ``generate``.

    Raises:
        BadInputError: messages are not a list of roles with contents, or a medium has an unknown type.
    """
    turns = _listed("messages", messages, most=MAX_MESSAGES)
    if not turns:
        raise BadInputError("messages is empty; give one message at least")
    for n, turn in enumerate(turns):
        _check_turn(turn, f"messages[{n}]")
    return Chat(turns, _media("images", images, video=False), _media("videos", videos, video=True))


def as_examples(examples: Any) -> list[Example]:
    """Return records as a list.

    Raises:
        BadInputError: an item is not a record.
    """
    made = _listed("examples", examples, most=None)
    for n, example in enumerate(made):
        if not isinstance(example, Example):
            raise BadInputError(f"examples[{n}] is {shown(example)}; give records (Example), or call compare")
        if example.task is not None and not is_task(example.task):
            raise BadInputError(f"examples[{n}]: task {unknown_choice(example.task, TASKS)}")
    return made


def picked(example: Example, picking: FramePicking) -> Example:
    """Return a record with ``picking`` set for every clip that has none of its own."""
    if picking == FramePicking():
        return example

    def with_picking(item: Any) -> Any:
        is_open = isinstance(item, Media) and item.kind == "video" and item.picking is None
        return replace(item, picking=picking) if is_open else item

    context, candidates = (tuple(map(with_picking, items)) for items in (example.context, example.candidates))
    return replace(example, context=context, candidates=candidates)


def _media(name: str, given: Any, *, video: bool) -> tuple[Media, ...]:
    return tuple(as_media(item, video=video, name=f"{name}[{n}]") for n, item in enumerate(_listed(name, given)))


def _listed(name: str, given: Any, most: int | None = MAX_CANDIDATES) -> list[Any]:
    """Return an iterable as a list, reading at most ``most + 1`` items."""
    is_single = isinstance(given, str | bytes | Path | Media | Mapping | set | frozenset)
    if is_single or not isinstance(given, Iterable) or getattr(given, "ndim", 1) == 0:
        raise BadInputError(f"{name} is {shown(given)}; give a list")
    return list(given if most is None else islice(given, most + 1))


def _check_turn(turn: Any, name: str) -> None:
    """Refuse a malformed message."""
    if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
        raise BadInputError(f'{name} is {shown(turn)}; give {{"role": ..., "content": ...}}')
    content = turn.get("content")
    if isinstance(content, str) or (content is None and set(turn) - {"role", "content"}):  # such as tool calls
        return
    if not isinstance(content, list | tuple):
        raise BadInputError(f"{name}: its content is {shown(content)}; give a text, or a list of parts")
    for n, part in enumerate(content):
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise BadInputError(f'{name}: part {n} is {shown(part)}; give {{"type": "text", "text": ...}} or a medium')
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise BadInputError(f"{name}: part {n} is a text without one; give its words as text")

"""The judge's prompt as a chat: from a template file per task, or the record's own prompt unchanged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from urt_jax.data.examples import Chat, Example, Media
from urt_jax.data.tokenizer import without_end
from urt_jax.errors import BadInputError
from urt_jax.tasks import TASKS
from urt_jax.tasks.wording import DEFAULT_TEMPLATE, fill, read_wording

_MEDIA_TAG = re.compile(r"(<image>|<video>)")
# Text that the Qwen tokenizers read as control tokens anywhere in a prompt.
_CONTROL_TEXT = re.compile(
    r"<\|(?:endoftext|im_start|im_end|(?:vision|image|video)_pad|(?:vision|object_ref|box|quad)_(?:start|end))\|>"
)


def render(example: Example, *, think: bool = True, template: str | Path = DEFAULT_TEMPLATE) -> Chat:
    """Render the prompt for a verdict as a chat, with its media in order of appearance.

    For a record without its own prompt, the media come first (context, then candidates), then the filled template. A
    record's own ``text`` is used unchanged: its ``<image>`` / ``<video>`` tags become the media, and media without tags
    come first. Earlier turns (``meta["history"]``) precede it as messages; only a system turn precedes a filled
    template.

    Args:
        think: prompt for reasoning before the answer; False uses the direct template, which requests the answer only.
        template: a shipped family ("v1", "v2"), a template file, or a folder with one ``<task>.txt`` per task (and
            ``<task>_direct.txt``); slots ``{caption}``, ``{question}``, ``{answer_1}``, ``{answer_2}``, ...; a literal
            brace is doubled.

    Raises:
        BadInputError: nothing to prompt with, no such template, an unknown slot, tags that do not match the media, or
            control-token text.
    """
    check_control_text(example)
    media = all_media(example)
    if example.text is not None:
        return _own_chat(example, media, think=think)
    content: list[dict[str, Any]] = [{"type": item.kind} for item in media]
    content.append({"type": "text", "text": prompt_text(example, think=think, template=template)})
    system = [turn for turn in example.meta.get("history", []) if turn["role"] == "system"]
    before = [{"role": "system", "content": [{"type": "text", "text": turn["content"]}]} for turn in system[:1]]
    return _chat([*before, {"role": "user", "content": content}], media, think=think)


def prompt_text(example: Example, *, think: bool = True, template: str | Path = DEFAULT_TEMPLATE) -> str:
    """Return the text of the user message without its media (the record's own text keeps its tags)."""
    if example.text is not None:
        return example.text
    if example.task is None:
        raise BadInputError(
            f"record {example.id}: it has neither a prompt of its own nor a task to take a template for; "
            f"give text, or task as one of {', '.join(TASKS)}"
        )
    wording, name = read_wording(template, example.task, think=think)
    answers = [item for item in example.candidates if isinstance(item, str)]
    try:
        slots = TASKS[example.task].slots(example.prompt, answers)
    except BadInputError as error:
        raise BadInputError(f"record {example.id}: {error}") from None
    return fill(wording, slots, name=name)


def all_media(example: Example) -> tuple[Media, ...]:
    """Return the record's media in prompt order: context, then candidates."""
    return (*example.context, *(item for item in example.candidates if isinstance(item, Media)))


def own_text_media(example: Example, media: Sequence[Media]) -> tuple[Media, ...]:
    """Return the media for the tags of the record's own text; media of one kind fill its tags in order.

    A clip given as a list of frames becomes that many pictures if the text has one ``<image>`` per frame.

    Raises:
        BadInputError: tags and media differ in number.
    """
    tags = media_tags(example)
    if not tags:
        return tuple(media)
    if "<video>" not in tags and any(item.kind == "video" for item in media):
        media = [frame for item in media for frame in _frames(item)]
    for kind in ("image", "video"):
        given, count = sum(item.kind == kind for item in media), tags.count(f"<{kind}>")
        if count != given:
            excess = f"more {kind}s than placeholders" if given > count else f"more placeholders than {kind}s"
            raise BadInputError(
                f"record {example.id}: {excess}: {given} {kind}(s) for {count} <{kind}> tag(s); "
                f"write one <{kind}> in the prompt for each {kind}"
            )
    return tuple(media)


def media_tags(example: Example) -> list[str]:
    """Return the ``<image>`` / ``<video>`` tags of the record's own user turns, in order."""
    texts = [turn["content"] for turn in example.meta.get("history", []) if turn["role"] == "user"]
    return [tag for text in (*texts, example.text or "") for tag in _MEDIA_TAG.findall(text)]


def check_control_text(example: Example) -> None:
    """Refuse a record with text that would be read as a control token, such as a picture placeholder without a picture.

    A response to learn may end with one end token.

    Raises:
        BadInputError: naming the record and the text found.
    """
    written = [without_end(reply) for reply in (example.response, example.input_response) if reply is not None]
    written += [example.prompt, example.text or "", *(c for c in example.candidates if isinstance(c, str))]
    written += [turn["content"] for turn in example.meta.get("history", [])]
    for text in written:
        found = _CONTROL_TEXT.search(text)
        if found:
            raise BadInputError(
                f"record {example.id}: its text holds {found.group()!r}, which the tokenizer reads as a control token; "
                "remove it from the caption, question, answers, prompt or response"
            )


def _own_chat(example: Example, media: Sequence[Media], *, think: bool) -> Chat:
    """Convert the record's own turns to messages, with media in place of their tags, or all first without tags."""
    ordered = own_text_media(example, media)
    in_front = [] if media_tags(example) else [{"type": item.kind} for item in ordered]
    messages: list[dict[str, Any]] = []
    for turn in (*example.meta.get("history", []), {"role": "user", "content": example.text or ""}):
        is_user = turn["role"] == "user"
        pieces = _MEDIA_TAG.split(turn["content"]) if is_user else [turn["content"]]
        content = [_part(piece) if is_user else {"type": "text", "text": piece} for piece in pieces if piece]
        if is_user and in_front:
            content, in_front = in_front + content, []
        messages.append({"role": turn["role"], "content": content})
    return _chat(messages, ordered, think=think)


def _part(piece: str) -> dict[str, Any]:
    if _MEDIA_TAG.fullmatch(piece):
        return {"type": piece[1:-1]}
    return {"type": "text", "text": piece}


def _chat(messages: list[dict[str, Any]], media: Sequence[Media], *, think: bool) -> Chat:
    return Chat(
        messages=messages,
        images=tuple(item for item in media if item.kind == "image"),
        videos=tuple(item for item in media if item.kind == "video"),
        think=think,
    )


def _frames(item: Media) -> list[Media]:
    """Split a clip that is a list of frames into pictures; leave other media whole."""
    if item.kind == "video" and isinstance(item.source, list | tuple):
        return [Media("image", frame) for frame in item.source]
    return [item]

"""The judge's question as a chat: wording from a template file per task, or the record's own prompt unchanged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from urt_jax.data.examples import Chat, Example, Media
from urt_jax.data.prompts.templates import (
    DEFAULT_TEMPLATE,
    PROMPT_VERSION,
    WORDINGS,
    fill,
    find_template,
    read_wording,
    template_phrases,
    template_provenance,
)
from urt_jax.data.tokenizer import without_end
from urt_jax.errors import BadInputError
from urt_jax.tasks import TASKS

__all__ = [
    "DEFAULT_TEMPLATE",
    "PROMPT_VERSION",
    "WORDINGS",
    "all_media",
    "check_control_text",
    "find_template",
    "media_tags",
    "own_text_media",
    "prompt_text",
    "render",
    "template_phrases",
    "template_provenance",
]

_MEDIA_TAG = re.compile(r"(<image>|<video>)")
# Text that the tokenizers of the Qwen line read as control tokens wherever it stands.
_CONTROL_TEXT = re.compile(
    r"<\|(?:endoftext|im_start|im_end|(?:vision|image|video)_pad|(?:vision|object_ref|box|quad)_(?:start|end))\|>"
)


def render(example: Example, *, think: bool = True, template: str | Path = DEFAULT_TEMPLATE) -> Chat:
    """Write the user message that asks for a verdict, with its media in order of appearance.

    Without a prompt of the record's own the media come first (context, then candidates), then the filled template. The
    record's own ``text`` is used as it is: its ``<image>`` / ``<video>`` tags become the media, and media that it has
    no tags for stand in front. Earlier turns (``meta["history"]``) come before it as messages of their own; before a
    filled template stands the system turn alone.

    Args:
        think: ask for reasoning before the answer; False takes the template that asks for the answer alone.
        template: a shipped family ("v1", "v2"), a file with the wording, or a folder with one ``<task>.txt`` a task
            (and ``<task>_direct.txt``); slots ``{caption}``, ``{question}``, ``{answer_1}``, ``{answer_2}``, ...; a
            literal brace is doubled.

    Raises:
        BadInputError: no prompt to write, no such template, an unknown slot, tags that do not match the media, or
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
    """Return the record's media in the order in which a prompt shows them: context, then candidates."""
    return (*example.context, *(item for item in example.candidates if isinstance(item, Media)))


def own_text_media(example: Example, media: Sequence[Media]) -> tuple[Media, ...]:
    """Return the media that the tags of the record's own text stand for; those of one kind fill its tags in order.

    A clip given as a list of frames is shown as that many pictures where the text has one ``<image>`` a frame.

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
    """Refuse a record whose words would be read as control tokens, such as a picture placeholder that is none.

    A response to learn may end with one end token.

    Raises:
        BadInputError: naming the record and the text found.
    """
    written = [without_end(reply) for reply in (example.response, example.read_back) if reply is not None]
    written += [example.prompt, example.text or "", *(c for c in example.candidates if isinstance(c, str))]
    written += [turn["content"] for turn in example.meta.get("history", [])]
    for text in written:
        found = _CONTROL_TEXT.search(text)
        if found:
            raise BadInputError(
                f"record {example.id}: its text holds {found.group()!r}, which the tokenizer reads as a control token; "
                "take it out of the caption, question, answers, prompt or response"
            )


def _own_chat(example: Example, media: Sequence[Media], *, think: bool) -> Chat:
    """Turn the record's own turns into messages, media in place of their tags or else all in front."""
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
    """Split a clip that is a list of frames into pictures; anything else stays whole."""
    if item.kind == "video" and isinstance(item.source, list | tuple):
        return [Media("image", frame) for frame in item.source]
    return [item]

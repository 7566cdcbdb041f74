"""Conversations of a record, in every published spelling, as turns of text with tags where their media stand."""

from __future__ import annotations

from typing import Any, NamedTuple

from urt_jax.errors import shown
from urt_jax.files.fields import Fields

MAX_TURNS = 1000  # of one conversation; the longest published ones have some dozens
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_PICTURES = ("image", "image_url", "input_image")
_CLIPS = ("video", "video_url", "input_video")


class Turns(NamedTuple):
    """Turns as ``{"role", "content"}``, and the media that stood inside them, in order, each as a record names it."""

    turns: list[dict[str, str]]
    images: list[Any]
    videos: list[Any]


def read_turns(fields: Fields, key: str) -> Turns:
    """Return the conversation under ``key``: a list of turns, ``from`` / ``value`` or ``role`` / ``content``.

    Content is a text, or a list of parts ({"type": "text"}, {"type": "image"}, {"type": "image_url"}, ...): a part that
    names its picture or clip brings it along, one that does not stands for the next of ``images`` or ``videos``.

    Raises:
        BadInputError: by ``fields``; no list, no turns, an unknown role, or content of another kind.
    """
    found = Turns([], [], [])
    listed = fields.items_of(key, at_least=1, at_most=MAX_TURNS)
    for n in listed:
        turn = listed.group(n)
        given = turn.text("from", None) or turn.text("role", None)
        if given not in _ROLES:
            raise turn.refusal("from" if "from" in turn else "role", f"one of {', '.join(_ROLES)}")
        name = "value" if "value" in turn else "content"
        content = _of_parts(turn, name, found) if isinstance(turn.get(name), list) else turn.text(name)
        found.turns.append({"role": _ROLES[given], "content": content})
    return found


def with_system(turns: list[dict[str, str]], fields: Fields) -> list[dict[str, str]]:
    """Return turns that begin with the system prompt which a record has in a field of its own.

    Raises:
        BadInputError: the turns begin with another system prompt.
    """
    given = [text for key in ("system", "system_prompt") if (text := fields.text(key, "")).strip()]
    if not given:
        return turns
    first = turns[0]["content"] if turns and turns[0]["role"] == "system" else None
    if len({*given, *([first] if first is not None else [])}) > 1:
        raise fields.refusal("system", "one system prompt: it differs from the one in the conversation")
    return turns if first is not None else [{"role": "system", "content": given[0]}, *turns]


def reply_of(fields: Fields, key: str) -> str:
    """Return the text of a preferred or rejected reply: a text, a turn, or a list of turns that ends in the reply."""
    value = fields.get(key)
    if isinstance(value, list):
        turns = read_turns(fields, key)
        if turns.turns[-1]["role"] != "assistant" or turns.images or turns.videos:
            raise fields.refusal(key, "turns of text that end with the assistant's")
        return turns.turns[-1]["content"]
    if isinstance(value, dict):
        turn = fields.group(key)
        return turn.text("value" if "value" in turn else "content")
    if not isinstance(value, str):
        raise fields.refusal(key, "the text of an answer")
    return value


def turns_before(fields: Fields, key: str) -> Turns:
    """Return the turns in front of the reply in a preference given as whole conversations; none where it is a text."""
    found = read_turns(fields, key) if isinstance(fields.get(key), list) else Turns([], [], [])
    return found._replace(turns=found.turns[:-1])


def _of_parts(turn: Fields, name: str, found: Turns) -> str:
    """Return the text of a list of parts, with a tag for each of its media, which are added to ``found``."""
    text = ""
    parts = turn.items_of(name, at_most=MAX_TURNS)
    for n in parts:
        if isinstance(parts[n], str):
            text += parts[n]
            continue
        part = parts.group(n)
        kind = part.text("type", "text")
        if kind in ("text", "input_text"):
            text += part.text("text")
        elif kind in _PICTURES or kind in _CLIPS:
            tag, media = ("<image>", found.images) if kind in _PICTURES else ("<video>", found.videos)
            text += tag
            media += _named_in(part, "image" if kind in _PICTURES else "video")
        else:
            raise part.refusal("type", f"text, image or video, not {shown(kind)}")
    return text


def _named_in(part: Fields, kind: str) -> list[Any]:
    """Return the picture or clip that a part names, in a list; empty where it only marks a place."""
    for key in (kind, f"{kind}_url", "url", "path"):
        value = part.get(key)
        if value is not None:
            return [value["url"] if isinstance(value, dict) and isinstance(value.get("url"), str) else value]
    return []

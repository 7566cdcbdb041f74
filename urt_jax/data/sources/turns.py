"""Conversations of a record in any spelling, parsed to turns of text with tags for media."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from urt_jax.data.sources.files import RecordError
from urt_jax.errors import shown

MAX_TURNS = 1000  # of one conversation; published ones have fewer than 100
MAX_PARTS = 4096  # of one turn: texts and media in their order
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_TAG = re.compile("<(image|video)>")
_TEXT_PARTS = ("text", "input_text", "output_text")
_MEDIA_PARTS = {
    "image": "image", "image_url": "image", "input_image": "image", "video": "video", "video_url": "video",
    "input_video": "video",
}  # fmt: skip


class Turn(NamedTuple):
    """One turn; ``shown`` is (kind, source) of each media part, the source None if a field of the record gives it."""

    role: str
    content: str
    shown: tuple[tuple[str, Any], ...] = ()

    def as_message(self) -> dict[str, str]:
        """Return the turn as ``{"role", "content"}``."""
        return {"role": self.role, "content": self.content}


def read_turns(turns: Any, where: str, key: str = "conversations") -> list[Turn]:
    """Return the turns of a conversation: ``{"from", "value"}`` or ``{"role", "content"}``, content text or parts.

    Raises:
        RecordError: not a list, an unknown role, or content of another form.
    """
    if not isinstance(turns, list) or not turns:
        raise RecordError(f"{where}: {key} is empty or no list", reason="unknown schema")
    if len(turns) > MAX_TURNS:
        raise RecordError(f"{where}: {key} has {len(turns):,} turns; at most {MAX_TURNS:,}", reason="unknown schema")
    return [_turn(turn, where) for turn in turns]


def read_content(value: Any, where: str, role: str) -> Turn:
    """Parse the content of one turn, a text or a list of parts; only a user's turn may have media.

    Raises:
        RecordError: content of another form.
    """
    if isinstance(value, str):
        return Turn(role, value)
    if not isinstance(value, list) or len(value) > MAX_PARTS:
        kind = f"{len(value):,} parts" if isinstance(value, list) else f"a {type(value).__name__}"
        raise RecordError(
            f"{where}: a turn is from {role!r} with {kind}; needed text, or a list of at most {MAX_PARTS:,} parts",
            reason="unknown schema",
        )
    texts: list[str] = []
    media: list[tuple[str, Any]] = []
    for part in value:
        medium, content = _part(part, where)
        if medium is None:
            texts.append(content)
            continue
        if role != "user":
            raise RecordError(f"{where}: a turn of {role!r} shows a {medium}; only a user can", reason="unknown schema")
        texts.append(f"<{medium}>")
        media.append((medium, content))
    return Turn(role, "".join(texts), tuple(media))


def merged_media(turns: Sequence[Turn], given: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the sources of each kind in the order of their tags: from the turns, else from the record's fields.

    ``given`` are the sources of the record's fields by kind; those without a tag come last.
    """
    if not any(turn.shown for turn in turns) or all(source is None for turn in turns for _, source in turn.shown):
        return dict(given)
    merged: dict[str, list[Any]] = {kind: [] for kind in given}
    left = {kind: iter(sources) for kind, sources in given.items()}
    for turn in turns:
        tags: Iterator[tuple[str, Any]] = iter(turn.shown or [(kind, None) for kind in _TAG.findall(turn.content)])
        for kind, source in tags if turn.role == "user" else ():
            merged[kind] += [source] if source is not None else [item for item in [next(left[kind], None)] if item]
    return {kind: [*sources, *left[kind]] for kind, sources in merged.items()}


def _turn(turn: Any, where: str) -> Turn:
    given = turn.get("from", turn.get("role")) if isinstance(turn, dict) else None
    content = turn.get("value", turn.get("content")) if isinstance(turn, dict) else None
    if not isinstance(given, str) or given not in _ROLES or content is None:
        raise RecordError(
            f"{where}: a turn is from {shown(given)} with a {type(content).__name__}; "
            f"needed text, or a list of parts, from one of {', '.join(_ROLES)}",
            reason="unknown schema",
        )
    return read_content(content, where, _ROLES[given])


def _part(part: Any, where: str) -> tuple[str | None, Any]:
    """Return (None, text) for a text part, (kind, source or None) for a picture or clip."""
    if isinstance(part, str):
        return None, part
    if not isinstance(part, dict):
        raise RecordError(f"{where}: a part is {shown(part)}; needed an object with a type", reason="unknown schema")
    known = (*_TEXT_PARTS, *_MEDIA_PARTS)
    kind = part.get("type") or next((key for key in known if part.get(key) is not None), None)
    text = part.get("text", part.get("value"))
    if isinstance(kind, str) and kind in _TEXT_PARTS and isinstance(text, str):
        return None, text
    if not isinstance(kind, str) or kind not in _MEDIA_PARTS:
        raise RecordError(
            f"{where}: a part of type {shown(kind)} with text {shown(text)}; needed text, image or video",
            reason="unknown schema",
        )
    medium = _MEDIA_PARTS[kind]
    keys = (medium, f"{medium}_url", "url", "path", "value")
    source = next((part[key] for key in keys if part.get(key) is not None), None)
    if isinstance(source, dict) and "url" in source:
        source = source["url"]
    encoded = part.get("base64", part.get("bytes"))
    return medium, {"bytes": encoded} if source is None and encoded is not None else source

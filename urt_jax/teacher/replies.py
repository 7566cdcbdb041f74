"""The teacher's replies on disk: one JSON line each, written as they arrive, read back when a run resumes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import BinaryIO

from urt_jax.errors import BadInputError
from urt_jax.files.fields import Fields
from urt_jax.files.json_text import well_formed, whole_lines
from urt_jax.files.whole import write_whole
from urt_jax.teacher.answers import name_of, text_of, token_count

MAX_ATTEMPTS = 10**6  # attempts of one request, and seconds of one attempt; no run reaches it


@dataclass(frozen=True)
class Reply:
    """The outcome of one request: ``text`` if the teacher answered, ``error`` if all retries failed.

    ``request`` is the fingerprint of the prompt and sampling settings. Token counts are None if the endpoint reports
    none. ``latency_s`` is the seconds of the last attempt. ``reasoning`` is the content of a separate field, which
    ``text`` has between ``<think>`` tags. ``refusal`` says why there is no judgement if the model refused or a filter
    stopped it (``finish_reason`` is then "content_filter"): it counts as an answer and is not requested again.
    """

    id: str
    request: str
    text: str | None
    error: str | None
    model: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    latency_s: float
    attempts: int
    reasoning: str | None = None
    refusal: str | None = None


@dataclass(frozen=True)
class Usage:
    """Counts over all replies on disk, including earlier runs; ``retries`` is attempts past the first."""

    answered: int = 0
    failed: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens

    def plus(self, reply: Reply) -> Usage:
        """Return the counts with one more reply."""
        return Usage(
            answered=self.answered + (reply.text is not None),
            failed=self.failed + (reply.text is None),
            retries=self.retries + max(reply.attempts - 1, 0),
            prompt_tokens=self.prompt_tokens + (reply.prompt_tokens or 0),
            completion_tokens=self.completion_tokens + (reply.completion_tokens or 0),
        )

    def __add__(self, other: Usage) -> Usage:
        """Return the sum of two counts."""
        return Usage(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(Usage)))


def read_replies(path: Path) -> dict[str, Reply]:
    """Read the replies by record id; for a request that was sent again, the last line counts.

    A last line without a line end is the half-written line of a killed run and is ignored.

    Raises:
        BadInputError: a complete line that is not a reply; the message names file and line.
    """
    if not path.exists():
        return {}
    remedy = "; fix or delete this line, its record is then asked again"
    replies: dict[str, Reply] = {}
    for number, line in whole_lines(path):
        fields = Fields(line, f"{path} line {number}", error=lambda told: BadInputError(told + remedy))
        reply = _reply(fields)
        replies[reply.id] = reply
    return replies


def _reply(fields: Fields) -> Reply:
    """Return the reply of a line.

    An earlier version wrote the endpoint's values unchanged: content as a list of parts, counts as texts.
    """
    content = fields.get("text")
    if isinstance(content, list | dict):
        content = text_of(content)
    elif content is not None:
        content = fields.text("text")
    return Reply(
        id=fields.text("id"),
        request=fields.text("request"),
        text=content,
        error=fields.text("error", None),
        model=name_of(fields.get("model")) or "unknown",
        finish_reason=name_of(fields.get("finish_reason")),
        prompt_tokens=token_count(fields.get("prompt_tokens")),
        completion_tokens=token_count(fields.get("completion_tokens")),
        latency_s=fields.number("latency_s", at_least=0, at_most=MAX_ATTEMPTS),
        attempts=fields.integer("attempts", at_most=MAX_ATTEMPTS),
        reasoning=fields.text("reasoning", None),
        refusal=fields.text("refusal", None),
    )


def open_replies(path: Path) -> BinaryIO:
    """Open the file for appending, after truncating a half-written last line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab+")
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)
    file.seek(0, 2)
    return file


def append_reply(file: BinaryIO, reply: Reply) -> None:
    """Write one reply as one line and flush it to the operating system, so that ``kill -9`` cannot lose it."""
    file.write(_line(reply))
    file.flush()


def write_replies(path: Path, replies: Iterable[Reply]) -> None:
    """Write a file of replies atomically."""
    write_whole(path, b"".join(map(_line, replies)))


def join_replies(path: Path, parts: Sequence[Path]) -> None:
    """Merge the replies of other files into ``path``, one per record, and delete those files.

    An answer takes precedence over a failure, and a reply of ``path`` over others.
    """
    if not parts:
        return
    replies = read_replies(path)
    for part in parts:
        for name, reply in read_replies(part).items():
            if name not in replies or replies[name].text is None:
                replies[name] = reply
    write_replies(path, replies.values())
    for part in parts:
        part.unlink()


def _line(reply: Reply) -> bytes:
    return well_formed(json.dumps(asdict(reply), ensure_ascii=False)).encode() + b"\n"

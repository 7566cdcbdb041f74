"""The teacher's replies on disk: one JSON line each, written as they arrive, read back by a run that goes on."""

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

MAX_ATTEMPTS = 10**6  # of one request, and the seconds of one: more than any run has made


@dataclass(frozen=True)
class Reply:
    """What came back for one request: ``text`` when the teacher answered, ``error`` when it did not after all retries.

    ``request`` is the fingerprint of what was asked (prompt and sampling settings). Token counts are None where the
    endpoint reports none. ``latency_s`` is the seconds of the last attempt. ``reasoning`` is what stood in a field of
    its own, which ``text`` has between ``<think>`` tags. ``refusal`` says why there is no judgement where the model
    refused or a filter stopped it (``finish_reason`` is "content_filter" then): an answer, not asked again.
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
    """Count over all replies on disk, those of earlier runs included; ``retries`` is attempts past the first."""

    answered: int = 0
    failed: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Tokens read and written by the teacher."""
        return self.prompt_tokens + self.completion_tokens

    def plus(self, reply: Reply) -> Usage:
        """Return the count with one more reply in it."""
        return Usage(
            answered=self.answered + (reply.text is not None),
            failed=self.failed + (reply.text is None),
            retries=self.retries + max(reply.attempts - 1, 0),
            prompt_tokens=self.prompt_tokens + (reply.prompt_tokens or 0),
            completion_tokens=self.completion_tokens + (reply.completion_tokens or 0),
        )

    def __add__(self, other: Usage) -> Usage:
        """Return the count of both."""
        return Usage(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(Usage)))


def read_replies(path: Path) -> dict[str, Reply]:
    """Read the replies by record id; a failed request that was asked again is given by its last line.

    A last line without its line end is what a killed run left half written: it is not read.

    Raises:
        BadInputError: a complete line that is no reply; the message names file and line.
    """
    if not path.exists():
        return {}
    remedy = "; mend or delete this line, its record is then asked again"
    replies: dict[str, Reply] = {}
    for number, line in whole_lines(path):
        fields = Fields(line, f"{path} line {number}", error=lambda told: BadInputError(told + remedy))
        reply = _reply(fields)
        replies[reply.id] = reply
    return replies


def _reply(fields: Fields) -> Reply:
    """Return the reply of a line.

    An earlier version wrote what the endpoint had given as it was: content as a list of parts, counts as texts.
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
    """Open the file for appending, after cutting off a half-written last line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab+")
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)
    file.seek(0, 2)
    return file


def append_reply(file: BinaryIO, reply: Reply) -> None:
    """Write one reply as one line and hand it to the operating system at once, so that ``kill -9`` cannot lose it."""
    file.write(_line(reply))
    file.flush()


def write_replies(path: Path, replies: Iterable[Reply]) -> None:
    """Write a whole file of replies."""
    write_whole(path, b"".join(map(_line, replies)))


def join_replies(path: Path, parts: Sequence[Path]) -> None:
    """Add the replies of other files to those of ``path``, one a record, and drop those files.

    An answer is kept over a failure, and that of ``path`` over others.
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

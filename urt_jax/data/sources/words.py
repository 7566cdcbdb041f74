"""The texts of a record, read by the schema that its fields imply."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from urt_jax.data.sources.files import RecordError
from urt_jax.data.sources.turns import Turn, read_content, read_turns
from urt_jax.errors import shown
from urt_jax.files.fields import Fields

MAX_ANSWERS = 64  # candidates of one record; the longest published list has 16
TAGS = re.compile(r"\s*<(?:image|video)>\s*")
_SYSTEM_FIELDS = ("system", "system_prompt")
WORD_FIELDS = (
    "conversations", "messages", "problem", "prompt", "caption", "question", "instruction", "text", "answers",
    "chosen", "rejected", "history", *_SYSTEM_FIELDS,
)  # fmt: skip


class Words(NamedTuple):
    """The texts of a record, before its task and media are known."""

    prompt: str = ""  # its own caption or question
    answers: tuple[str, ...] = ()
    asked: str | None = None  # complete prompt text, perhaps with media tags
    tags_needed: bool = False  # the schema requires a tag in the prompt for each medium
    history: tuple[Turn, ...] = ()
    response: str | None = None
    last: Turn | None = None  # the conversation's turn whose text is ``asked``, if any

    @property
    def turns(self) -> tuple[Turn, ...]:
        """All turns that can show media."""
        return self.history if self.last is None else (*self.history, self.last)


def read_words(fields: Fields) -> Words:
    """Return the texts of a record.

    Raises:
        RecordError: unknown schema, or texts of another form.
    """
    said = _words(fields)
    if "history" in fields or any(key in fields for key in _SYSTEM_FIELDS):
        return said._replace(history=_with_system(fields, (*_earlier_turns(fields), *said.history)))
    return said


def _words(fields: Fields) -> Words:
    where = fields.where
    own = fields.text("caption", "") or fields.text("question", "") or fields.text("instruction", "")
    answers = fields.texts("answers", (), at_most=MAX_ANSWERS)
    if "chosen" in fields and "caption" not in fields:
        return _preference(fields, own)
    asked: Any = None
    for key in ("conversations", "messages", "problem", "prompt"):
        if key in fields and (key != "prompt" or isinstance(fields[key], list)):
            asked = fields[key]
            break
    if asked is None:
        if own:
            return Words(own, answers)
        raise RecordError(
            f"{where}: fields {', '.join(fields)[:300] or 'none'}; needed conversations or messages (SFT), problem and "
            "solution (GRPO), chosen and rejected (DPO), or caption, instruction, or question and answers",
            reason="unknown schema",
        )
    if key == "problem" and not isinstance(asked, list):
        return Words(own, answers, fields.text("problem"))
    parsed = read_turns(asked, where, key)
    response = parsed.pop().content if parsed[-1].role == "assistant" else None
    if not parsed or parsed[-1].role != "user":
        raise RecordError(f"{where}: a conversation needs a human turn before the last reply", reason="unknown schema")
    return Words(own, answers, parsed[-1].content, True, tuple(parsed[:-1]), response, parsed[-1])


def _preference(fields: Fields, own: str) -> Words:
    """Read a question with the better and the worse reply; each reply may repeat the question before it."""
    where = fields.where
    before, replies = zip(*(_reply(fields, key) for key in ("chosen", "rejected")))
    given = next((fields[key] for key in ("prompt", "conversations", "messages", "problem") if key in fields), None)
    turns = [] if given is None else [read_content(given, where, "user")] if isinstance(given, str) else None
    if turns is None:
        turns = read_turns(given, where, "prompt") if given else []
    if turns and turns[-1].role == "assistant":
        turns.pop()  # the conversation ends with a further reply besides the two
    for common in before:
        turns = turns or common
        if common and [turn.as_message() for turn in common] != [turn.as_message() for turn in turns]:
            raise RecordError(
                f"{where}: the turns before the replies of chosen, rejected and prompt differ; needed one question",
                reason="unknown schema",
            )
    system = [turn for turn in turns if turn.role == "system"]
    asked = [turn for turn in turns if turn.role != "system"]
    if len(asked) > 1 or any(turn.role != "user" for turn in asked) or not (asked or own):
        raise RecordError(
            f"{where}: {len(asked)} turns before the replies of chosen and rejected; needed one question",
            reason="unknown schema",
        )
    last = asked[0] if asked else None
    text = last.content if last else ""
    return Words(own or TAGS.sub("\n", text).strip(), replies, text, history=tuple(system), last=last)


def _reply(fields: Fields, key: str) -> tuple[list[Turn], str]:
    """Return the turns before a reply, and the reply; the field is a text, one turn, or a conversation."""
    value = fields.get(key)
    if isinstance(value, list):
        turns = read_turns(value, fields.where, key)
        if turns[-1].role == "assistant":
            return turns[:-1], turns[-1].content
    content = value.get("value", value.get("content")) if isinstance(value, dict) else value
    if not isinstance(content, str | list) or isinstance(value, list):
        raise RecordError(
            f"{fields.where}: {key} is {shown(value)}; needed the text of an answer", reason="unknown schema"
        )
    return [], read_content(content, fields.where, "assistant").content


def _earlier_turns(fields: Fields) -> list[Turn]:
    """Return the turns of ``history``: a conversation, or (question, reply) pairs."""
    given = fields.values_of("history", [], at_most=1000)
    if given and all(isinstance(pair, list) and len(pair) == 2 for pair in given):
        roles = ("user", "assistant")
        return [read_content(text, fields.where, role) for pair in given for role, text in zip(roles, pair)]
    return read_turns(given, fields.where, "history") if given else []


def _with_system(fields: Fields, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """Prepend the system prompt of a separate field, unless the turns already have it."""
    given = [read_content(fields[key], fields.where, "system") for key in _SYSTEM_FIELDS if key in fields]
    given = [turn for turn in given if turn.content.strip()]
    if not given:
        return turns
    inside = [turn for turn in turns if turn.role == "system"]
    if any(turn.content.strip() != given[0].content.strip() for turn in (*given, *inside)):
        raise RecordError(
            f"{fields.where}: two system prompts that differ, in a field of its own and in the conversation; keep one",
            reason="unknown schema",
        )
    return turns if inside else (given[0], *turns)

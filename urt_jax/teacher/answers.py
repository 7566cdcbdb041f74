"""Parse the body of an endpoint's response, in any of the common forms, to one answer.

1. The body is one JSON object; halves of surrogate pairs are replaced, secrets are redacted.
2. Its first choice holds a message: a text, or parts of a text; the reasoning may have a field of its own.
3. Both are joined to ``<think>reasoning</think>`` and the answer. Refusals and content filters are recorded as such.
4. Anything else is an ``EndpointError`` with the endpoint's own words and the error code in the body.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from urt_jax.errors import BadInputError
from urt_jax.files.fields import Fields
from urt_jax.files.json_text import JsonError, parse_json, well_formed
from urt_jax.teacher.retries import EndpointError

MAX_CHOICES = 128  # one is requested; OpenAI sends at most this many
MAX_TOKENS = 10**9  # of one answer by the endpoint's count; a larger number is not a count
MAX_NAME = 200  # characters of a model's name or a finish reason that are kept
MAX_EXCERPT = 300  # characters of a body that is not JSON, in the error
FILTERED = "content_filter"  # finish reason of a filtered answer, whatever the endpoint's name for it
_FILTERS = frozenset(["safety", "prohibited_content", "recitation", "blocklist", "spii", "image_safety", "sensitive"])
# Fields for the reasoning: DeepSeek, SGLang and older vLLM; newer vLLM, OpenRouter, Ollama; LiteLLM.
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking", "reasoning_details", "thinking_blocks")
_TEXT_KEYS = ("text", "thinking", "reasoning", "summary", "refusal", "content", "msg")
_TAG = re.compile(r"</?(?:think|answer)>")

Mend = Callable[[str], str]


class Answer(NamedTuple):
    """One reply of the model: ``text`` includes the reasoning, ``reasoning`` is the field of its own, if any."""

    text: str
    reasoning: str | None
    refusal: str | None  # why there is no judgement, if the model refused or a filter stopped it
    model: str | None
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None


def read_answer(body: bytes, *, mend: Mend = well_formed) -> Answer:
    """Return the answer in the body of an HTTP response of status 200; ``mend`` is applied to every text of it.

    Raises:
        EndpointError: an error in place of an answer (with its code), or a body of unknown form.
    """
    try:
        value = parse_json(body, mend=mend)
    except JsonError as error:
        raise EndpointError(f"HTTP 200 without a chat completion: {error}; {_CHECK_ADDRESS}") from None
    if not isinstance(value, dict) or not value.get("choices"):
        raise _no_choice(value)
    try:
        fields = Fields(value, "the answer")
        choices = fields.items_of("choices", at_most=MAX_CHOICES)
        choice = choices.group("0")
        if (failed := error_in(choice)) is not None:
            raise failed
        return _answer(fields, choice, choice.group("message"))
    except BadInputError as error:
        raise EndpointError(f"HTTP 200 without a message: {error}") from None


_CHECK_ADDRESS = "check that teacher.base_url is an OpenAI-compatible API root"


def _no_choice(value: Any) -> EndpointError:
    if (failed := error_in(value)) is not None:
        return failed
    if isinstance(value, dict) and "choices" in value:
        return EndpointError("HTTP 200 with no choices: the endpoint gave no reply to this request")
    return EndpointError(f"HTTP 200 without a chat completion; {_CHECK_ADDRESS}")


def _answer(fields: Fields, choice: Fields, message: Fields) -> Answer:
    text, thoughts, refusal = _parts(message)
    for key in _REASONING_KEYS:
        if own := _joined(message.get(key)).strip():
            thoughts = own
            break
    finish = name_of(choice.get("finish_reason"))
    if finish is not None and (finish.lower().startswith(FILTERED) or finish.lower() in _FILTERS):
        refusal = refusal or f"stopped by a content filter ({finish})"
        finish = FILTERED
    elif text.strip():
        refusal = ""  # a model that also answers has not refused
    elif finish == "refusal":
        refusal = refusal or "refused, no reason given"
    usage = fields.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Answer(
        text=joined_reply(text, thoughts),
        reasoning=thoughts or None,
        refusal=refusal or None,
        model=name_of(fields.get("model")),
        finish_reason=finish,
        prompt_tokens=token_count(counts.get("prompt_tokens")),
        completion_tokens=token_count(counts.get("completion_tokens")),
    )


def text_of(content: Any) -> str:
    """Return the text of a message's content, a text or a list of parts; its reasoning comes first, between tags."""
    text, thoughts, _ = _split(content)
    return joined_reply(text, thoughts)


def joined_reply(text: str, thoughts: str) -> str:
    """Join an answer and its separate reasoning to one reply of the form that judges learn.

    An answer that has reasoning between tags keeps it, and the separate reasoning, which preceded it, is dropped. Tags
    inside separate reasoning only mention the form, and are removed.
    """
    if not text.strip() and "</think>" in thoughts:  # the server did not find the end of the reasoning
        text, thoughts = thoughts, ""
    if "</think>" in text and "<think>" not in text:  # the prompt held the opening tag
        text = f"<think>\n{text}"
    own, closed, rest = text.partition("</think>")
    thoughts = _TAG.sub("", thoughts).strip()
    if not thoughts or (own.replace("<think>", "").strip() and "<think>" in text):
        return text
    return f"<think>\n{thoughts}\n</think>" + (rest if closed else f"\n{text.lstrip()}")


def error_in(value: Any) -> EndpointError | None:
    """Return the error in a body, or in a choice of it, in place of an answer; None if there is none.

    ``error`` is an object or a text, the body itself (``"object": "error"``), or in a list (Gemini).
    """
    if isinstance(value, list):
        return next((error for error in map(error_in, value) if error is not None), None)
    if not isinstance(value, Mapping):
        return None
    error: Any = value.get("error")
    if not error and value.get("message") and (value.get("object") == "error" or value.get("type") == "error"):
        error = value
    if not error:
        return None
    given = error if isinstance(error, Mapping) else {"message": error}
    code, kind, status = given.get("code"), given.get("type"), given.get("status")
    number = next((found for item in (code, status, given.get("status_code")) if (found := _status(item))), None)
    name = next((item for item in (code, kind, status) if isinstance(item, str) and not _status(item)), "")
    if isinstance(kind, str) and kind.lower() == "insufficient_quota":
        name = kind
    details = given.get("metadata")
    beside = details if isinstance(details, Mapping) else {}
    words = next((item for key in ("message", "detail", "msg") if (item := _joined(given.get(key)).strip())), "")
    if isinstance(beside.get("raw"), str):  # OpenRouter: the provider's own message
        words = f"{words}: {beside['raw']}" if words else beside["raw"]
    filtered = bool(beside.get("flagged_input") or beside.get("reasons"))
    told = words or name or "an error without a message"
    return EndpointError(told, status=number, name=name, filtered=filtered)


def refused_answer(status: int, body: bytes, *, mend: Mend = well_formed, after_s: float = 0.0) -> EndpointError:
    """Return the error of an HTTP response whose status is not 200, in the endpoint's words if it sent any."""
    try:
        value = parse_json(body, mend=mend)
    except JsonError:
        text = " ".join(mend(well_formed(body.decode(errors="replace"))).split())
        words = "" if text.startswith("<") else text[:MAX_EXCERPT]
        return EndpointError(words or "no reason given", status=status, retry_after_s=after_s)
    found = error_in(value)
    if found is None and isinstance(value, dict):
        found = error_in({"error": value})
    if found is None:
        found = EndpointError(value if isinstance(value, str) else "no reason given")
    return EndpointError(found.words, status=status, name=found.name, retry_after_s=after_s, filtered=found.filtered)


def _parts(message: Fields) -> tuple[str, str, str]:
    """Return text, reasoning and refusal of a message."""
    content = message.get("content")
    if content is not None and not isinstance(content, str | list | dict):
        raise message.refusal("content", "a text or a list of parts")
    text, thoughts, refusal = _split(content)
    return text, thoughts, _joined(message.get("refusal")).strip() or refusal


def _split(content: Any) -> tuple[str, str, str]:
    """Return the text, the reasoning and the refusal in a text or a list of parts; other parts are ignored."""
    texts, thoughts, refusals = list[str](), list[str](), list[str]()
    for part in content if isinstance(content, list) else [content]:
        kind = str(part.get("type") or "text") if isinstance(part, dict) else "text"
        if "think" in kind or "reason" in kind:
            thoughts.append(_joined(part).strip())
        elif kind == "refusal":
            refusals.append(_joined(part).strip())
        elif isinstance(part, str) or (isinstance(part, dict) and "text" in kind):
            texts.append(_joined(part))
    return "".join(texts), "\n".join(filter(None, thoughts)), "\n".join(filter(None, refusals))


def _joined(value: Any) -> str:
    """Return the text of a text, a part, or a list of these."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(filter(None, map(_joined, value)))
    if isinstance(value, dict):
        return next((words for key in _TEXT_KEYS if (words := _joined(value.get(key)))), "")
    return ""


def _status(value: Any) -> int | None:
    """Return a number, or a text of one, that is an HTTP error status; else None."""
    if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599 else None


def name_of(value: Any) -> str | None:
    """Return the name of a model or a finish reason; None if there is none."""
    return value[:MAX_NAME] if isinstance(value, str) and value else None


def token_count(value: Any) -> int | None:
    """Return a count of tokens, also one written as text; None if there is no plausible one."""
    if isinstance(value, str) and len(value) <= 10 and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS else None

"""Redaction of secrets (keys, tokens, credentials in addresses) from messages, logs and records.

1. The secrets of this process are redacted by value, wherever an endpoint or a library repeats them.
2. So are environment variables whose names mark them as secret (``HF_TOKEN``, ``..._API_KEY``).
3. So is text in the form of a secret: ``Bearer ...``, ``sk-...``, ``hf_...``, ``?api_key=...``, ``user:password@``.
"""

import base64
import json
import os
import re
from collections.abc import Iterable
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from urt_jax.files.json_text import with_texts

STAND_IN = "***"
MIN_CHARS = 6  # of a known secret; shorter ones ("none", "EMPTY", "x") are placeholders and occur in many words
MIN_CHARS_ENVIRONMENT = 8  # of an environment variable's value: CI sets many short words as tokens

_given: set[str] = set()  # of this process
_SECRET_VARIABLE = re.compile(r"(?:.*_)?(?:API_?KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)", re.IGNORECASE)
_SECRET_NAME = r"[\w.-]{0,40}(?:key|token|secret|password|passwd|signature|sig|credential|auth)"

# Linear in the text: no two adjacent repetitions match the same character. The group of each alternative is kept.
_HINT = r"://|[?&;]|bearer|authorization|api.?key|\bsk-|\bhf_|\b(?:gsk_|nvapi-|xai-|gh[a-z]_|AIza)"
_LOOKS = rf"""(://)[^/?\#\s"'<>]+(?=@)
    | ([?&;](?i:{_SECRET_NAME})=)[^&;\s"'<>\#\\]+
    | ((?i:authorization)["']?\s*[:=]\s*["']?(?i:bearer\ |basic\ )?)[^\s"',}}]{{6,}}
    | ((?i:\bx?-?api[-_\ ]?key)["']?\s*[:=]\s*["']?)[^\s"',;&}}*]{{6,}}
    | ((?i:\bbearer)\ )(?=\S{{0,200}}\d)[\w.~+/=-]{{12,}}
    | \b(sk-)[\w-]{{8,}}
    | \b(hf_)(?:[A-Za-z0-9]{{16,}}|(?=[A-Za-z]{{0,20}}\d)[A-Za-z0-9]{{8,}})
    | \b(gsk_|nvapi-|xai-|gh[a-z]_|AIza)[\w-]{{16,}}"""


@cache
def _compiled() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return a cheap pattern that hints at a secret and the full pattern; compiled at first use, not at import."""
    return re.compile(_HINT, re.IGNORECASE), re.compile(_LOOKS, re.VERBOSE)


def keep_secret(value: str) -> None:
    """Register a secret of this process, also in its URL and JSON encodings."""
    value = value.strip()
    if len(value) >= MIN_CHARS:
        _given.update((value, quote(value, safe=""), quote_plus(value), json.dumps(value)[1:-1]))
        _given.add(json.dumps(value)[1:-1].replace("/", "\\/"))


def keep_address(url: str) -> None:
    """Register the credentials of an address: user and password, and keys or tokens in its query."""
    try:
        parts = urlsplit(url)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        pairs = parse_qsl(parts.query)
    except ValueError:  # not an address; the patterns still redact it
        return
    keep_secret(password or user)
    if password:
        keep_secret(base64.b64encode(f"{user}:{password}".encode()).decode())  # as in the Authorization header
    for name, value in pairs:
        if re.fullmatch(_SECRET_NAME, name, re.IGNORECASE):
            keep_secret(value)


def known_secrets() -> tuple[str, ...]:
    """Return the current secrets of this process, longest first."""
    named = {
        value.strip()
        for name, value in os.environ.items()
        if len(value.strip()) >= MIN_CHARS_ENVIRONMENT and _SECRET_VARIABLE.fullmatch(name)
    }
    return tuple(sorted(_given | named, key=len, reverse=True))


def redacted(text: str, known: Iterable[str] | None = None) -> str:
    """Return a text with each secret replaced by ``***``; ``known`` avoids a call of ``known_secrets()``."""
    if len(text) < MIN_CHARS:
        return text
    for value in known_secrets() if known is None else known:
        if value in text:
            text = text.replace(value, STAND_IN)
    hint, looks = _compiled()
    return looks.sub(_stand_in, text) if hint.search(text) else text


def _stand_in(found: re.Match[str]) -> str:
    return f"{found[found.lastindex or 0]}{STAND_IN}"


def redacted_values(value: Any, known: Iterable[str] | None = None) -> Any:
    """Return a JSON value whose texts are ``redacted``."""
    known = known_secrets() if known is None else tuple(known)
    return with_texts(value, lambda text: redacted(text, known))

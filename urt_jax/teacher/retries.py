"""When to ask a teacher again, and after how long."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import openai

LONGEST_WAIT_S = 600.0  # even a Retry-After header is not obeyed beyond this


def is_passing(error: openai.APIError) -> bool:
    """Say whether the same request may succeed later: no connection, timeout, 408, 409, 429, 5xx."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError)


def pause_s(error: openai.APIError, attempt: int, *, first_s: float, longest_s: float) -> float:
    """Return the seconds to wait after attempt number ``attempt`` (from 1): doubling, jittered, Retry-After obeyed."""
    backoff = min(longest_s, first_s * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
    if isinstance(error, openai.APIStatusError):
        return max(backoff, min(retry_after_s(error.response.headers), LONGEST_WAIT_S))
    return backoff


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Return the seconds that ``retry-after-ms`` or ``Retry-After`` (seconds or a date) ask for, else 0."""
    try:
        if "retry-after-ms" in headers:
            return max(float(headers["retry-after-ms"]) / 1000, 0.0)
        value = headers.get("retry-after", "0")
        if value.replace(".", "", 1).isdigit():
            return float(value)
        return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):  # a header nobody can read asks for nothing
        return 0.0


def told(error: openai.APIError) -> str:
    """Return what the endpoint said, with the HTTP status where there is one, for a person to read."""
    status = f"HTTP {error.status_code}: " if isinstance(error, openai.APIStatusError) else ""
    return (status + error.message)[:500]

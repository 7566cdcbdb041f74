"""Errors in place of an answer: their meaning, whether to retry, and after what pause."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_WAIT_S = 600.0  # limit on the pause of a Retry-After header
MAX_TOLD = 500  # characters of an endpoint's words in a message: a sentence or two, not a whole page
# Endpoints' names for errors that have an HTTP status; endpoints that answer 200 give only the name.
_NAMES = {
    "access": """invalid_api_key authentication_error unauthorized unauthenticated permission_denied permission_error
        access_denied account_deactivated""",
    "missing": "model_not_found not_found_error not_found",
    "quota": "insufficient_quota insufficient_balance insufficient_credits billing_error",
    "filter": "content_filter content_policy_violation content_filtered responsibleaipolicyviolation",
    "passing": """rate_limit_exceeded rate_limit_error too_many_requests resource_exhausted overloaded overloaded_error
        engine_overloaded server_error internal_server_error internal_error api_error timeout timeout_error
        service_unavailable unavailable""",
}
_KIND = {name: kind for kind, names in _NAMES.items() for name in names.split()}


class EndpointError(Exception):
    """An error in place of an answer, in the endpoint's words.

    ``status`` is the HTTP status, or the code inside a body of status 200; None if there was no answer or one of
    unknown form. ``name`` is the endpoint's name for the error ("insufficient_quota"). ``lost``: no complete answer
    arrived. ``unreachable``: no connection was made. ``filtered``: a content filter stopped this request.
    """

    def __init__(
        self,
        words: str,
        *,
        status: int | None = None,
        name: str = "",
        retry_after_s: float = 0.0,
        lost: bool = False,
        unreachable: bool = False,
        filtered: bool = False,
    ) -> None:
        self.words = " ".join(words.split())
        self.status = status
        self.kind = _KIND.get(name.lower())
        self.name = name
        self.retry_after_s = retry_after_s
        self.lost = lost or unreachable
        self.unreachable = unreachable
        self.filtered = filtered or self.kind == "filter"
        told = self.words if len(self.words) <= MAX_TOLD else f"{self.words[:MAX_TOLD]}..."
        super().__init__(told if status is None else f"HTTP {status}: {told}")

    @property
    def is_access(self) -> bool:
        """Whether the endpoint refused the key."""
        return self.status in (401, 403) or self.kind == "access"

    @property
    def is_quota(self) -> bool:
        """Whether the account's quota is used up."""
        return self.status == 402 or self.kind == "quota"

    @property
    def is_missing(self) -> bool:
        """Whether the model or address does not exist."""
        return self.status == 404 or self.kind == "missing"


def is_passing(error: EndpointError) -> bool:
    """Return whether the same request may succeed later: no connection, timeout, 408, 409, 429, 5xx, or their names."""
    if error.status is not None and (error.status in (408, 409, 429) or error.status >= 500):
        return True
    return error.lost or error.kind == "passing"


def pause_s(error: EndpointError, attempt: int, *, first_s: float, longest_s: float) -> float:
    """Return the pause in seconds after attempt ``attempt`` (from 1): doubling, jittered, at least Retry-After."""
    backoff = min(longest_s, first_s * 2 ** min(attempt - 1, 60)) * random.uniform(0.5, 1.0)
    return max(backoff, min(error.retry_after_s, LONGEST_WAIT_S))


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Return the seconds of ``retry-after-ms`` or ``Retry-After`` (seconds or a date), else 0."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif (value := headers.get("retry-after", "0")).replace(".", "", 1).isdigit():
            seconds = float(value)
        else:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):  # an unreadable header counts as none
        return 0.0
    return 0.0 if math.isnan(seconds) else max(seconds, 0.0)

"""Which errors pass, and how long to wait: hand values."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from urt_jax.teacher.retries import LONGEST_WAIT_S, MAX_TOLD, EndpointError, is_passing, pause_s, retry_after_s


def status_error(status: int, after_s: float = 0.0) -> EndpointError:
    return EndpointError("stumbled", status=status, retry_after_s=after_s)


@pytest.mark.parametrize(("status", "passing"), [(400, False), (401, False), (422, False), (429, True), (503, True)])
def test_busy_and_broken_servers_pass_refusals_do_not(status: int, passing: bool) -> None:
    assert is_passing(status_error(status)) is passing


def test_lost_connections_and_timeouts_pass() -> None:
    assert is_passing(EndpointError("slow", lost=True))
    assert is_passing(EndpointError("nobody there", unreachable=True))
    assert not is_passing(EndpointError("of no known form"))


@pytest.mark.parametrize(
    ("name", "passing"),
    [("rate_limit_exceeded", True), ("overloaded_error", True), ("RESOURCE_EXHAUSTED", True), ("odd", False)],
)
def test_an_error_without_a_number_is_known_by_its_name(name: str, passing: bool) -> None:
    assert is_passing(EndpointError("?", name=name)) is passing


@pytest.mark.parametrize(("attempt", "longest"), [(1, 2.0), (2, 4.0), (3, 8.0), (9, 10.0)])
def test_pauses_double_up_to_a_limit_within_the_jitter(attempt: int, longest: float) -> None:
    pauses = [pause_s(status_error(500), attempt, first_s=2.0, longest_s=10.0) for _ in range(50)]
    assert all(longest / 2 <= pause <= longest for pause in pauses)
    assert len(set(pauses)) > 1


def test_retry_after_is_read_as_seconds_milliseconds_or_date() -> None:
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert retry_after_s({"retry-after": "7.5"}) == 7.5
    assert retry_after_s({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert 50 < retry_after_s({"retry-after": in_a_minute}) <= 60
    assert retry_after_s({"retry-after": "soon"}) == 0
    for odd in ("nan", "-5", "\u00b2", "Mon, 99 Foo 99999 00:00:00 GMT", "", "1e999"):
        assert retry_after_s({"retry-after-ms": odd}) in (0, float("inf"))
        assert retry_after_s({"retry-after": odd}) == 0
    assert retry_after_s({}) == 0


def test_retry_after_outweighs_the_own_pause_but_not_the_longest_wait() -> None:
    assert pause_s(status_error(429, 30.0), 1, first_s=1.0, longest_s=60.0) == 30
    assert pause_s(status_error(429, float("inf")), 1, first_s=1.0, longest_s=60.0) == LONGEST_WAIT_S


def test_an_error_is_told_with_its_status() -> None:
    assert str(status_error(503)) == "HTTP 503: stumbled"
    assert len(str(EndpointError("x " * 10_000, status=500))) < MAX_TOLD + 20
    assert str(EndpointError("two\nlines")) == "two lines"

"""What one exchange is bounded by, and what of it may be told: bytes, seconds, redirects, secrets."""

import gzip
import json
import logging
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tests.teacher.scripted_endpoint import Answer, Endpoint, completion, scripted_endpoint
from tests.teacher.test_client import requests, settings
from urt_jax.errors import BadInputError
from urt_jax.teacher.client import ask_teacher
from urt_jax.teacher.exchange import MAX_REPLY_BYTES
from urt_jax.teacher.replies import Reply, Usage, read_replies

KEY = "k3y-0f-a-test/with+signs="


def asked(tmp_path: Path, answer: Answer, count: int = 1, **changes: Any) -> tuple[list[Reply], Usage, Endpoint]:
    path = tmp_path / "r.jsonl"
    with scripted_endpoint(lambda body, earlier: answer) as endpoint:
        usage = ask_teacher(requests(count), settings(endpoint.url, **{"retries": 0} | changes), replies_path=path)
    return list(read_replies(path).values()), usage, endpoint


def test_a_slow_drip_is_given_up_after_the_seconds_of_a_request(tmp_path: Path) -> None:
    started = time.monotonic()
    (reply,), usage, _ = asked(tmp_path, Answer(drip_s=0.1), timeout_s=0.5)
    assert time.monotonic() - started < 3
    assert usage.failed == 1
    assert reply.error == "no whole answer within 0.5 s (teacher.timeout_s)"


@pytest.mark.parametrize("status", [200, 500])
def test_a_reply_that_unfolds_to_gigabytes_is_not_read(tmp_path: Path, status: int) -> None:
    bomb = gzip.compress(bytes(1 << 27), 9)
    tracemalloc.start()
    (reply,), _, _ = asked(tmp_path, Answer(status, bomb, {"Content-Encoding": "gzip"}), timeout_s=30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reply.error == f"a reply of more than {MAX_REPLY_BYTES:,} bytes, which is not read"
    assert peak < 6 * MAX_REPLY_BYTES


def test_a_packed_reply_is_read_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    packed = gzip.compress(json.dumps(completion("yes")).encode())
    (reply,), _, _ = asked(tmp_path, Answer(body=packed, headers={"Content-Encoding": "gzip"}))
    assert reply.text == "yes"
    (reply,), _, _ = asked(tmp_path / "2", Answer(body=b"\x1f\x8b" + bytes(40), headers={"Content-Encoding": "gzip"}))
    assert str(reply.error).startswith("the connection broke off: DecodingError")


@pytest.mark.parametrize(
    "body",
    [b"\xff\xfe", b"{", b"[" * 10_000, b"", '{"choices": [{"message": "x"}]}', '{"choices": [{"message": null}]}', "7"],
    ids=range(7),
)
def test_a_broken_reply_is_one_failure_and_the_others_are_asked(tmp_path: Path, body: Any) -> None:
    path = tmp_path / "r.jsonl"
    with scripted_endpoint(
        lambda sent, earlier: Answer(body=body if "question 1" in str(sent) else completion("y"))
    ) as endpoint:
        usage = ask_teacher(requests(4), settings(endpoint.url, retries=0), replies_path=path)
    assert (usage.answered, usage.failed) == (3, 1)
    assert str(read_replies(path)["r1"].error).startswith("HTTP 200 without a ")


def test_half_an_emoji_and_odd_counts_end_nothing(tmp_path: Path) -> None:
    body = completion("a \ud83d")
    body["usage"] = {"prompt_tokens": "many", "completion_tokens": -3}
    (reply,), usage, _ = asked(tmp_path, Answer(body=body))
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("a \ufffd", None, None)
    assert usage == Usage(answered=1)


def test_an_error_of_status_200_is_asked_again_by_its_own_code(tmp_path: Path) -> None:
    def script(body: dict[str, Any], earlier: int) -> Answer:
        return Answer() if earlier else Answer(body={"error": {"code": 429, "message": "busy"}})

    with scripted_endpoint(script) as endpoint:
        usage = ask_teacher(requests(2), settings(endpoint.url), replies_path=tmp_path / "r.jsonl")
    assert (usage.answered, usage.retries) == (2, 2)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ({"code": 401, "message": "bad key"}, "access refused .HTTP 401: bad key"),
        ({"code": "403", "message": "no"}, "access refused"),
        ({"code": "insufficient_quota", "message": "pay"}, "no quota left .pay"),
        ({"code": 429, "type": "insufficient_quota", "message": "pay"}, "no quota left"),
        ({"code": 404, "message": "no such model"}, "not found .HTTP 404: no such model"),
    ],
)
def test_a_hopeless_error_of_status_200_stops_the_run(tmp_path: Path, error: Any, message: str) -> None:
    with scripted_endpoint(lambda body, earlier: Answer(body={"error": error})) as endpoint:
        with pytest.raises(BadInputError, match=message):
            ask_teacher(requests(50), settings(endpoint.url), replies_path=tmp_path / "r.jsonl")
        assert len(endpoint.asked) <= 2


@pytest.mark.parametrize(
    "answer",
    [
        Answer(400, {"error": {"code": "content_filter", "message": "sexual"}}),
        Answer(403, {"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["sexual"]}}}),
        Answer(body=completion("", tokens=None, finish_reason="content_filter")),
    ],
    ids=range(3),
)
def test_what_a_filter_stopped_is_an_answer_that_is_not_asked_again(tmp_path: Path, answer: Answer) -> None:
    (reply,), usage, endpoint = asked(tmp_path, answer, token_budget=100)
    assert (reply.finish_reason, usage.answered, usage.failed) == ("content_filter", 1, 0)
    assert str(reply.refusal).startswith("stopped by a content filter")
    assert len(endpoint.asked) == 1


def test_a_redirect_is_followed_and_a_circle_of_them_is_not(tmp_path: Path) -> None:
    with scripted_endpoint(lambda body, earlier: Answer()) as there:
        moved = Answer(307, "", {"Location": f"{there.url}/chat/completions"})
        (reply,), _, _ = asked(tmp_path, moved)
        assert (reply.text, len(there.asked)) == ("yes", 1)
    (reply,), _, endpoint = asked(tmp_path / "2", Answer(307, "", {"Location": "/v1/chat/completions"}))
    assert str(reply.error).startswith("HTTP 307")
    assert len(endpoint.asked) == 6


def test_a_key_that_is_repeated_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    echo = completion(f"you sent Bearer {KEY}")
    echo["model"] = KEY
    echo["choices"][0]["message"]["reasoning_content"] = json.dumps({"authorization": f"Bearer {KEY}"})
    asked(tmp_path, Answer(body=json.dumps(echo).replace("/", "\\/")), api_key_env="MY_KEY")
    for status in (200, 400):
        error = {"error": {"code": 400, "message": f"key {KEY} may not " + "x" * 600}}
        asked(tmp_path / str(status), Answer(status, error), api_key_env="MY_KEY")
    asked(tmp_path / "odd", Answer(body={"choices": [{"message": "x" * 60 + KEY}]}), api_key_env="MY_KEY")
    asked(tmp_path / "page", Answer(500, f"no {KEY}"), api_key_env="MY_KEY")
    kept = "".join(path.read_text() for path in tmp_path.rglob("*.jsonl"))
    assert kept.count("***") >= 5
    assert not any(KEY[start : start + 8] in kept for start in range(len(KEY) - 8))
    with pytest.raises(BadInputError) as caught:
        asked(tmp_path / "401", Answer(401, {"error": {"message": f"bad key {KEY}"}}), api_key_env="MY_KEY")
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_credentials_of_the_address_are_used_and_not_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "r.jsonl"
    caplog.set_level(logging.DEBUG)
    with scripted_endpoint(lambda body, earlier: Answer(body=completion("hunter-22 s3cr3t-value"))) as endpoint:
        url = endpoint.url.replace("http://", "http://me:hunter-22@") + "?api_key=s3cr3t-value&api-version=1"
        ask_teacher(requests(1), settings(url), replies_path=path)
        assert endpoint.paths == ["/v1/chat/completions?api_key=s3cr3t-value&api-version=1"]
        assert endpoint.headers[0]["authorization"].startswith("Basic ")
    assert read_replies(path)["r0"].text == "*** ***"
    with pytest.raises(BadInputError, match=r"http://\*\*\*@127.* cannot be reached") as caught:
        ask_teacher(requests(2), settings(url, retries=0), replies_path=path)
    assert "api_key=***" in caplog.text
    assert "s3cr3t-value" not in caplog.text
    assert "hunter-22" not in caplog.text + str(caught.value)
    assert "s3cr3t-value" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["", "host/v1", "ftp://host/v1", "http://", "http://host:port/v1", "http://[::1/v1", "http://a b/v1", "http:///v1"],
)
def test_an_address_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(BadInputError, match="is not an address; give one such as"):
        ask_teacher(requests(1), settings(url), replies_path=tmp_path / "r.jsonl")


@pytest.mark.parametrize(
    "changes",
    [{"timeout_s": 0}, {"timeout_s": float("nan")}, {"temperature": -1.0}, {"max_tokens": 0}, {"retries": -1}],
)
def test_settings_that_mean_nothing_are_refused(changes: Any) -> None:
    with pytest.raises(BadInputError, match=rf"teacher\.{next(iter(changes))}: got .*, must be (above|at least) "):
        ask_teacher([], settings("http://host/v1", **changes), replies_path="unused")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MY_KEY", None, "MY_KEY is not set.*None if the endpoint needs no key"),
        ("MY_KEY", "  ", "MY_KEY is empty"),
        ("MY_KEY", "schl\u00fcssel-geheim", "MY_KEY holds characters that no API key"),
        ("MY_KEY", "two\nlines-of-it", "MY_KEY holds characters that no API key"),
        ("sk-live-1234567890", None, "is not the name of an environment variable; put the key into a variable"),
    ],
)
def test_a_key_that_cannot_be_sent_is_told_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str | None, message: str
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv(name, value)
    with pytest.raises(BadInputError, match=message) as caught:
        ask_teacher(requests(1), settings("http://127.0.0.1:9/v1", api_key_env=name), replies_path=tmp_path / "r")
    assert "sk-live" not in str(caught.value)
    assert not value or not value.strip() or value not in str(caught.value)

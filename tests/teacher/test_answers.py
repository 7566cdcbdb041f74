"""The shapes in which endpoints answer: where the words stand, where the thoughts, and what is no answer at all."""

import json
from typing import Any

import pytest

from urt_jax.tasks.replies import parse
from urt_jax.teacher.answers import FILTERED, Answer, joined_reply, read_answer, refused_answer, text_of
from urt_jax.teacher.retries import EndpointError, is_passing

ANSWER = "<answer>Image 1 is better</answer>"
WHOLE = f"<think>\nso\n</think>\n{ANSWER}"


def body(message: Any, **choice: Any) -> bytes:
    choices = [{"index": 0, "finish_reason": "stop", "message": message, **choice}]
    return json.dumps(
        {"model": "m", "choices": choices, "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    ).encode()


def failure(data: bytes) -> EndpointError:
    with pytest.raises(EndpointError) as caught:
        read_answer(data)
    return caught.value


@pytest.mark.parametrize(
    "message",
    [
        {"content": WHOLE},
        {"content": ANSWER, "reasoning_content": "so"},
        {"content": f"\n\n{ANSWER}", "reasoning": "so"},
        {"content": ANSWER, "reasoning": "so", "reasoning_content": "so"},
        {"content": ANSWER, "reasoning": None, "reasoning_content": "\nso\n"},
        {"content": ANSWER, "reasoning_content": "<think>so</think>"},
        {"content": ANSWER, "reasoning": {"content": "so"}},
        {"content": ANSWER, "thinking": "so"},
        {"content": ANSWER, "reasoning_details": [{"type": "reasoning.text", "text": "so", "index": 0}]},
        {"content": ANSWER, "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}], "reasoning": "so"},
        {"content": ANSWER, "reasoning_details": [{"type": "reasoning.summary", "summary": "so"}]},
        {"content": ANSWER, "thinking_blocks": [{"type": "thinking", "thinking": "so", "signature": "x"}]},
        {"content": [{"type": "text", "text": WHOLE}]},
        {"content": [{"type": "output_text", "text": WHOLE}]},
        {"content": [WHOLE[:9], {"type": "text", "text": WHOLE[9:]}]},
        {"content": {"type": "text", "text": WHOLE}},
        {"content": [{"text": WHOLE}]},
        {"content": [{"type": "thinking", "thinking": "so"}, {"type": "text", "text": ANSWER}]},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "so"}]},
                {"type": "text", "text": ANSWER},
            ]
        },
        {"content": [{"type": "reasoning", "text": "so"}, {"type": "text", "text": ANSWER}, {"type": "image_url"}]},
        {"content": [{"type": "text", "text": ANSWER}], "reasoning_content": "so"},
        {"content": f"so\n</think>\n{ANSWER}"},  # the prompt opened it
        {"content": f"<think>\n\n</think>\n{ANSWER}", "reasoning_content": "so"},
        {"content": None, "reasoning_content": f"so\n</think>\n{ANSWER}"},  # the server found no end
        {"content": "", "reasoning": WHOLE},
        {"content": WHOLE, "refusal": ""},
    ],
    ids=range(26),
)
def test_words_and_thoughts_are_one_reply_wherever_they_stand(message: Any) -> None:
    answer = read_answer(body({"role": "assistant", **message}))
    assert answer.text == WHOLE
    assert parse(answer.text).winner == 1
    assert answer.refusal is None
    assert (answer.model, answer.finish_reason, answer.prompt_tokens, answer.completion_tokens) == ("m", "stop", 3, 4)


def test_thoughts_of_the_reply_itself_are_kept_before_those_that_stood_apart() -> None:
    answer = read_answer(body({"content": WHOLE, "reasoning_content": "first I look"}))
    assert (answer.text, answer.reasoning) == (WHOLE, "first I look")


def test_tags_in_thoughts_that_stood_apart_are_words() -> None:
    thoughts = "I end with <answer>Image 2 is better</answer>? No: </think> closes"
    text = joined_reply(ANSWER, thoughts)
    assert parse(text).winner == 1
    assert "I end with Image 2 is better? No:  closes" in text


@pytest.mark.parametrize(
    ("message", "choice", "refusal", "finish"),
    [
        ({"content": None, "refusal": "I cannot rate people"}, {}, "I cannot rate people", "stop"),
        ({"content": [{"type": "refusal", "refusal": "no"}]}, {}, "no", "stop"),
        (
            {"content": None},
            {"finish_reason": "content_filter"},
            "stopped by a content filter (content_filter)",
            FILTERED,
        ),
        (
            {"content": WHOLE},
            {"finish_reason": "content_filter"},
            "stopped by a content filter (content_filter)",
            FILTERED,
        ),
        ({"content": ""}, {"finish_reason": "SAFETY"}, "stopped by a content filter (SAFETY)", FILTERED),
        ({"content": None}, {"finish_reason": "content_filter: RECITATION"}, "stopped by a content filter", FILTERED),
        ({"content": ""}, {"finish_reason": "refusal"}, "refused, no reason given", "refusal"),
    ],
)
def test_refusals_and_filters_are_told_as_such(message: Any, choice: Any, refusal: str, finish: str) -> None:
    answer = read_answer(body(message, **choice))
    assert answer.refusal is not None
    assert answer.refusal.startswith(refusal)
    assert answer.finish_reason == finish


@pytest.mark.parametrize(
    ("value", "status", "words", "passing"),
    [
        ({"error": {"code": 429, "message": "slow down"}}, 429, "slow down", True),
        ({"error": {"code": "429", "message": "slow down"}}, 429, "slow down", True),
        ({"error": {"code": 529, "message": "busy"}, "choices": None}, 529, "busy", True),
        ({"error": {"status": 503, "message": "busy"}, "choices": []}, 503, "busy", True),
        ({"error": {"code": "rate_limit_exceeded", "message": "busy"}}, None, "busy", True),
        ({"error": {"type": "overloaded_error", "message": "busy"}}, None, "busy", True),
        ({"error": {"code": None, "type": "server_error", "message": None}}, None, "server_error", True),
        ({"error": {"code": 400, "message": "no"}}, 400, "no", False),
        ({"error": {"code": True, "message": "no"}}, None, "no", False),
        ({"error": {"code": 10**30, "message": ["no"]}}, None, "no", False),
        ({"error": "model is loading"}, None, "model is loading", False),
        ({"error": ["a", "b"]}, None, "a b", False),
        ([{"error": {"code": 503, "message": "busy"}}], 503, "busy", True),
        ({"object": "error", "message": "too long", "code": 400}, 400, "too long", False),
        ({"choices": [{"error": {"code": 502, "message": "cut"}, "message": {"content": "half"}}]}, 502, "cut", True),
        (
            {"error": {"code": 502, "message": "Provider returned error", "metadata": {"raw": "GPU lost"}}},
            502,
            "Provider returned error: GPU lost",
            True,
        ),
    ],
)
def test_an_error_of_status_200_is_known_by_its_own_code(
    value: Any, status: int | None, words: str, passing: bool
) -> None:
    error = failure(json.dumps(value).encode())
    assert (error.status, error.words, is_passing(error)) == (status, words, passing)


def test_hopeless_errors_are_known_by_number_or_name() -> None:
    def of(**error: Any) -> EndpointError:
        return failure(json.dumps({"error": {"message": "x", **error}}).encode())

    assert of(code=401).is_access
    assert of(code="invalid_api_key").is_access
    assert of(code=429, type="insufficient_quota").is_quota
    assert of(code="insufficient_quota").is_quota
    assert of(code=402).is_quota
    assert of(code="model_not_found").is_missing
    assert of(code="content_filter").filtered
    assert of(code=403, metadata={"reasons": ["violence"], "flagged_input": "..."}).filtered


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<html>hello</html>", "without a chat completion: not JSON.*teacher.base_url"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"", "not JSON"),
        (b"[" * 100_000, "nested deeper"),
        (b"7", "without a chat completion; check that teacher.base_url"),
        (b"{}", "without a chat completion; check that teacher.base_url"),
        (b'{"choices": null}', "no choices: the endpoint gave no reply"),
        (b'{"choices": []}', "no choices"),
        (b'{"choices": "x"}', "choices is 'x'; needed a list"),
        (b'{"choices": {"a": 1}}', "choices is an object of 1 keys"),
        (b'{"choices": ["x"]}', "0 is 'x'; needed an object"),
        (b'{"choices": [{}]}', "message is missing"),
        (b'{"choices": [{"message": null}]}', "message is missing"),
        (b'{"choices": [{"message": "x"}]}', "message is 'x'; needed an object"),
        (b'{"choices": [{"message": {"content": 7}}]}', "content is 7; needed a text or a list of parts"),
    ],
    ids=range(15),
)
def test_what_is_no_answer_says_what_is_wrong(data: bytes, message: str) -> None:
    with pytest.raises(EndpointError, match=message) as caught:
        read_answer(data)
    assert not is_passing(caught.value)


@pytest.mark.parametrize("count", ["many", -1, None, True, 1.5, 10**12, float("nan"), [], "-3", "\u00b2"])
def test_counts_that_cannot_be_believed_are_none(count: Any) -> None:
    data = {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": count, "completion_tokens": "7"}}
    answer = read_answer(json.dumps(data).encode())
    assert (answer.prompt_tokens, answer.completion_tokens) == (None, 7)
    assert read_answer(json.dumps({**data, "usage": count}).encode()).completion_tokens is None


def test_half_an_emoji_is_replaced() -> None:
    answer = read_answer(body({"content": "a \ud83d", "reasoning": "\udc00"}))
    assert answer.text == "<think>\n\ufffd\n</think>\na \ufffd"
    assert read_answer(body({"content": "a \U0001f600"})).text == "a \U0001f600"


def test_a_name_or_reason_of_another_type_is_none_and_long_ones_are_cut() -> None:
    data = {"model": ["m"], "choices": [{"message": {"content": "x"}, "finish_reason": {"a": 1}}]}
    assert read_answer(json.dumps(data).encode()) == Answer("x", None, None, None, None, None, None)
    assert len(read_answer(json.dumps({**data, "model": "m" * 9999}).encode()).model or "") == 200


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'{"error": {"message": "busy"}}', "HTTP 503: busy"),
        (b'{"error": "busy"}', "HTTP 503: busy"),
        (b'{"detail": "busy"}', "HTTP 503: busy"),
        (b'{"detail": [{"loc": ["body"], "msg": "busy"}]}', "HTTP 503: busy"),
        (b'{"message": "busy"}', "HTTP 503: busy"),
        (b'[{"error": {"message": "busy"}}]', "HTTP 503: busy"),
        (b'"busy"', "HTTP 503: busy"),
        (b"busy", "HTTP 503: busy"),
        (b"<html>...</html>", "HTTP 503: no reason given"),
        (b"", "HTTP 503: no reason given"),
        (b"\xff", "HTTP 503: \ufffd"),
        (b"null", "HTTP 503: no reason given"),
        (b"7", "HTTP 503: no reason given"),
    ],
)
def test_a_refusal_of_http_is_told_in_the_endpoints_words(data: bytes, told: str) -> None:
    assert str(refused_answer(503, data)) == told
    assert len(str(refused_answer(503, data + b" long" * 100_000))) < 700


def test_content_on_disk_as_parts_is_read() -> None:
    assert text_of([{"type": "thinking", "thinking": "so"}, {"type": "text", "text": ANSWER}]) == WHOLE
    assert text_of(None) == text_of([7, None, {"type": "image"}]) == ""

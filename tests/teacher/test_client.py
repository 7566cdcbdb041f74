"""The client against a scripted endpoint: retries, resume, budget, and every refusal by its message."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.teacher.scripted_endpoint import Answer, completion, prompt_of, scripted_endpoint
from urt_jax.data.examples import Chat, Media, Query
from urt_jax.errors import BadInputError
from urt_jax.teacher.client import TokenBudgetError, ask_teacher
from urt_jax.teacher.replies import Usage, read_replies
from urt_jax.teacher.settings import TeacherSettings


def chat(text: str) -> Chat:
    return Chat([{"role": "user", "content": [{"type": "text", "text": text}]}])


def requests(count: int) -> list[Query]:
    return [Query(f"r{n}", chat(f"question {n}")) for n in range(count)]


def settings(url: str, **changes: Any) -> TeacherSettings:
    values: dict[str, Any] = {
        "model": "m",
        "api_key_env": None,
        "concurrency": 2,
        "retries": 2,
        "timeout_s": 5.0,
        "temperature": None,
    }
    return TeacherSettings(base_url=url, **(values | changes))


def echo(body: dict[str, Any], earlier: int) -> Answer:
    return Answer(body=completion("to " + prompt_of(body)))


def test_every_reply_is_written_with_text_model_tokens_and_attempts(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    seen: list[Usage] = []
    with scripted_endpoint(echo) as endpoint:
        asked = settings(endpoint.url, temperature=0.5, max_tokens=99)
        usage = ask_teacher(requests(5), asked, replies_path=path, progress=seen.append)
    replies = read_replies(path)
    assert {name: reply.text for name, reply in replies.items()} == {f"r{n}": f"to question {n}" for n in range(5)}
    assert {(reply.model, reply.finish_reason, reply.attempts) for reply in replies.values()} == {("m-1", "stop", 1)}
    assert usage == Usage(answered=5, prompt_tokens=50, completion_tokens=25)
    assert [count.answered for count in seen] == [1, 2, 3, 4, 5]
    assert {(body["model"], body["temperature"], body["max_tokens"]) for body in endpoint.asked} == {("m", 0.5, 99)}


def test_as_many_requests_are_under_way_as_allowed_and_no_more(tmp_path: Path) -> None:
    with scripted_endpoint(lambda body, earlier: Answer(delay_s=0.05)) as endpoint:
        ask_teacher(requests(9), settings(endpoint.url, concurrency=3), replies_path=tmp_path / "r.jsonl")
    assert endpoint.most_together == 3


def test_busy_and_broken_answers_are_asked_again(tmp_path: Path) -> None:
    def script(body: dict[str, Any], earlier: int) -> Answer:
        return [Answer(429, {"error": {"message": "busy"}}), Answer(500, {}), Answer()][earlier]

    with scripted_endpoint(script) as endpoint:
        usage = ask_teacher(requests(3), settings(endpoint.url), replies_path=tmp_path / "r.jsonl")
    assert usage == Usage(answered=3, retries=6, prompt_tokens=30, completion_tokens=15)
    assert {reply.attempts for reply in read_replies(tmp_path / "r.jsonl").values()} == {3}


def test_retry_after_is_waited_for(tmp_path: Path) -> None:
    def script(body: dict[str, Any], earlier: int) -> Answer:
        return Answer() if earlier else Answer(429, {}, {"Retry-After": "0.4"})

    with scripted_endpoint(script) as endpoint:
        started = time.monotonic()
        ask_teacher(requests(1), settings(endpoint.url), replies_path=tmp_path / "r.jsonl")
    assert time.monotonic() - started >= 0.4


def test_a_slow_answer_is_given_up_and_asked_again(tmp_path: Path) -> None:
    def script(body: dict[str, Any], earlier: int) -> Answer:
        return Answer(delay_s=0.0 if earlier else 1.0)

    with scripted_endpoint(script) as endpoint:
        usage = ask_teacher(requests(1), settings(endpoint.url, timeout_s=0.3), replies_path=tmp_path / "r.jsonl")
    assert (usage.answered, usage.retries) == (1, 1)


def test_what_fails_for_good_is_recorded_counted_and_asked_again_by_the_next_call(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    healthy = False

    def script(body: dict[str, Any], earlier: int) -> Answer:
        ill = "question 1" in prompt_of(body) and not healthy
        return Answer(503, {"error": {"message": "down"}}) if ill else Answer()

    with scripted_endpoint(script) as endpoint:
        usage = ask_teacher(requests(3), settings(endpoint.url), replies_path=path)
        failed = read_replies(path)["r1"]
        healthy = True
        again = ask_teacher(requests(3), settings(endpoint.url), replies_path=path)
    assert (usage.answered, usage.failed) == (2, 1)
    assert (failed.text, failed.attempts) == (None, 3)
    assert failed.error is not None
    assert failed.error.startswith("HTTP 503")
    assert "down" in failed.error
    assert (again.answered, again.failed) == (3, 0)
    assert endpoint.prompts().count("question 0") == 1


def test_a_refused_request_is_not_repeated(tmp_path: Path) -> None:
    with scripted_endpoint(lambda body, earlier: Answer(422, {"error": {"message": "odd"}})) as endpoint:
        usage = ask_teacher(requests(1), settings(endpoint.url), replies_path=tmp_path / "r.jsonl")
    assert (usage.failed, len(endpoint.asked)) == (1, 1)


def test_an_unreadable_picture_is_a_recorded_failure(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}]
    broken = Query("broken", Chat(messages, images=(Media("image", str(tmp_path / "none.png")),)))
    with scripted_endpoint(echo) as endpoint:
        usage = ask_teacher([broken, *requests(1)], settings(endpoint.url), replies_path=tmp_path / "r.jsonl")
    assert (usage.answered, usage.failed) == (1, 1)
    assert "broken" in str(read_replies(tmp_path / "r.jsonl")["broken"].error)


def test_a_page_in_place_of_a_completion_is_a_failure_that_says_so(tmp_path: Path) -> None:
    with scripted_endpoint(lambda body, earlier: Answer(body="<html>hello</html>")) as endpoint:
        ask_teacher(requests(1), settings(endpoint.url), replies_path=tmp_path / "r.jsonl")
    assert "without a chat completion" in str(read_replies(tmp_path / "r.jsonl")["r0"].error)


def test_the_budget_stops_the_asking_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with scripted_endpoint(echo) as endpoint:
        tight = settings(endpoint.url, concurrency=1, token_budget=40)
        with pytest.raises(TokenBudgetError, match=r"token budget of 40 reached: 45 tokens used for 3 answers.*raise"):
            ask_teacher(requests(6), tight, replies_path=path)
        assert len(read_replies(path)) == 3
        usage = ask_teacher(requests(6), settings(endpoint.url, token_budget=90), replies_path=path)
    assert usage == Usage(answered=6, prompt_tokens=60, completion_tokens=30)
    assert sorted(endpoint.prompts()) == [f"question {n}" for n in range(6)]


def test_a_budget_reached_by_the_last_reply_is_no_error(tmp_path: Path) -> None:
    with scripted_endpoint(echo) as endpoint:
        usage = ask_teacher(requests(2), settings(endpoint.url, token_budget=30), replies_path=tmp_path / "r.jsonl")
    assert usage.total_tokens == 30


def test_a_budget_needs_an_endpoint_that_counts(tmp_path: Path) -> None:
    with (
        scripted_endpoint(lambda body, earlier: Answer(body=completion("yes", tokens=None))) as endpoint,
        pytest.raises(BadInputError, match=r"reports no token counts, so teacher\.token_budget=50 cannot be kept"),
    ):
        ask_teacher(requests(2), settings(endpoint.url, token_budget=50), replies_path=tmp_path / "r.jsonl")


def test_replies_to_another_prompt_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with scripted_endpoint(echo) as endpoint:
        ask_teacher(requests(1), settings(endpoint.url), replies_path=path)
        with pytest.raises(BadInputError, match=r"r\.jsonl answers record 'r0' for another prompt.*new workdir"):
            ask_teacher([Query("r0", chat("other"))], settings(endpoint.url), replies_path=path)


def test_an_id_used_twice_is_refused(tmp_path: Path) -> None:
    with (
        scripted_endpoint(echo) as endpoint,
        pytest.raises(BadInputError, match="record id 'r0' is used twice"),
    ):
        ask_teacher(requests(1) * 2, settings(endpoint.url), replies_path=tmp_path / "r.jsonl")


def test_an_error_of_the_progress_stops_after_the_requests_under_way(tmp_path: Path) -> None:
    def interrupt(usage: Usage) -> None:
        raise LookupError("enough")

    with scripted_endpoint(echo) as endpoint, pytest.raises(LookupError, match="enough"):
        ask_teacher(requests(20), settings(endpoint.url), replies_path=tmp_path / "r.jsonl", progress=interrupt)
    assert len(endpoint.asked) == len(read_replies(tmp_path / "r.jsonl")) <= 2


def test_the_key_comes_from_the_named_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret")
    with scripted_endpoint(echo) as endpoint:
        ask_teacher(requests(1), settings(endpoint.url, api_key_env="MY_KEY"), replies_path=tmp_path / "r.jsonl")
    assert endpoint.headers[0]["authorization"] == "Bearer s3cret"
    assert "s3cret" not in (tmp_path / "r.jsonl").read_text()


def test_a_missing_key_is_refused_before_anything_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with scripted_endpoint(echo) as endpoint:
        with pytest.raises(BadInputError, match="environment variable MY_KEY is not set"):
            ask_teacher(requests(1), settings(endpoint.url, api_key_env="MY_KEY"), replies_path=tmp_path / "r.jsonl")
        assert endpoint.asked == []


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (401, {"message": "bad key"}, r"access refused \(HTTP 401: .*bad key.*set teacher.api_key_env"),
        (404, {"message": "no model"}, r"model 'm': not found .*check teacher.model.*/v1"),
        (429, {"message": "pay", "code": "insufficient_quota"}, "the account has no quota left"),
    ],
)
def test_a_hopeless_run_stops_at_the_first_answer(
    tmp_path: Path, status: int, error: dict[str, str], message: str
) -> None:
    with scripted_endpoint(lambda body, earlier: Answer(status, {"error": error})) as endpoint:
        with pytest.raises(BadInputError, match=message):
            ask_teacher(requests(50), settings(endpoint.url), replies_path=tmp_path / "r.jsonl")
        assert len(endpoint.asked) <= 2


def test_an_endpoint_out_of_reach_is_named(tmp_path: Path) -> None:
    with scripted_endpoint(echo) as endpoint:
        pass
    with pytest.raises(BadInputError, match=f"teacher at {endpoint.url} cannot be reached.*is running"):
        ask_teacher(requests(9), settings(endpoint.url, retries=1), replies_path=tmp_path / "r.jsonl")


def test_models_that_want_the_newer_name_of_the_limit_get_it(tmp_path: Path) -> None:
    def script(body: dict[str, Any], earlier: int) -> Answer:
        refusal = {"error": {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."}}
        return Answer(400, refusal) if "max_tokens" in body else Answer()

    with scripted_endpoint(script) as endpoint:
        usage = ask_teacher(requests(4), settings(endpoint.url, max_tokens=77), replies_path=tmp_path / "r.jsonl")
    assert (usage.answered, usage.failed) == (4, 0)
    assert endpoint.asked[-1]["max_completion_tokens"] == 77


def test_it_works_where_a_loop_is_running_already(tmp_path: Path) -> None:
    async def cell() -> Usage:
        return ask_teacher(requests(1), settings(endpoint.url), replies_path=tmp_path / "r.jsonl")

    with scripted_endpoint(echo) as endpoint:
        assert asyncio.run(cell()).answered == 1


def test_settings_that_ask_nothing_are_refused() -> None:
    with pytest.raises(BadInputError, match=r"teacher\.concurrency: got 0, must be at least 1"):
        ask_teacher([], settings("http://x/v1", concurrency=0), replies_path="unused")


def test_replies_are_one_json_object_a_line(tmp_path: Path) -> None:
    with scripted_endpoint(lambda body, earlier: Answer(body=completion("two\nlines"))) as endpoint:
        ask_teacher(requests(2), settings(endpoint.url), replies_path=tmp_path / "r.jsonl")
    lines = (tmp_path / "r.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["two\nlines"] * 2

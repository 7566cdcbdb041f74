"""Replies survive a killed run: whole lines are kept, a half one is cut off, broken ones are named."""

from pathlib import Path

import pytest

from urt_jax.errors import BadInputError
from urt_jax.teacher.replies import Reply, Usage, append_reply, open_replies, read_replies


def reply(name: str, text: str | None = "ä yes", **changes: object) -> Reply:
    values = {"request": "f", "error": None if text else "HTTP 500", "model": "m", "finish_reason": "stop"}
    numbers = {"prompt_tokens": 7, "completion_tokens": 3, "latency_s": 0.5, "attempts": 1}
    return Reply(id=name, text=text, **(values | numbers | changes))  # type: ignore[arg-type]


def test_half_a_last_line_is_dropped_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "records" / "replies.jsonl"
    with open_replies(path) as file:
        append_reply(file, reply("a"))
        append_reply(file, reply("b"))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": "c", "text": "half')
    assert read_replies(path) == {"a": reply("a"), "b": reply("b")}
    with open_replies(path) as file:
        append_reply(file, reply("c"))
    assert path.read_bytes().startswith(whole)
    assert list(read_replies(path)) == ["a", "b", "c"]


def test_a_reply_asked_again_is_given_by_its_last_line(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    with open_replies(path) as file:
        append_reply(file, reply("a", None))
        append_reply(file, reply("a"))
    assert read_replies(path) == {"a": reply("a")}


LINE = (
    '{"id": "a", "request": "f", "text": "yes", "error": null, "model": "m", "finish_reason": "stop", '
    '"prompt_tokens": 1, "completion_tokens": 1, "latency_s": 0.5, "attempts": 1, %s}'
)


@pytest.mark.parametrize(
    "line", ["{broken", '{"id": "a"}', "3", "[]", "\ud800", "[" * 5000, '{"id": null}', LINE % '"attempts": "x"']
)
def test_a_broken_line_is_named_with_file_and_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "replies.jsonl"
    with open_replies(path) as file:
        append_reply(file, reply("a"))
        file.write(line.encode(errors="surrogatepass") + b"\n")
    with pytest.raises(BadInputError, match=r"replies\.jsonl line 2: .*(remove the line|delete this line)"):
        read_replies(path)


def test_what_an_earlier_version_wrote_as_the_endpoint_gave_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    parts = '[{"type": "thinking", "thinking": "so"}, {"type": "text", "text": "<answer>x</answer>"}]'
    odd = LINE.replace('"yes"', parts).replace('_tokens": 1', '_tokens": "many"').replace(", %s}", "}")
    path.write_text(odd.replace('"prompt_tokens": "many"', '"prompt_tokens": -3').replace('"m"', "null") + "\n")
    (read,) = read_replies(path).values()
    assert read.text == "<think>\nso\n</think>\n<answer>x</answer>"
    assert (read.prompt_tokens, read.completion_tokens, read.model, read.refusal) == (None, None, "unknown", None)


def test_no_file_means_no_replies(tmp_path: Path) -> None:
    assert read_replies(tmp_path / "none.jsonl") == {}


def test_usage_adds_up_answers_failures_and_tokens() -> None:
    usage = Usage().plus(reply("a", attempts=3)).plus(reply("b", None, prompt_tokens=None, completion_tokens=None))
    assert usage == Usage(answered=1, failed=1, retries=2, prompt_tokens=7, completion_tokens=3)
    assert usage.total_tokens == 10

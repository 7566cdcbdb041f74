"""The built-in teacher as it runs: a server in another process, asked through the real client."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from urt_jax.data.examples import Example, Media, Query
from urt_jax.data.prompts import render
from urt_jax.scenes import make_example, write_reasoning
from urt_jax.scenes.oracle import MODEL_NAME, Oracle, main
from urt_jax.scenes.oracle_process import PACKAGE_FOLDER, running_oracle
from urt_jax.scenes.pool import OracleSettings, RefusalError
from urt_jax.tasks import TASKS
from urt_jax.tasks.replies import parse
from urt_jax.teacher import client
from urt_jax.teacher.client import ask_teacher
from urt_jax.teacher.messages import openai_messages
from urt_jax.teacher.replies import read_replies
from urt_jax.teacher.settings import TeacherSettings

COUNTS: dict[str, int] = {"image_gen": 8, "video_gen": 2, "image_und": 2, "video_und": 2}
SETTINGS = OracleSettings(counts=COUNTS, seed=5, error_seed=1)


def scenes() -> list[Example]:
    return [
        make_example(task, split="train", seed=5, index=index)
        for task, count in COUNTS.items()
        for index in range(count)
    ]


def body(example: Example) -> dict[str, Any]:
    return {"model": MODEL_NAME, "messages": openai_messages(render(example), name=example.id)}


def reply_text(oracle: Oracle, example: Example) -> str:
    return oracle.complete(body(example))["choices"][0]["message"]["content"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_oracle(SETTINGS) as base_url:
        yield base_url


def test_all_four_tasks_are_judged_rightly_in_both_orders(url: str, tmp_path: Path) -> None:
    examples = [
        replace(shown, id=f"{shown.id}/{n}") for one in scenes() for n, shown in enumerate((one, one.swapped()))
    ]
    settings = TeacherSettings(base_url=url, model=MODEL_NAME, api_key_env=None, retries=0)
    usage = ask_teacher([Query(e.id, render(e)) for e in examples], settings, replies_path=tmp_path / "r")
    verdicts = {name: parse(reply.text or "") for name, reply in read_replies(tmp_path / "r").items()}
    assert {example.id: example.label for example in examples} == {name: v.winner for name, v in verdicts.items()}
    for example in examples:
        assert verdicts[example.id].scores == {name: tuple(pair) for name, pair in example.meta["scores"].items()}
        assert set(verdicts[example.id].scores) == set(TASKS[str(example.task)].dimensions)
    assert usage.answered == len(examples)
    assert usage.prompt_tokens > usage.completion_tokens > 0


def test_it_lists_its_model_and_refuses_in_the_form_of_the_protocol(url: str) -> None:
    with urllib.request.urlopen(f"{url}/models") as answer:
        assert json.load(answer)["data"][0]["id"] == MODEL_NAME
    stranger = replace(scenes()[0], candidates=(Media("image", np.zeros((56, 56, 3), np.uint8)),) * 2)
    cases = [
        (body(stranger), 422, "no scene of this pool"),
        ({**body(scenes()[0]), "model": "gpt-9"}, 404, "'gpt-9' does not exist; this server has 'scenes-oracle'"),
        ({"model": MODEL_NAME}, 400, "not a chat request"),
    ]
    for request, status, message in cases:
        post = urllib.request.Request(f"{url}/chat/completions", json.dumps(request).encode())
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(post)
        with caught.value as error:
            assert error.code == status
            assert message in json.load(error)["error"]["message"]


def test_it_writes_from_the_pictures_never_from_the_label() -> None:
    def liar(task: str, **where: Any) -> Example:
        example = make_example(task, **where)
        return replace(example, label=3 - int(example.label or 0))

    seen: list[Example] = []

    def write(example: Example, rng: np.random.Generator, error_rate: float) -> str:
        seen.append(example)
        return write_reasoning(example, rng, error_rate)

    example = scenes()[0]
    assert parse(reply_text(Oracle(SETTINGS, make=liar, write=write), example)).winner == example.label
    assert [scene.label for scene in seen] == [None]


def test_errors_come_at_the_set_rate_and_do_not_depend_on_the_order_of_requests() -> None:
    erring = replace(SETTINGS, counts={"image_gen": 8}, error_rate=0.3)
    examples = scenes()[:8]
    first, second = Oracle(erring), Oracle(erring)
    forward = [reply_text(first, example) for example in examples]
    backward = [reply_text(second, example) for example in reversed(examples)][::-1]
    calm, other = Oracle(replace(erring, error_rate=0.0)), Oracle(replace(erring, error_seed=9))
    perfect = [reply_text(calm, example) for example in examples]
    assert forward == backward
    assert sum(told != right for told, right in zip(forward, perfect)) >= 4
    assert [reply_text(other, example) for example in examples] != forward


def test_injected_stumbles_are_overcome_and_change_no_reply(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(client, "LONGEST_PAUSE_S", 0.05)
    requests = [Query(example.id, render(example)) for example in scenes()[:8]]
    calm = TeacherSettings(base_url=url, model=MODEL_NAME, api_key_env=None, retries=0)
    ask_teacher(requests, calm, replies_path=tmp_path / "calm")
    with running_oracle(replace(SETTINGS, busy_rate=0.3, broken_rate=0.3)) as troubled_url:
        settings = replace(calm, base_url=troubled_url, retries=20)
        usage = ask_teacher(requests, settings, replies_path=tmp_path / "troubled")
    assert usage.retries > 3
    texts = [{key: reply.text for key, reply in read_replies(tmp_path / name).items()} for name in ("calm", "troubled")]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("data", "headers", "status", "message"),
    [
        (b"{", {}, 400, "the body cannot be read: not JSON"),
        (b"\xff", {}, 400, "not UTF-8"),
        (b"[" * 9999, {}, 400, "nested deeper"),
        (b"[1]", {}, 400, "where a JSON object is needed"),
        (b"{}", {"Content-Length": "999999999999"}, 413, "at most"),
        (b"{}", {"Content-Length": "-5"}, 411, "'-5'"),
        (b"{}", {"Content-Length": "x"}, 411, "needed the body's bytes"),
    ],
)
def test_a_body_that_is_no_request_is_refused(
    url: str, data: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    connection.putrequest("POST", "/v1/chat/completions")
    for name, value in ({"Content-Length": str(len(data))} | headers).items():
        connection.putheader(name, value)
    connection.endheaders(data)
    with contextlib.closing(connection), connection.getresponse() as answer:
        assert answer.status == status
        assert message in json.load(answer)["error"]["message"]


@pytest.mark.parametrize(
    "messages",
    [
        None,
        7,
        "x",
        {},
        [None],
        ["x"],
        [{}],
        [{"content": None}],
        [{"content": 7}],
        [{"content": [7]}],
        [{"content": [{"type": 7}]}],
        [{"content": [{"type": "text", "text": None}]}],
        [{"content": [{"type": "image_url", "image_url": "x"}]}],
        [{"content": [{"type": "image_url", "image_url": {"url": 7}}]}],
        [{"content": [{"type": "audio"}]}],
    ],
    ids=range(15),
)
def test_fields_of_another_type_are_a_bad_request(messages: Any) -> None:
    with pytest.raises(RefusalError, match="not a chat request: ") as caught:
        Oracle(SETTINGS).complete({"model": MODEL_NAME, "messages": messages})
    assert caught.value.status == 400


@pytest.mark.parametrize("url_of_picture", ["https://example.org/cat.png", "data:image/png;base64,AAAA"])
def test_pictures_that_cannot_be_read_are_a_bad_request(url_of_picture: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url_of_picture}}
    request = {"model": MODEL_NAME, "messages": [{"role": "user", "content": [part]}]}
    with pytest.raises(RefusalError) as caught:
        Oracle(SETTINGS).complete(request)
    assert caught.value.status == 400


def test_the_server_ends_with_the_process_that_started_it() -> None:
    parent = (
        "import time\n"
        "from urt_jax.scenes.oracle_process import running_oracle\n"
        "from urt_jax.scenes.pool import OracleSettings\n"
        "with running_oracle(OracleSettings(counts={'image_gen': 1})) as url:\n"
        "    print(url, flush=True)\n"
        "    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE_FOLDER), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        base_url = process.stdout.readline().strip()
        assert serves(base_url)
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while serves(base_url):
        assert time.monotonic() < deadline, "the teacher outlived its parent"
        time.sleep(0.05)


def serves(base_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{base_url}/models", timeout=5):
            return True
    except OSError:
        return False


def test_a_server_that_cannot_start_says_why() -> None:
    with (
        pytest.raises(RuntimeError, match=r"(?s)did not start.*arguments are required: --task"),
        running_oracle(OracleSettings(counts={})),
    ):
        pass


def test_an_unknown_task_on_the_command_line_is_answered_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["--task", "image_hen=3"])
    assert "'image_hen=3' is not TASK=COUNT with one of image_gen, video_gen" in capsys.readouterr().err

"""The distill stage as a story: built-in teacher, filter, provenance, kill and resume."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.teacher.scripted_endpoint import Answer, completion, scripted_endpoint
from urt_jax.config import DistillConfig, as_json
from urt_jax.data.examples import Example
from urt_jax.data.settings import PoolData
from urt_jax.data.sources import read_examples, write_examples
from urt_jax.errors import BadInputError
from urt_jax.runs.preemption import Preempted
from urt_jax.runs.run_folder import open_run
from urt_jax.scenes import make_example
from urt_jax.scenes.oracle import MODEL_NAME
from urt_jax.scenes.oracle_process import PACKAGE_FOLDER, running_oracle
from urt_jax.scenes.pool import OracleSettings
from urt_jax.stages import distill
from urt_jax.tasks.replies import parse
from urt_jax.tasks.wording import PROMPT_VERSION
from urt_jax.teacher.client import TokenBudgetError
from urt_jax.teacher.replies import Reply, read_replies
from urt_jax.teacher.settings import TeacherSettings

ONLY_PICTURES = {"image_gen": 1.0}
ALL_TASKS = {"image_gen": 3.0, "video_gen": 1.0, "image_und": 1.0, "video_und": 1.0}


def config(workdir: Path, *, count: int = 12, tasks: dict[str, float] = ONLY_PICTURES, **teacher: Any) -> DistillConfig:
    data = PoolData(count=count, seed=4, tasks=tasks)
    return DistillConfig(
        workdir=str(workdir), seed=7, data=data, teacher=TeacherSettings(**{"error_rate": 0.0} | teacher)
    )


def cold_start(workdir: Path) -> list[Example]:
    return read_examples(workdir / "records" / "cold_start.jsonl", require_label=True)


def reply(text: str | None, **changes: Any) -> Reply:
    error = None if text is not None else "HTTP 503: down"
    values: dict[str, Any] = {"id": "x", "request": "f", "text": text, "error": error, "model": "m", "attempts": 1}
    values |= {"finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 1, "latency_s": 0.1}
    return Reply(**(values | changes))


def test_a_perfect_teacher_is_kept_whole_in_the_order_of_the_pool(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(tmp_path / "run", tasks=ALL_TASKS)
    distill.run(settings)
    records, pool = cold_start(tmp_path / "run"), distill.labelled_pool(settings.data, seed=7).examples
    assert [record.id for record in records] == [example.id for example in pool]
    assert [str(record.task) for record in records] == ["image_gen"] * 6 + ["video_gen"] * 2 + [
        "image_und",
        "image_und",
        "video_und",
        "video_und",
    ]
    for record, example in zip(records, pool):
        assert (record.label, record.prompt) == (example.label, example.prompt)
        assert parse(record.response or "").winner == example.label
        assert record.meta["provenance"] == {
            "teacher": MODEL_NAME,
            "prompt_template": "v1",
            "prompt_version": PROMPT_VERSION,
            "seed": 7,
            "raw_reply": record.response,
        }
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["counts"]["image_gen"] == {"kept": 6, "wrong": 0, "unparsable": 0, "failed": 0}
    assert result["prompt_tokens"] > result["completion_tokens"] > 0
    first = capsys.readouterr().out
    distill.run(settings)
    assert capsys.readouterr().out == first == result["table"] + "\n"


def test_an_erring_teacher_loses_exactly_its_wrong_answers(tmp_path: Path) -> None:
    distill.run(config(tmp_path, count=24, error_rate=0.25))
    replies = read_replies(tmp_path / "records" / "replies.jsonl")
    labels = {e.id: e.label for e in distill.labelled_pool(PoolData(count=24, seed=4), seed=7).examples}
    right = [name for name, label in labels.items() if parse(replies[name].text or "").winner == label]
    assert 0 < len(right) < 24
    assert [record.id for record in cold_start(tmp_path)] == right
    counts = json.loads((tmp_path / "result.json").read_text())["counts"]["image_gen"]
    assert counts == {"kept": len(right), "wrong": 24 - len(right), "unparsable": 0, "failed": 0}


def test_records_do_not_depend_on_the_order_of_completion(tmp_path: Path) -> None:
    for name, concurrency in (("one", 1), ("many", 8)):
        distill.run(config(tmp_path / name, error_rate=0.1, concurrency=concurrency))
    one, many = (tmp_path / name / "records" / "cold_start.jsonl" for name in ("one", "many"))
    assert one.read_bytes() == many.read_bytes()


def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    pool = OracleSettings(counts={"image_gen": 12}, seed=4, error_rate=0.2, latency_s=0.15)
    with running_oracle(pool) as url:
        killed = config(tmp_path / "killed", base_url=url, api_key_env="", concurrency=2)
        replies_path = tmp_path / "killed" / "records" / "replies.jsonl"
        with subprocess.Popen([sys.executable, "-c", PROGRAM, repr(killed)], env=environment()) as process:
            deadline = time.monotonic() + 60
            while not replies_path.exists() or replies_path.read_bytes().count(b"\n") < 4:
                assert process.poll() is None, "it ended before it could be killed"
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        there = read_replies(replies_path)
        assert 4 <= len(there) < 12
        assert not (tmp_path / "killed" / "result.json").exists()
        with replies_path.open("ab") as file:  # what a kill in the middle of a write leaves
            file.write(b'{"id": "half')
        distill.run(killed)
        distill.run(replace(killed, workdir=str(tmp_path / "whole")))
    assert {name: read_replies(replies_path)[name] for name in there} == there
    assert replies_path.read_bytes().count(b"\n") == 12
    killed_bytes, whole_bytes = (
        (tmp_path / name / "records" / "cold_start.jsonl").read_bytes() for name in ("killed", "whole")
    )
    assert killed_bytes == whole_bytes


PROGRAM = """
import sys
from urt_jax.config import DistillConfig
from urt_jax.data.settings import PoolData
from urt_jax.teacher.settings import TeacherSettings
from urt_jax.runs.run_folder import open_run
from urt_jax.stages import distill
distill.run(eval(sys.argv[1]))
"""


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(PACKAGE_FOLDER), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path}


def test_a_spent_budget_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(TokenBudgetError, match=r"token budget of 200 reached.*raise teacher\.token_budget"):
        distill.run(config(tmp_path, token_budget=200, concurrency=1))
    assert 0 < len(read_replies(tmp_path / "records" / "replies.jsonl")) < 12
    assert not (tmp_path / "result.json").exists()


def test_a_larger_budget_goes_on_from_what_is_answered(tmp_path: Path) -> None:
    tight = config(tmp_path, token_budget=200, concurrency=1)
    with pytest.raises(TokenBudgetError):
        distill.run(tight)
    paid = read_replies(tmp_path / "records" / "replies.jsonl")
    distill.run(replace(tight, teacher=replace(tight.teacher, token_budget=100_000)))
    replies = read_replies(tmp_path / "records" / "replies.jsonl")
    assert {name: replies[name] for name in paid} == paid
    assert len(cold_start(tmp_path)) == 12


def test_a_preemption_notice_keeps_what_was_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill, "progress", lambda **settings: _SignalAtFirstUpdate())
    with pytest.raises(Preempted, match="replies are kept in"):
        distill.run(config(tmp_path, concurrency=1))
    assert 0 < len(read_replies(tmp_path / "records" / "replies.jsonl")) < 12


class _SignalAtFirstUpdate:
    n = 0

    def __enter__(self) -> "_SignalAtFirstUpdate":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def set_postfix_str(self, text: str, *, refresh: bool) -> None:
        assert not refresh, "a bar drawn at every reply floods a log"

    def update(self, replies: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_failures_are_counted_and_reported_and_asking_only_failures_is_an_error(tmp_path: Path) -> None:
    with (
        running_oracle(OracleSettings(counts={"image_gen": 12}, seed=4, broken_rate=1.0)) as url,
        pytest.raises(BadInputError, match=r"answered none of 3 requests: 3 x HTTP 500.*stumbled"),
    ):
        distill.run(config(tmp_path / "none", count=3, base_url=url, api_key_env="", retries=0))
    with running_oracle(OracleSettings(counts={"image_gen": 12}, seed=4, broken_rate=0.5)) as url:
        distill.run(config(tmp_path / "some", base_url=url, api_key_env="", retries=0))
    result = json.loads((tmp_path / "some" / "result.json").read_text())
    failed = result["counts"]["image_gen"]["failed"]
    assert 0 < failed < 12
    assert f"{failed} requests failed" in result["table"]
    assert f"to ask the {failed} failed requests again: delete" in result["table"]
    assert len(cold_start(tmp_path / "some")) == 12 - failed


def test_the_filter_counts_each_outcome_with_its_reason() -> None:
    examples = [make_example("image_gen", split="train", seed=1, index=index) for index in range(6)]
    texts = [_answer(examples[0].label), _answer(3 - int(examples[1].label or 0)), "no idea", "<think>\nImage 1", None]
    texts.append(_answer(examples[5].label).replace("<answer>Image", "<answer>Video"))
    finishes = ["stop", "stop", "stop", "length", None, "stop"]
    replies = {e.id: reply(text, finish_reason=end) for e, text, end in zip(examples, texts, finishes)}
    filtered = distill.filter_replies(examples, replies, seed=0, template="v1")
    assert filtered.counts == {"image_gen": {"kept": 1, "wrong": 1, "unparsable": 3, "failed": 1}}
    assert [record.id for record in filtered.records] == [examples[0].id]
    assert filtered.reasons["cut off at max_tokens"] == 1
    assert filtered.reasons["HTTP 503: down"] == 1
    assert filtered.reasons[f"wrong noun: 'Video {examples[5].label} is better' where candidates are called Image"] == 1
    assert sum(filtered.reasons.values()) == 4


def test_reasoning_in_a_field_of_its_own_is_learnt_and_refusals_are_counted_as_such(tmp_path: Path) -> None:
    settings = config(tmp_path, count=5)
    examples = distill.labelled_pool(settings.data, seed=7).examples
    waiting = [
        {"content": _bare(examples[0].label), "reasoning_content": _thoughts()},
        {"content": [{"type": "text", "text": _bare(examples[1].label)}], "reasoning": _thoughts()},
        {"content": None, "refusal": "I do not rate\npictures"},
        {"content": None, "finish_reason": "content_filter"},
        {"content": ""},
    ]

    def script(body: dict[str, Any], earlier: int) -> Answer:
        message = waiting.pop(0)
        answer = completion("", finish_reason=message.pop("finish_reason", "stop"))
        answer["choices"][0]["message"] = {"role": "assistant", **message}
        return Answer(body=answer)

    with scripted_endpoint(script) as endpoint:
        teacher = replace(settings.teacher, base_url=endpoint.url, api_key_env=None, concurrency=1)
        distill.run(replace(settings, teacher=teacher))
    result = json.loads((tmp_path / "result.json").read_text())
    counts = {"kept": 2, "wrong": 0, "unparsable": 1, "refused": 1, "filtered": 1, "failed": 0}
    assert result["counts"]["image_gen"] == counts
    assert set(result["reasons"]) == {
        "refused: I do not rate pictures",
        "filtered: stopped by a content filter (content_filter)",
        "an empty reply",
    }
    first, second = cold_start(tmp_path)
    assert first.response == f"<think>\n{_thoughts()}\n</think>\n{_bare(examples[0].label)}"
    assert len(parse(second.response or "").scores) == 3
    assert read_replies(tmp_path / "records" / "replies.jsonl")[examples[0].id].reasoning == _thoughts()
    for name in ("refused", "filtered"):
        assert name in result["table"].splitlines()[0]


def test_credentials_of_the_endpoint_are_in_no_file_and_may_change(tmp_path: Path) -> None:
    settings = config(tmp_path, count=2)
    with scripted_endpoint(
        lambda body, earlier: Answer(body=completion("sent pass-word-1 and k3y-abcdef"))
    ) as endpoint:
        for part in ("pass-word-1", "pass-word-2"):
            url = endpoint.url.replace("//", f"//me:{part}@") + "?api_key=k3y-abcdef"
            teacher = replace(settings.teacher, base_url=url, api_key_env=None, error_rate=0.5)
            asked = replace(settings, teacher=teacher)
            open_run(tmp_path, as_json(asked))
            distill.run(asked)
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "pass-word" not in written
    assert "k3y-abcdef" not in written
    assert "***@127.0.0.1" in (tmp_path / "config.json").read_text()


def _bare(label: object) -> str:
    return _answer(label).rpartition("\n")[2]


def _thoughts() -> str:
    return _answer(1).partition("<think>")[2].partition("</think>")[0].strip()


def _answer(label: object) -> str:
    scores = "\n".join(f"{n}. D{n}: Image 1 (5/10) - a; Image 2 (6/10) - b" for n in (1, 2, 3))
    totals = "Total score:\nImage 1: 5+5+5=15\nImage 2: 6+6+6=18"
    return f"<think>\n{scores}\n{totals}\n</think>\n<answer>Image {label} is better</answer>"


def test_a_file_is_asked_in_mixed_order_and_its_bad_records_are_counted(tmp_path: Path) -> None:
    first = make_example("image_gen", split="train", seed=2, index=0)
    winners = [replace(first, id=f"r{n}", label=1, meta={}) for n in range(40)]
    path = tmp_path / "pairs.jsonl"
    write_examples(path, winners)
    path.write_text(path.read_text() + '{"broken\n')
    pool = distill.labelled_pool(PoolData(path=str(path)), seed=3)
    assert 10 <= sum(example.label == 1 for example in pool.examples) <= 30
    assert pool == distill.labelled_pool(PoolData(path=str(path)), seed=3)
    assert sum(pool.skipped.counts.values()) == 1
    kept = distill.labelled_pool(PoolData(path=str(path), count=7), seed=3, swap=False).examples
    assert [example.label for example in kept] == [1] * 7


def test_a_file_without_one_labelled_record_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    record = {"task": "image_gen", "caption": "a dot", "images": ["a.png", "a.png"]}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(BadInputError, match=r"pairs\.jsonl holds no record with a label"):
        distill.labelled_pool(PoolData(path=str(tmp_path / "pairs.jsonl")), seed=0)


def test_scenes_are_shared_among_tasks_by_weight() -> None:
    assert distill.scene_counts(PoolData(count=10, tasks=ALL_TASKS)) == {
        **{"image_gen": 5, "video_gen": 2},
        **{"image_und": 2, "video_und": 1},
    }
    assert distill.scene_counts(PoolData(count=7)) == {"image_gen": 7}

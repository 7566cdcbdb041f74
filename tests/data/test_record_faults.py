"""Records as people write them: each reported fault and its neighbours are read right, counted, or refused by name."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from urt_jax.data.examples import Example, Media
from urt_jax.data.prompts import render
from urt_jax.data.sources import read_examples, read_pool, write_examples
from urt_jax.errors import BadInputError

PAIR = {"caption": "a dot", "images": ["1.png", "2.png"]}
REPLY = "<think>\nx\n</think>\n<answer>Image 1 is better</answer>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for n in (1, 2):
        Image.new("RGB", (2, 2), (n, 0, 0)).save(tmp_path / f"{n}.png")
    return tmp_path


def write(folder: Path, *records: Any, name: str = "d.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder / name


def one(folder: Path, **record: Any) -> Example:
    (example,) = read_examples(write(folder, record))
    return example


def refused(folder: Path, record: dict[str, Any]) -> str:
    """Return what is told of a record that a pool counts as skipped, beside a good one."""
    pool = read_pool(write(folder, record, PAIR))
    assert len(pool.examples) == 1
    (message,) = pool.left_out.messages.values()
    assert "line 1" in message
    return message


@pytest.mark.parametrize("label", [0, 0.0])
def test_a_label_0_refuses_the_source_unless_it_counts_from_0(folder: Path, label: float) -> None:
    path = write(folder, PAIR | {"label": 1}, PAIR | {"label": label}, PAIR | {"label": "tie"})
    for read in (read_pool, read_examples):
        with pytest.raises(BadInputError, match=r"line 2 .*label 0, but labels count from 1.*first_label=0"):
            read(path)
    assert [e.label for e in read_pool(path, first_label=0).examples] == [2, 1, "tie"]


@pytest.mark.parametrize("solution", ["Image 0 is better", "<answer>Image 0 is better</answer>"])
def test_a_solution_that_counts_from_0_refuses_the_source(folder: Path, solution: str) -> None:
    path = write(folder, {"problem": "?", "images": ["1.png", "2.png"], "solution": solution}, PAIR)
    for first in (0, 1):
        with pytest.raises(BadInputError, match="counts candidates from 0"):
            read_pool(path, first_label=first)


@pytest.mark.parametrize("label", [True, "1", "0", [1], 1.5, float("nan"), -1, 3, 10**30])
def test_a_label_of_another_kind_is_skipped_by_name(folder: Path, label: Any) -> None:
    assert "label" in refused(folder, PAIR | {"label": label})


@pytest.mark.parametrize(
    ("shares", "label"),
    [
        ({"label_0": 1}, 1),
        ({"label_0": 0.0, "label_1": 1}, 2),
        ({"label_1": 1}, 2),
        ({"label_0": 0.5, "label_1": 0.5}, "tie"),
        ({"label_0": 0.5, "has_label": False}, None),
        ({}, 1),
    ],
)
def test_shares_of_a_preference(folder: Path, shares: dict[str, Any], label: Any) -> None:
    assert one(folder, caption="a", jpg_0="1.png", jpg_1="2.png", **shares).label == label


@pytest.mark.parametrize(
    "shares", [{"label_0": float("nan")}, {"label_0": 7}, {"label_0": "1"}, {"label_0": 1, "label_1": 1}]
)
def test_shares_that_are_none(folder: Path, shares: dict[str, Any]) -> None:
    assert "label_0" in refused(folder, {"caption": "a", "jpg_0": "1.png", "jpg_1": "2.png", **shares})


@pytest.mark.parametrize(
    "record",
    [
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
        {"messages": [{"role": "system", "content": "Be fair."}, {"role": "user", "content": "Hi"}]},
        {"problem": "Hi"},
        {"prompt": "Hi", "chosen": "a", "rejected": "b", "text": "Hi"},
        PAIR,
    ],
)
@pytest.mark.parametrize("key", ["system", "system_prompt"])
def test_a_system_prompt_of_its_own_is_a_system_turn(folder: Path, record: dict[str, Any], key: str) -> None:
    first, *rest = render(one(folder, **record, **{key: "Be fair."})).messages
    assert first == {"role": "system", "content": [{"type": "text", "text": "Be fair."}]}
    assert [message["role"] for message in rest] == ["user"]
    assert render(one(folder, **record | {"system": "  "})).messages[-1] == rest[-1]


def test_two_system_prompts_that_differ_are_refused(folder: Path) -> None:
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    assert "differs from the one in the conversation" in refused(folder, {"messages": turns, "system": "Be fair."})
    assert "needed a text" in refused(folder, {"problem": "Hi", "system": ["Be fair."]})


@pytest.mark.parametrize("end", ["<|im_end|>", "<|im_end|>\n", "<|endoftext|>", ""])
def test_one_end_token_behind_a_reply_is_taken_off(folder: Path, end: str) -> None:
    turns = [{"from": "human", "value": "<image><image>?"}, {"from": "gpt", "value": REPLY + end}]
    assert one(folder, conversations=turns, images=["1.png", "2.png"]).response == REPLY


@pytest.mark.parametrize(
    "reply",
    [
        REPLY + "<|im_end|><|im_end|>",
        "<|im_start|>assistant\n" + REPLY,
        "a <|image_pad|> b",
        "<|vision_start|>",
        "<|im_end|> x",
    ],
)
def test_control_tokens_inside_a_reply_are_refused(folder: Path, reply: str) -> None:
    turns = [{"from": "human", "value": "?"}, {"from": "gpt", "value": reply}]
    assert "control token" in refused(folder, {"conversations": turns})
    assert "control token" in refused(folder, {"prompt": "?", "chosen": reply, "rejected": "b", "image": "1.png"})


@pytest.mark.parametrize("key", ["caption", "question", "problem"])
def test_half_an_emoji_is_skipped_with_its_line(folder: Path, key: str) -> None:
    assert "half of a surrogate pair" in refused(folder, {key: "a \ud83d", "images": ["1.png", "2.png"]})


@pytest.mark.parametrize("name", ["d.jsonl", "d.json"])
def test_a_byte_order_mark_is_read_over(folder: Path, name: str) -> None:
    text = json.dumps(PAIR if name == "d.jsonl" else [PAIR])
    (folder / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [e.prompt for e in read_examples(folder / name)] == ["a dot"]


def test_file_addresses_are_paths(folder: Path) -> None:
    (folder / "a b.png").write_bytes((folder / "1.png").read_bytes())
    forms = [f"file://{folder}/1.png", f"file://localhost{folder}/1.png", f"file://{folder}/a%20b.png", "file://1.png"]
    sources = [one(folder, problem="?", image=form).context[0].source for form in forms]
    assert sources == [str(folder / name) for name in ("1.png", "1.png", "a b.png", "1.png")]


def test_content_as_a_list_of_parts_keeps_the_order(folder: Path) -> None:
    parts = [
        {"type": "text", "text": "Is "},
        {"type": "image"},
        "or ",
        {"type": "image"},
        {"type": "text", "text": "?"},
    ]
    marked = one(folder, messages=[{"role": "user", "content": parts}], images=["2.png", "1.png"])
    assert marked.text == "Is <image>or <image>?"
    url = "data:image/png;base64," + base64.b64encode((folder / "1.png").read_bytes()).decode()
    named = [
        {"type": "image", "image": "2.png"},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "?"},
    ]
    inline = one(folder, messages=[{"role": "user", "content": named}])
    assert [Path(item.source).name if "png;" not in item.source else "url" for item in inline.context] == [
        "2.png",
        "url",
    ]
    assert [part["type"] for part in render(inline).messages[0]["content"]] == ["image", "image", "text"]
    both = {"messages": [{"role": "user", "content": named}], "images": ["1.png", "1.png"]}
    assert "not both" in refused(folder, both)
    assert "type" in refused(folder, {"messages": [{"role": "user", "content": [{"type": "audio"}]}]})


def test_cells_with_bytes_or_a_path_are_pictures(folder: Path) -> None:
    content = (folder / "1.png").read_bytes()
    cells = [{"bytes": None, "path": "2.png"}, {"bytes": base64.b64encode(content).decode(), "path": None}]
    example = one(folder, caption="a", images=cells)
    assert [item.source for item in example.candidates if isinstance(item, Media)] == [str(folder / "2.png"), content]
    numbers = one(folder, problem="?", image={"bytes": list(content), "path": "x.png"})
    assert numbers.context[0].source == content
    for cell in ({"bytes": None, "path": None}, {"bytes": "%%"}, {"bytes": [300]}, {"bytes": ""}, {}):
        assert "a cell with bytes" in refused(folder, {"caption": "a", "images": [cell, "1.png"]})


def test_preferences_as_message_lists(folder: Path) -> None:
    asked = {"role": "user", "content": "<image>What?"}
    replies = {key: [{"role": "assistant", "content": key}] for key in ("chosen", "rejected")}
    forms = [
        {"prompt": [asked], **replies},
        {key: [asked, *turns] for key, turns in replies.items()},
        {"messages": [asked], **replies},
        {"prompt": "<image>What?", "chosen": "chosen", "rejected": {"from": "gpt", "value": "rejected"}},
    ]
    for form in forms:
        example = one(folder, image="1.png", **form)
        assert (example.prompt, example.candidates, example.label) == ("What?", ("chosen", "rejected"), 1), form
        assert example.task == "image_und"
    other = [{"role": "user", "content": "Other?"}, *replies["rejected"]]
    assert "begins as the chosen one" in refused(folder, {"chosen": [asked, *replies["chosen"]], "rejected": other})
    assert "end with the assistant's" in refused(folder, {"prompt": "?", "chosen": [asked], "rejected": "b"})


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("iVBORw0KGgo" * 40, "looks like base64"),
        ("x" * 300 + ".png", "File name too long"),
        ("a\0b", "null byte"),
        ("/dev/zero", "pipe, socket or device"),
        ("fifo", "pipe, socket or device"),
        ("1.png/below", "can not be found"),
        ("d.jsonl", "a JSON text"),
        ("a.eps", "PostScript"),
        (".", "is missing|can not|Is a directory|not a readable"),
    ],
)
def test_paths_that_are_no_pictures(folder: Path, path: str, told: str) -> None:
    os.mkfifo(folder / "fifo")
    (folder / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    record = {"caption": "a", "images": [path, "1.png"]}
    if path == ".":
        return  # a folder is told when it is decoded
    import re

    assert re.search(told, refused(folder, record))


@pytest.mark.parametrize(
    "fields",
    [
        {"scores": {"Aesthetics": [9]}},
        {"scores": {"Aesthetics": [9, "x"]}},
        {"scores": {"Aesthetics": [9, float("nan")]}},
        {"scores": [1, 2]},
        {"correct_of": [3]},
        {"correct_of": [3, 2]},
        {"correct_of": [0, 0]},
        {"problem": None, "caption": None},
        {"problem": 7, "caption": None},
        {"answers": "yes"},
        {"answers": [None, {}]},
        {"votes": [float("nan"), -3]},
        {"votes": [1, 2, 3, 4]},
        {"votes": "many"},
        {"context_images": -1},
        {"context_images": 3},
        {"context_images": True},
        {"fps": "fast"},
        {"fps": 1e-7, "videos": ["1.png", "2.png"], "images": []},
        {"id": {"a": 1}},
        {"id": True},
        {"meta": [1]},
        {"text": 5},
        {"caption": ["a"]},
        {"images": 5},
        {"images": [["1.png"]]},
        {"task": ["image_gen"]},
        {"solution": 1},
        {"solution": "Video 1 is better", "task": "image_gen"},
    ],
)
def test_a_field_of_another_kind_is_skipped_by_name(folder: Path, fields: dict[str, Any]) -> None:
    assert refused(folder, PAIR | fields)


def test_what_a_record_says_of_history_is_not_believed(folder: Path) -> None:
    assert "history" not in one(folder, **PAIR, history=[{"role": "user"}]).meta
    assert "history" not in one(folder, **PAIR, meta={"history": 7}).meta


@pytest.mark.parametrize("line", [b'{"caption": "a", "caption": "b"}', b"[" * 5000, b"\xff{}", b"7", b'{"id": NaN'])
def test_a_broken_line_is_one_skipped_record(folder: Path, line: bytes) -> None:
    (folder / "d.jsonl").write_bytes(line + b"\n" + json.dumps(PAIR).encode() + b"\n")
    pool = read_pool(folder / "d.jsonl")
    assert (len(pool.examples), pool.left_out.counts, pool.left_out.read) == (1, {"broken line": 1}, 2)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("datasets: [{json_path: m.yaml}]", "inside each other"),
        ("datasets: [{json_path: 7}]", "json_path is 7; needed a text"),
        ("datasets: [{json_path: d.jsonl, sampling_strategy: 7}]", "sampling_strategy is 7"),
        ("datasets: [{json_path: d.jsonl, sampling_strategy: 'first:-1'}]", "first:-1"),
        ("datasets: [{json_path: d.jsonl, sampling_strategy: 'first:" + "9" * 400 + "%'}]", "sampling_strategy"),
        ("datasets: [{json_path: d.jsonl, image_folder: [a]}]", "image_folder"),
        ("datasets: [{json_path: d.jsonl, json_path: e.jsonl}]", "stands twice"),
        ("datasets: [{json_path: '" + "x" * 300 + ".jsonl'}]", "File name too long"),
    ],
)
def test_mixtures_that_mean_nothing(folder: Path, text: str, told: str) -> None:
    write(folder, PAIR)
    (folder / "m.yaml").write_text(text)
    with pytest.raises(BadInputError, match=told):
        read_pool(folder / "m.yaml")


def test_too_many_skipped_records_stop_a_stage_and_are_told(folder: Path) -> None:
    left_out = read_pool(write(folder, *[PAIR] * 18, PAIR | {"label": "x"}, PAIR | {"images": ["no.png"] * 2})).left_out
    assert left_out.told().splitlines()[0].endswith("2 of 20 records of " + str(folder / "d.jsonl") + ":")
    assert "1 x bad label; first: " in left_out.told()
    left_out.check(0.1)
    with pytest.raises(BadInputError, match=r"(?s)skipped 2 of 20.*more than 5 % of the source"):
        left_out.check(0.05)


def test_what_was_read_is_written_so_that_it_is_read_again(folder: Path) -> None:
    rows = [PAIR | {"system": "Be fair.", "label": 2}, {"problem": "Hi", "system": "Be fair."}]
    examples = read_examples(write(folder, *rows))
    write_examples(folder / "again" / "d.jsonl", examples)
    again = read_examples(folder / "again" / "d.jsonl")
    assert [(e.label, e.task, render(e).messages) for e in again] == [
        (e.label, e.task, render(e).messages) for e in examples
    ]

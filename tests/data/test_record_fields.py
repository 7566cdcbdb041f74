"""Fields of records: labels from 0, shares, votes, scores, ids, system prompts; read right or refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from urt_jax.data.prompts import render
from urt_jax.data.sources import read_examples, read_pool, write_examples
from urt_jax.data.sources.words import MAX_ANSWERS
from urt_jax.errors import BadInputError

PAIR: dict[str, Any] = {"caption": "a dot", "images": ["1.png", "2.png"]}
ASK: dict[str, Any] = {"question": "What?", "image": "1.png", "answers": ["a dot", "a cat"]}
GRPO: dict[str, Any] = {"problem": "Which?", "images": ["1.png", "2.png"]}
FINE: dict[str, Any] = {"problem": "fine"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with two small pictures."""
    for n in (1, 2):
        Image.new("RGB", (2, 2), (n, 0, 0)).save(tmp_path / f"{n}.png")
    return tmp_path


def written(folder: Path, *records: Any, name: str = "d.jsonl") -> Path:
    """Write records as lines."""
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder / name


def reply(answer: str) -> dict[str, Any]:
    """Return a record with a reply to learn."""
    turns = [{"from": "human", "value": "<image><image>Which?"}, {"from": "gpt", "value": f"<answer>{answer}</answer>"}]
    return {"conversations": turns, "images": ["1.png", "2.png"]}


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (PAIR | {"label": 0}, "label 0, but labels count from 1"),
        (PAIR | {"label": 0.0}, "label 0.0, but labels count from 1"),
        (ASK | {"label": 0}, "label 0"),
        (GRPO | {"solution": "Image 0 is better"}, "solution 'Image 0 is better', but labels count"),
        (ASK | {"solution": " Answer 0 is better\n"}, "solution 'Answer 0 is better'"),
        (GRPO | {"label": 0, "solution": "Image 0 is better"}, "label 0"),
        (reply("Image 0 is better"), "its own words say 'Image 0 is better'"),
        (GRPO | {"problem": "Say 'Image 0 is better' or not.", "label": 1}, "its own words say"),
        (PAIR | {"label": 0, "images": ["gone.png", "2.png"]}, "label 0"),
    ],
)
def test_one_label_0_refuses_the_whole_source(folder: Path, record: dict[str, Any], told: str) -> None:
    path = written(folder, *[PAIR | {"label": 1}] * 99, record)
    for read in (read_pool, read_examples):
        with pytest.raises(BadInputError, match=r"d\.jsonl line 100") as caught:
            read(path)
        assert told in str(caught.value)
        assert "data.first_label" in str(caught.value)


@pytest.mark.parametrize(("given", "right"), [(0, 1), (1, 2), ("tie", "tie"), (1.0, 2)])
def test_a_source_said_to_count_from_0_is_read_so(folder: Path, given: Any, right: Any) -> None:
    records: list[dict[str, Any]] = [PAIR | {"label": given}, ASK | {"label": given}]
    if isinstance(given, int):
        records += [GRPO | {"solution": f"Image {given} is better"}, ASK | {"solution": f"Answer {given} is better"}]
    pool = read_pool(written(folder, *records), first_label=0)
    assert [example.label for example in pool.examples] == [right] * len(records)


def test_what_counts_from_0_in_one_file_of_a_mixture_is_said_there(folder: Path) -> None:
    written(folder, PAIR | {"label": 0}, name="zero.jsonl")
    written(folder, PAIR | {"label": 1}, name="one.jsonl")
    entries = "[{json_path: zero.jsonl, first_label: 0}, {json_path: one.jsonl}]"
    (folder / "m.yaml").write_text(f"datasets: {entries}")
    assert [example.label for example in read_examples(folder / "m.yaml")] == [1, 1]
    (folder / "m.yaml").write_text("datasets: [{json_path: zero.jsonl, first_label: 2}]")
    with pytest.raises(BadInputError, match="entry 1: first_label is 2; needed a whole number from 0 to 1"):
        read_pool(folder / "m.yaml")


@pytest.mark.parametrize("first", [0, 1])
def test_shares_and_replies_mean_the_same_from_wherever_labels_count(folder: Path, first: int) -> None:
    sides = {"caption": "a dot", "jpg_0": "1.png", "jpg_1": "2.png"}
    records = [sides | {"label_0": 0}, sides | {"label_1": 1.0}, sides | {"label_0": 0.0, "label_1": 1}]
    records += [sides | {"label_1": 0}, reply("Image 1 is better"), reply("Image 2 is better")]
    found = read_examples(written(folder, *records), first_label=first)
    assert [example.label for example in found] == [2, 2, 2, 1, 1, 2]


@pytest.mark.parametrize("label", [2, -1, 3])
def test_a_label_beyond_the_candidates_of_a_source_from_0(folder: Path, label: int) -> None:
    pool = read_pool(written(folder, PAIR | {"label": label}), first_label=0)
    assert pool.skipped.counts == {"bad label": 1}
    assert f"label {label}, but it has 2 candidates" in pool.skipped.messages["bad label"]


SIDES = {"caption": "a dot", "jpg_0": "1.png", "jpg_1": "2.png"}


@pytest.mark.parametrize(
    ("record", "reason", "told"),
    [
        (SIDES | {"label_0": float("nan")}, "wrong type", "label_0 is nan; needed a number at least 0 and at most 1"),
        (SIDES | {"label_0": 7}, "wrong type", "label_0 is 7"),
        (SIDES | {"label_0": "1"}, "wrong type", "label_0 is '1'"),
        (SIDES | {"label_0": True}, "wrong type", "label_0 is True"),
        (SIDES | {"label_0": 1, "label_1": 1}, "bad label", "are no shares of 1"),
        (PAIR | {"label": True}, "bad label", "label True; needed 1, 2"),
        (PAIR | {"label": [1]}, "bad label", "label [1]"),
        (PAIR | {"label": 1.5}, "bad label", "label 1.5"),
        (GRPO | {"label": 1, "solution": "Image 2 is better"}, "bad label", "differ; keep one"),
        (GRPO | {"solution": "Video 1 is better", "task": "image_gen"}, "bad label", "needed 'Image N is better'"),
        (ASK | {"solution": "Image 1 is better", "task": "image_und"}, "bad label", "needed 'Answer N is better'"),
        (GRPO | {"solution": 1}, "bad label", "solution 1; needed"),
        (GRPO | {"solution": {"a": 1}}, "bad label", "solution an object of 1 keys"),
        (PAIR | {"scores": {"Aesthetics": [9]}}, "wrong type", "Aesthetics has 1 items; needed a list of 2"),
        (PAIR | {"scores": {"Aesthetics": [9, float("inf")]}}, "wrong type", "Aesthetics: 1 is inf"),
        (PAIR | {"scores": {"Aesthetics": [9, None]}}, "wrong type", "Aesthetics: 1 is missing"),
        (PAIR | {"scores": [9, 8]}, "wrong type", "scores is [9, 8]; needed an object"),
        (PAIR | {"meta": {"scores": {"a": "xy"}}}, "wrong type", "a is 'xy'"),
        (PAIR | {"meta": []}, "wrong type", "meta is []; needed an object"),
        (
            PAIR | {"meta": {"history": [{"role": "user"}]}},
            "wrong type",
            "history is [an object of 1 keys]; needed it as",
        ),
        (PAIR | {"difficulty": ["hard"]}, "wrong type", "difficulty is ['hard']"),
        (PAIR | {"correct_of": [1]}, "wrong type", "correct_of has 1 items"),
        (FINE | {"history": [{"role": "user"}]}, "unknown schema", "a turn is from 'user' with a NoneType"),
        (FINE | {"history": "before"}, "wrong type", "history is 'before'; needed a list"),
        (FINE | {"history": [["a", 3]]}, "unknown schema", "a turn is from 'assistant' with a int"),
        ({"problem": None, "label": 1}, "unknown schema", "needed conversations or messages"),
        ({"problem": 3}, "wrong type", "problem is 3; needed a text"),
        (PAIR | {"caption": ["a"]}, "wrong type", "caption is ['a']"),
        (FINE | {"text": 5}, "wrong type", "text is 5"),
        (ASK | {"answers": "yes"}, "wrong type", "answers is 'yes'; needed a list"),
        (ASK | {"answers": [None, {}]}, "wrong type", "answers: 0 is missing; needed a text"),
        (ASK | {"answers": ["a"] * (MAX_ANSWERS + 1)}, "wrong type", "answers has 65 items"),
        (PAIR | {"votes": [float("nan"), 3]}, "wrong type", "votes: 0 is nan"),
        (PAIR | {"votes": [1, -3]}, "wrong type", "votes: 1 is -3"),
        (PAIR | {"votes": [1, 2, 3]}, "bad label", "3 votes for 2 candidates"),
        (PAIR | {"votes": 3}, "wrong type", "votes is 3"),
        (ASK | {"context_images": -1}, "wrong type", "context_images is -1"),
        (ASK | {"context_images": 2}, "media count", "context_images is 2, but it has 1 images"),
        (FINE | {"id": {"a": 1}}, "wrong type", "id is an object of 1 keys"),
        (FINE | {"id": [1]}, "wrong type", "id is [1]"),
        (FINE | {"id": True}, "wrong type", "id is True"),
        (FINE | {"id": "x" * 2000}, "wrong type", "needed a text of at most 1,024 characters"),
        (FINE | {"task": ["image_gen"]}, "unknown task", "task ['image_gen'] is unknown"),
        (FINE | {"fps": 1e-7}, "wrong type", "fps is 1e-07"),
        (FINE | {"fps": [[2]], "videos": [["1.png"]]}, "wrong type", "fps: 0 is [2]"),
        (FINE | {"fps": float("nan"), "videos": [["1.png"]]}, "wrong type", "fps is nan"),
        (FINE | {"fps": 0, "videos": [["1.png"]]}, "wrong type", "fps is 0"),
        (FINE | {"videos": [[]]}, "media count", "a clip without frames"),
        (FINE | {"images": [["1.png"]]}, "missing file", "media ['1.png']; needed a path"),
        (FINE | {"messages": [{"role": ["user"], "content": "x"}]}, "unknown schema", "a turn is from ['user']"),
        (FINE | {"system": "a", "system_prompt": "b"}, "unknown schema", "two system prompts that differ"),
        (FINE | {"system": 3}, "unknown schema", "a turn is from 'system' with a int"),
    ],
)
def test_a_field_of_another_form_is_a_counted_skip_that_names_it(
    folder: Path, record: dict[str, Any], reason: str, told: str
) -> None:
    pool = read_pool(written(folder, record, FINE))
    assert [example.text for example in pool.examples] == ["fine"]
    assert pool.skipped.counts == {reason: 1}
    assert told in pool.skipped.messages[reason]
    assert "d.jsonl line 1" in pool.skipped.messages[reason]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"problem": "a \\ud83d"}', "half of a surrogate pair"),
        (b'{"problem": "a", "meta": {"\\udc00": 1}}', "half of a surrogate pair"),
        (b'{"problem": "a", "problem": "b"}', "the key 'problem' appears twice"),
        (b'{"problem": "a", "meta": {"k": 1, "k": 2}}', "the key 'k' appears twice"),
        (b'{"problem": "\xff"}', "not UTF-8: byte 13 is 0xff"),
        (b'{"problem": ' + b"[" * 200 + b"]" * 200 + b"}", "nested deeper than 100 levels"),
        (b'{"problem": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested deeper than 100 levels"),
        (b'{"problem": "a", "label": 1' + b"0" * 5000 + b"}", "not JSON"),
    ],
)
def test_a_line_that_cannot_be_trusted_is_a_counted_skip(folder: Path, line: bytes, told: str) -> None:
    (folder / "d.jsonl").write_bytes(line + b'\n{"problem": "fine"}\n')
    pool = read_pool(folder / "d.jsonl")
    assert pool.skipped.counts == {"broken line": 1}
    assert told in pool.skipped.messages["broken line"]
    assert "d.jsonl line 1" in pool.skipped.messages["broken line"]


@pytest.mark.parametrize(
    "flawed",
    [
        '{"problem": "a \\ud83d"}',
        '{"problem": "a", "problem": "b"}',
        '{"problem": {"k": 1, "k": 2}}',
        "[" * 150 + "]" * 150,
    ],
)
def test_a_flaw_within_a_json_list_is_of_its_record_alone(folder: Path, flawed: str) -> None:
    (folder / "d.json").write_bytes(b"\xef\xbb\xbf" + f'[{{"problem": "b"}}, {flawed}, {{"problem": "c"}}]'.encode())
    pool = read_pool(folder / "d.json")
    assert [(example.id, example.text) for example in pool.examples] == [("d:1", "b"), ("d:3", "c")]
    assert pool.skipped.counts == {"broken line": 1}
    assert "d.json record 2" in pool.skipped.messages["broken line"]


@pytest.mark.parametrize("key", ["system", "system_prompt"])
@pytest.mark.parametrize(
    "record",
    [
        {"conversations": [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "A dot."}]},
        {"messages": [{"role": "user", "content": "<image>What?"}]},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "<image>What?"}]},
        {"problem": "What?"},
        {"question": "What?", "answers": ["a", "b"]},
        {"prompt": "What?", "chosen": "a", "rejected": "b"},
    ],
)
def test_a_system_prompt_of_its_own_is_a_system_turn(folder: Path, record: dict[str, Any], key: str) -> None:
    (example,) = read_examples(written(folder, record | {"image": "1.png", key: "Be brief."}))
    messages = render(example).messages
    assert [message["role"] for message in messages] == ["system", "user"]
    assert messages[0]["content"] == [{"type": "text", "text": "Be brief."}]
    assert key not in example.meta
    write_examples(folder / "o.jsonl", [example])
    assert render(read_examples(folder / "o.jsonl")[0]) == render(example)


def test_an_empty_system_prompt_is_none_and_two_that_differ_are_refused(folder: Path) -> None:
    turns = {"messages": [{"role": "system", "content": "Be long."}, {"role": "user", "content": "x"}]}
    records = [FINE | {"system": empty} for empty in ("", None, " ")]
    assert all("history" not in example.meta for example in read_examples(written(folder, *records)))
    pool = read_pool(written(folder, turns | {"system": "Be brief."}, FINE))
    assert "two system prompts that differ" in pool.skipped.messages["unknown schema"]


def test_null_is_a_field_that_is_not_there(folder: Path) -> None:
    absent = ("conversations", "messages", "prompt", "chosen", "rejected", "label_0", "jpg_0", "fps", "videos", "meta",
              "id", "history", "votes", "answers", "text", "scores", "context_images")  # fmt: skip
    record = GRPO | {"solution": "Image 2 is better"} | dict.fromkeys(absent)
    (example,) = read_examples(written(folder, record))
    assert (example.id, example.label, example.text, example.meta) == ("d:1", 2, "Which?", {})


def test_history_of_pairs_or_turns_comes_before_the_question(folder: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    pairs = read_examples(written(folder, FINE | {"history": turns}, FINE | {"history": [["a", "b"]]}))
    assert [example.meta["history"] for example in pairs] == [turns, turns]

"""Common forms of rows and of the media they name: BOM, file addresses, content parts, picture cells, preferences."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.test_record_fields import written
from tests.data.video_samples import grey_frames, write_video
from urt_jax.data.examples import Example, Media
from urt_jax.data.images import load_image
from urt_jax.data.prompts import render
from urt_jax.data.sources import read_examples, read_pool, write_examples
from urt_jax.data.sources.files import MAX_MIXTURE_DEPTH
from urt_jax.errors import BadInputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with pictures ``1.png``, ``2.png`` and ``a b.png`` of their own red."""
    for n, name in enumerate(("1.png", "2.png", "a b.png"), start=1):
        Image.new("RGB", (2, 2), (n, 0, 0)).save(tmp_path / name)
    return tmp_path


def one(folder: Path, record: dict[str, Any]) -> Example:
    """Read a file of this one record."""
    (example,) = read_examples(written(folder, record))
    return example


def reds(example: Example) -> list[int]:
    """Return which pictures a record shows, in the order of its prompt."""
    return [int(np.asarray(load_image(item, name="x"))[0, 0, 0]) for item in render(example).images]


def encoded(folder: Path, name: str = "1.png") -> str:
    """Return a picture as base64 text."""
    return base64.b64encode((folder / name).read_bytes()).decode()


def test_a_byte_order_mark_is_no_part_of_a_file(folder: Path) -> None:
    mark = b"\xef\xbb\xbf"
    (folder / "d.json").write_bytes(mark + b'[{"problem": "a"}]')
    (folder / "d.jsonl").write_bytes(mark + b'{"problem": "a"}\n{"problem": "b"}\n')
    (folder / "m.yaml").write_bytes(mark + b"datasets: [{json_path: d.json}]")
    assert [len(read_examples(folder / name)) for name in ("d.json", "d.jsonl", "m.yaml")] == [1, 2, 1]
    (folder / "d.json").write_bytes('[{"problem": "a"}]'.encode("utf-16"))
    with pytest.raises(BadInputError, match="not UTF-8: byte 0 is 0xff"):
        read_examples(folder / "d.json")


@pytest.mark.parametrize("form", ["file://{}", "file://localhost{}", "FILE://{}", "file:{}", "{}"])
def test_file_addresses_are_paths(folder: Path, form: str) -> None:
    path = str(folder / "a b.png")
    address = form.format(path if form == "{}" else path.replace(" ", "%20"))
    assert reds(one(folder, {"problem": "?", "image": address})) == [3]


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("file://elsewhere/1.png", "is not local"),
        ("https://x/1.png", "is not local"),
        ("s3://bucket/1.png", "is not local"),
        ("file:///gone%2Fx.png", "gone/x.png is missing"),
        ("file:///a%00b.png", "names no file"),
        ("a\0b.png", "names no file"),
        ("1.png/2.png", "names no file"),
        ("x" * 5000, "of 5,000 characters names no file"),
        ("", "is a folder"),
    ],
)
def test_what_is_no_file_of_this_disk_is_told(folder: Path, address: str, told: str) -> None:
    pool = read_pool(written(folder, {"problem": "?", "image": address}))
    assert told in pool.skipped.messages["missing file"]
    assert len(pool.skipped.messages["missing file"]) < 900


def test_a_base64_picture_without_its_beginning_is_told_how(folder: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(folder / "noise.png")
    pool = read_pool(written(folder, {"problem": "?", "image": encoded(folder, "noise.png")}))
    assert "write data:image/png;base64," in pool.skipped.messages["missing file"]


@pytest.mark.parametrize("field", ["image", "video"])
def test_a_pipe_or_device_is_never_opened(folder: Path, field: str) -> None:
    os.mkfifo(folder / "pipe.png")
    for name in ("pipe.png", "/dev/zero"):
        pool = read_pool(written(folder, {"problem": "?", field: name}))
        assert "is a pipe, socket or device" in pool.skipped.messages["missing file"]
    os.mkfifo(folder / "pipe.jsonl")
    with pytest.raises(BadInputError, match="is a pipe, socket or device"):
        read_pool(folder / "pipe.jsonl")


def test_picture_cells_are_bytes_or_a_path(folder: Path) -> None:
    numbers = list((folder / "2.png").read_bytes())
    cells = [
        {"bytes": None, "path": "1.png"},
        {"path": "1.png"},
        {"bytes": encoded(folder), "path": "gone.png"},
        {"bytes": encoded(folder), "path": None},
        {"bytes": numbers, "path": None},
    ]
    example = one(folder, {"problem": "?", "images": cells})
    assert reds(example) == [1, 1, 1, 1, 2]
    assert reds(one(folder, {"caption": "x", "jpg_0": cells[4], "jpg_1": cells[0], "label_0": 1})) == [2, 1]
    assert reds(one(folder, {"problem": "?", "image": cells[4]})) == [2]
    write_examples(folder / "o.jsonl", [example])
    assert reds(read_examples(folder / "o.jsonl")[0]) == [1, 1, 1, 1, 2]


def test_clip_cells_and_frames_of_cells(folder: Path) -> None:
    content = write_video(folder / "a.mp4", grey_frames(3)).read_bytes()
    clip = {"bytes": base64.b64encode(content).decode(), "path": None}
    (shown,) = one(folder, {"problem": "?", "videos": [clip]}).context
    assert (shown.kind, shown.source) == ("video", content)
    frames = [{"bytes": None, "path": "1.png"}, {"bytes": encoded(folder, "2.png"), "path": None}]
    (shown,) = one(folder, {"problem": "?", "videos": [frames]}).context
    assert shown.source == [str(folder / "1.png"), (folder / "2.png").read_bytes()]


@pytest.mark.parametrize(
    "cell", [{}, {"bytes": None}, {"bytes": "!!"}, {"bytes": [256]}, {"bytes": ["a"]}, {"bytes": []}]
)
def test_a_cell_of_no_picture_is_told(folder: Path, cell: dict[str, Any]) -> None:
    pool = read_pool(written(folder, {"problem": "?", "images": [cell]}))
    assert sum(pool.skipped.counts.values()) == 1


PARTS = [
    [{"type": "text", "text": "A "}, {"type": "image", "image": "1.png"}, {"type": "text", "text": " B "},
     {"type": "image", "image": "2.png"}, {"type": "text", "text": "?"}],
    [{"type": "text", "text": "A "}, {"type": "image_url", "image_url": {"url": "1.png"}},
     {"type": "text", "text": " B "}, {"type": "image_url", "image_url": "2.png"}, {"type": "text", "text": "?"}],
    [{"type": "text", "value": "A "}, {"type": "image_url", "value": "1.png"}, {"type": "text", "value": " B "},
     {"type": "image_url", "value": "2.png"}, {"type": "text", "value": "?"}],
    [{"text": "A "}, {"image": "1.png"}, {"text": " B "}, {"image": "2.png"}, {"text": "?"}],
    [{"type": "input_text", "text": "A "}, {"type": "input_image", "image_url": "1.png"},
     {"type": "text", "text": " B "}, {"type": "image", "path": "2.png"}, {"type": "text", "text": "?"}],
    [{"type": "text", "text": "A ", "image": None}, {"type": "image", "text": None,
     "image": {"bytes": None, "path": "1.png"}}, " B ",
     {"type": "image", "url": "2.png"}, {"type": "text", "text": "?"}],
]  # fmt: skip
HOLDERS = [
    [{"type": "text", "text": "A "}, {"type": "image"}, {"type": "text", "text": " B "}, {"type": "image"},
     {"type": "text", "text": "?"}],
    [{"type": "text", "text": "A "}, {"type": "image", "image": "1.png"}, {"type": "text", "text": " B "},
     {"type": "image"}, {"type": "text", "text": "?"}],
]  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "images"),
    [*((parts, None) for parts in PARTS), (HOLDERS[0], ["1.png", "2.png"]), (HOLDERS[1], ["2.png"])],
)
def test_content_parts_keep_their_order(folder: Path, parts: list[Any], images: Any) -> None:
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": [{"type": "text", "text": "2"}]}]
    example = one(folder, {"messages": turns, "images": images})
    assert (example.text, example.response, reds(example)) == ("A <image> B <image>?", "2", [1, 2])
    kinds = [part["type"] for part in render(example).messages[0]["content"]]
    assert kinds == ["text", "image", "text", "image", "text"]


def test_parts_of_several_turns_and_of_clips(folder: Path) -> None:
    write_video(folder / "a.mp4", grey_frames(3))
    turns = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "video", "video": "a.mp4"}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "A dot."},
        {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "image", "image": "2.png"}]},
    ]
    example = one(folder, {"messages": turns})
    chat = render(example)
    assert [message["role"] for message in chat.messages] == ["system", "user", "assistant", "user"]
    assert [part["type"] for part in chat.messages[1]["content"]] == ["video", "text"]
    assert ([Path(clip.source).name for clip in chat.videos], reds(example)) == (["a.mp4"], [2])


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([{"type": "audio", "audio": "a.wav"}], "a part of type 'audio'"),
        ([{"type": "text"}], "a part of type 'text' with text None"),
        ([{"type": ["text"], "text": "a"}], "a part of type ['text']"),
        ([3], "a part is 3"),
        ([{}], "a part of type None"),
        ([{"type": "image"}], "more placeholders than images"),
        ([{"type": "image", "image": "gone.png"}], "gone.png is missing"),
        ([{"type": "image", "image": ["1.png"]}], "media ['1.png']; needed a path"),
        ({"text": "a"}, "with a dict; needed text, or a list"),
    ],
)
def test_parts_of_another_form_are_told(folder: Path, parts: Any, told: str) -> None:
    pool = read_pool(written(folder, {"messages": [{"role": "user", "content": parts}]}))
    assert told in next(iter(pool.skipped.messages.values()))


def test_only_a_user_shows_pictures(folder: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": [{"type": "image", "image": "1.png"}]}]
    assert "only a user can" in read_pool(written(folder, {"messages": turns})).skipped.messages["unknown schema"]


USER, SYSTEM = {"role": "user", "content": "<image>What?"}, {"role": "system", "content": "Be brief."}
PARTED = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}


def said(text: str, *before: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a conversation that ends with this reply."""
    return [*before, {"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "<image>What?", "chosen": "a dot", "rejected": "a cat"},
        {"prompt": "<image>What?", "chosen": said("a dot"), "rejected": said("a cat")},
        {"prompt": [USER], "chosen": said("a dot"), "rejected": said("a cat")},
        {"prompt": [PARTED], "chosen": said("a dot"), "rejected": said("a cat")},
        {"chosen": said("a dot", USER), "rejected": said("a cat", USER)},
        {"chosen_messages": said("a dot", USER), "rejected_messages": said("a cat", USER)},
        {"chosen": said("a dot", PARTED), "rejected": said("a cat", PARTED)},
        {"prompt": "<image>What?", "chosen": said("a dot", USER), "rejected": said("a cat", USER)},
        {"conversations": [{"from": "human", "value": "<image>What?"}], "chosen": {"from": "gpt", "value": "a dot"},
         "rejected": {"from": "gpt", "value": "a cat"}},
        {"prompt": [USER], "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "a dot"}]}],
         "rejected": said("a cat")},
    ],
)  # fmt: skip
def test_preferences_are_read_in_every_form(folder: Path, row: dict[str, Any]) -> None:
    example = one(folder, row | {"images": ["1.png"]})
    assert (example.task, example.prompt, example.label) == ("image_und", "What?", 1)
    assert (example.candidates, example.text) == (("a dot", "a cat"), None)
    assert [Path(item.source).name for item in example.context if isinstance(item, Media)] == ["1.png"]


def test_the_system_turn_of_a_preference_stays(folder: Path) -> None:
    row = {"chosen": said("a", SYSTEM, USER), "rejected": said("b", SYSTEM, USER), "image": "1.png"}
    assert [message["role"] for message in render(one(folder, row)).messages] == ["system", "user"]


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": said("a", USER), "rejected": said("b", {"role": "user", "content": "Else?"})},
        {"prompt": "Else?", "chosen": said("a", USER), "rejected": said("b", USER)},
        {"chosen": said("a"), "rejected": said("b")},
        {"chosen": said("a", USER, *said("x"), USER), "rejected": said("b", USER, *said("x"), USER)},
        {"prompt": "?", "chosen": [], "rejected": said("b")},
        {"prompt": "?", "chosen": [USER], "rejected": said("b")},
        {"prompt": "?", "chosen": "a"},
        {"prompt": 3, "chosen": "a", "rejected": "b"},
    ],
)
def test_preferences_without_one_question_are_refused(folder: Path, row: dict[str, Any]) -> None:
    assert read_pool(written(folder, row | {"image": "1.png"})).skipped.counts == {"unknown schema": 1}


def test_a_prompt_of_messages_with_a_solution_is_a_question(folder: Path) -> None:
    row = {
        "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "?"}]}]
    }
    example = one(folder, row | {"images": ["2.png", "1.png"], "solution": "Image 2 is better"})
    assert (example.label, example.text, reds(example)) == (2, "<image><image>?", [2, 1])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("datasets: [{json_path: m.yaml}]", "names a mixture that contains it"),
        ("datasets: [{json_path: ./m.yaml}]", "names a mixture that contains it"),
        ("datasets: [{json_path: 3}]", "json_path is 3; needed a text"),
        ("datasets: [{json_path: p.json, sampling_strategy: 3}]", "sampling_strategy is 3; needed a text"),
        ("datasets: [{json_path: p.json, sampling_strategy: 'first:101%'}]", "takes more than 100 %"),
        ("datasets: [{json_path: p.json, sampling_strategy: 'first:" + "9" * 400 + "%'}]", "known are all, first:N"),
        ("datasets: [{json_path: p.json, sampling_strategy: 'first:-1'}]", "known are all, first:N"),
        ("datasets: [{json_path: p.json, image_folder: [a]}]", r"image_folder is \['a'\]; needed a text"),
        ("datasets: [{json_path: p.json, json_path: p.json}]", "appears twice"),
        ("datasets: 3", "needed 'datasets:'"),
        ("datasets: [3]", "needed 'datasets:'"),
        ("&a [*a]", "a reference"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "a reference"),
        ("\x80", "not readable as YAML"),
        ("[" * 5000, "not readable as YAML|nested deeper"),
    ],
)
def test_a_mixture_of_another_form_is_told(folder: Path, text: str, told: str) -> None:
    (folder / "p.json").write_text("[]")
    (folder / "m.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInputError, match=told):
        read_pool(folder / "m.yaml")


def test_mixtures_that_name_each_other_or_multiply_end(folder: Path) -> None:
    (folder / "p.json").write_text("[]")
    for name, other in (("a", "b"), ("b", "a")):
        (folder / f"{name}.yaml").write_text(f"datasets: [{{json_path: {other}.yaml}}]")
    with pytest.raises(BadInputError, match="names a mixture that contains it"):
        read_pool(folder / "a.yaml")
    for level in range(MAX_MIXTURE_DEPTH + 2):
        below = f"n{level - 1}.yaml" if level else "p.json"
        (folder / f"n{level}.yaml").write_text("datasets: [" + f"{{json_path: {below}}}, " * 10 + "]")
    for level in (4, MAX_MIXTURE_DEPTH + 1):
        with pytest.raises(BadInputError, match="a mixture may name mixtures 8 deep and read 1,000 files"):
            read_pool(folder / f"n{level}.yaml")
    assert read_pool(folder / "n1.yaml").examples == []


@pytest.mark.parametrize(
    "flawed",
    [
        Example("a", text="half \ud83d"),
        Example("a", text="x", meta={"scores": {"A": [1]}}),
        Example("a", text="x", votes=(1.0, -1.0)),
        Example("a", text="x", context=(Media("image", "gone.png"),)),
        Example("a", text="<image>"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path: Path, flawed: Example) -> None:
    with pytest.raises(BadInputError, match="record a"):
        write_examples(tmp_path / "o.jsonl", [flawed])
    assert not (tmp_path / "o.jsonl").exists()


def test_words_that_are_not_asked_may_count_as_they_like(folder: Path) -> None:
    answers = ["Image 0 is better", "Image 1 is better"]
    example = one(folder, {"question": "Which?", "image": "1.png", "answers": answers, "label": 2})
    write_examples(folder / "o.jsonl", [example])
    assert read_examples(folder / "o.jsonl")[0].candidates == tuple(answers)


def test_a_record_of_bytes_is_one_line_of_json(folder: Path) -> None:
    write_examples(
        folder / "o.jsonl", [Example("a", text="x", context=(Media("image", (folder / "1.png").read_bytes()),))]
    )
    (line,) = (folder / "o.jsonl").read_text().splitlines()
    assert json.loads(line)["images"][0].startswith("media/")


def test_real_rows_of_parts_and_preferences(test_data: Path, folder: Path) -> None:
    demo = test_data / "llamafactory-demo"
    rows = [json.loads(line) for line in (demo / "v1_multimodal_demo.jsonl").read_text().split("\n") if line.strip()]
    for row in rows:
        for part in (part for turn in row["messages"] for part in turn["content"] if part["type"] != "text"):
            part["value"] = str(folder / "1.png")  # its pictures lie in another repository
    pictured = [row for row in rows if "image_url" in json.dumps(row)]
    assert pictured
    for example in read_examples(written(folder, *pictured)):
        assert example.response
        assert render(example).images
    pool = read_pool(demo / "v1_dpo_demo.jsonl")
    assert len(pool.examples) + sum(pool.skipped.counts.values()) == 10
    assert [example.label for example in pool.examples] == [1] * len(pool.examples)
    assert pool.examples

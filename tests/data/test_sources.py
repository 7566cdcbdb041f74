"""Reading records of every known schema, what is refused, and writing them back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.video_samples import grey_frames, write_video
from urt_jax.data.examples import Example, Media
from urt_jax.data.prompts import render
from urt_jax.data.sources import read_examples, read_pool, write_examples
from urt_jax.data.video import load_clip, load_frames
from urt_jax.errors import BadInputError

GPT = {"from": "gpt", "value": "<think>\n..\n</think>\n<answer>Image 2 is better</answer>"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with eight small pictures ``1.png`` .. ``8.png`` and an empty ``zero.png``."""
    for n in range(1, 9):
        Image.new("RGB", (2, 2), (n, 0, 0)).save(tmp_path / f"{n}.png")
    (tmp_path / "zero.png").touch()
    return tmp_path


def write_lines(folder: Path, *records: Any, name: str = "d.jsonl") -> Path:
    """Write records as lines of a file."""
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder / name


def read_one(folder: Path, record: dict[str, Any], **options: Any) -> Example:
    """Read a file of this one record."""
    (example,) = read_examples(write_lines(folder, record), **options)
    return example


def names(media: tuple[Any, ...]) -> list[Any]:
    """Return the file names of media, of a clip the list of its frames' names."""
    shown = [item.source if isinstance(item, Media) else item for item in media]
    return [[Path(f).name for f in s] if isinstance(s, list) else Path(s).name for s in shown]


def sft(human: str, reply: dict[str, str] = GPT, **more: Any) -> dict[str, Any]:
    """Return a record of one turn."""
    return {"conversations": [{"from": "human", "value": human}, reply], **more}


def test_sft_record_of_the_original(folder: Path) -> None:
    example = read_one(folder, sft("<image>\n<image>\nWhich?", images=["1.png", "2.png"], generator="g"))
    assert (example.id, example.task, example.label) == ("d:1", "image_gen", 2)
    assert names(example.candidates) == ["1.png", "2.png"]
    assert (example.text, example.response) == ("<image>\n<image>\nWhich?", GPT["value"])
    assert (example.context, example.prompt, example.meta) == ((), "", {"generator": "g"})


def test_messages_spelling_and_single_image(folder: Path) -> None:
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "<image>What?"}]
    turns += [{"role": "assistant", "content": "A dot."}, {"role": "user", "content": "Sure?"}]
    example = read_one(folder, {"messages": [*turns, {"role": "assistant", "content": "Yes."}], "image": "1.png"})
    assert (example.task, example.label, example.text, example.response) == (None, None, "Sure?", "Yes.")
    assert example.meta["history"] == turns[:3]
    assert names(example.context) == ["1.png"]
    assert [message["role"] for message in render(example).messages] == ["system", "user", "assistant", "user"]


def test_grpo_record_has_its_media_in_front(folder: Path) -> None:
    example = read_one(folder, {"problem": "Which?", "solution": "Image 1 is better", "images": ["1.png", "2.png"]})
    assert (example.task, example.label, example.text, example.response) == ("image_gen", 1, "Which?", None)
    content = render(example).messages[0]["content"]
    assert [part["type"] for part in content] == ["image", "image", "text"]


@pytest.mark.parametrize(
    ("solution", "media", "task"),
    [
        ("Image 1 is better", {"images": ["1.png", "2.png"]}, "image_gen"),
        ("Video 1 is better", {"videos": [["1.png"], ["2.png"]]}, "video_gen"),
        ("Answer 1 is better", {"images": ["1.png"]}, "image_und"),
        ("Answer 1 is better", {"video": ["1.png", "2.png"]}, "video_und"),
        ("Answer 1 is better", {"images": ["1.png", "2.png"], "task": "video_und"}, "video_und"),
    ],
)
def test_task_follows_from_the_answer_and_the_media(
    folder: Path, solution: str, media: dict[str, Any], task: str
) -> None:
    example = read_one(folder, {"problem": "?", "solution": solution, **media})
    assert example.task == task
    assert all(isinstance(item, Media) and item.kind == task[:5] for item in (*example.context, *example.candidates))
    assert bool(example.context) == task.endswith("und")


def test_pictures_of_a_video_pair_are_the_frames_of_two_clips(folder: Path) -> None:
    frames = [f"{n}.png" for n in range(1, 9)]
    example = read_one(folder, {"problem": "?", "solution": "Video 2 is better", "images": frames})
    assert names(example.candidates) == [frames[:4], frames[4:]]
    tagged = read_one(
        folder, sft("<image>" * 8, {"from": "gpt", "value": "<answer>Video 1 is better</answer>"}, images=frames)
    )
    assert len(render(tagged).images) == 8


@pytest.mark.parametrize("count", [4, 6, 16])
@pytest.mark.parametrize("known_by", [{"solution": "Video 1 is better"}, {"task": "video_gen", "label": 1}])
def test_frames_of_two_videos_are_halves_of_the_pictures(folder: Path, count: int, known_by: dict[str, Any]) -> None:
    frames = [f"{n % 8 + 1}.png" for n in range(count)]
    example = read_one(folder, {"problem": "it moves", "images": frames, **known_by})
    assert names(example.candidates) == [frames[: count // 2], frames[count // 2 :]]
    assert (example.task, example.label, example.context) == ("video_gen", 1, ())
    assert len(render(example).videos) == 2
    for clip, half in zip(example.candidates, (frames[: count // 2], frames[count // 2 :])):
        shown = load_frames(clip, name="x", max_frames=4)[:, 0, 0, 0]  # the original takes four of eight
        assert shown.tolist() == [int(half[i][0]) for i in ((0, 2, 5, 7) if count == 16 else range(count // 2))]
    asked = read_one(folder, {"problem": "?", "solution": "Answer 2 is better", "task": "video_und", "images": frames})
    assert (names(asked.context), asked.candidates) == ([frames], ())


def test_video_files_and_animations_are_clips(folder: Path) -> None:
    frames = grey_frames(5)
    write_video(folder / "a.mp4", frames)
    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(folder / "b.gif", save_all=True, append_images=rest, duration=100)
    pair = read_one(folder, {"caption": "it moves", "videos": ["a.mp4", "b.gif"], "solution": "Video 1 is better"})
    assert names(pair.candidates) == ["a.mp4", "b.gif"]
    assert [load_clip(clip, name="x").fps for clip in pair.candidates] == [24, 10]
    rated = read_one(folder, {"caption": "it moves", "videos": ["a.mp4", "a.mp4"], "fps": [8, 12], "label": 1})
    assert [load_clip(clip, name="x").fps for clip in rated.candidates] == [8, 12]
    assert names(read_one(folder, {"question": "?", "video": ".", "answers": ["l", "r"]}).context) == [folder.name]


def test_what_is_no_video_is_found_when_it_is_read(folder: Path) -> None:
    (folder / "a.mp4").write_text("not a video")
    (folder / "b.txt").write_text("not a video")
    record = {"caption": "it moves", "label": 1}
    pool = read_pool(write_lines(folder, *({**record, "videos": [name, name]} for name in ("a.mp4", "b.txt"))))
    assert pool.skipped.counts == {"unreadable video": 1, "unreadable picture": 1}
    told = pool.skipped.messages["unreadable video"]
    assert "d.jsonl line 1 (id d:1): " in told
    assert "a.mp4' is not a readable video (" in told


def test_encoded_videos_keep_their_bytes(folder: Path) -> None:
    content = write_video(folder / "a.webm", grey_frames(3)).read_bytes()
    write_examples(folder / "o.jsonl", [Example("a", "video_und", "x", (Media("video", content),), ("l", "r"))])
    (film,) = read_examples(folder / "o.jsonl")[0].context
    assert Path(film.source).read_bytes() == content
    np.testing.assert_array_equal(load_frames(film, name="x"), load_frames(content, name="x"))


def test_preference_records_put_the_winner_first(folder: Path) -> None:
    image = {"caption": "a dot", "jpg_0": "1.png", "jpg_1": "2.png"}
    assert [read_one(folder, image | {"label_0": share}).label for share in (1, 0, 0.5)] == [1, 2, "tie"]
    assert read_one(folder, image).prompt == "a dot"
    video = read_one(folder, {"id": 7, "caption": "it moves", "chosen": "1.png", "rejected": "2.png"})
    assert (video.id, video.task, video.label, names(video.candidates)) == ("7", "video_gen", 1, ["1.png", "2.png"])
    answer = read_one(folder, {"image": "1.png", "prompt": "<image>\nWhat?", "chosen": "a dot", "rejected": "a cat"})
    assert (answer.task, answer.prompt, answer.text, answer.label) == ("image_und", "What?", None, 1)
    assert answer.candidates == ("a dot", "a cat")
    assert names(answer.context) == ["1.png"]


def test_own_fields_win_over_the_written_prompt(folder: Path) -> None:
    record = {"id": "x", "problem": "old", "solution": "Answer 2 is better", "images": ["1.png"], "question": "What?"}
    example = read_one(folder, record | {"answers": ["a", "b"], "difficulty": "hard", "votes": [1, 3]})
    assert (example.text, example.prompt, example.candidates, example.votes) == (None, "What?", ("a", "b"), (1.0, 3.0))
    assert example.meta == {"difficulty": "hard"}
    assert read_one(folder, record).text == "old"  # a question without answers fills no template


@pytest.mark.parametrize(
    ("record", "reason", "message"),
    [
        (
            sft("<image>", images=["1.png", "2.png"]),
            "media count",
            r"more images than placeholders: 2 image\(s\) for 1",
        ),
        (sft("Which?", images=["1.png", "2.png"]), "media count", "more media than placeholders: 2 for no tag"),
        (sft("<image><image><image>", images=["1.png", "2.png"]), "media count", "more placeholders than images"),
        (sft("<image>", images=["1.png", "2.png"], caption="a"), "media count", "more images than placeholders"),
        ({"caption": "a", "images": ["1.png"]}, "media count", "needs two candidates, it has 1"),
        (
            {"problem": "?", "solution": "Video 1 is better", "images": ["1.png"] * 3},
            "media count",
            "3 pictures cannot be",
        ),
        ({"problem": "?", "images": ["no.png"]}, "missing file", r"\(id d:1\): media file .*no\.png is missing"),
        ({"problem": "?", "images": ["http://x/1.png"]}, "missing file", "is not local; download it"),
        ({"problem": "?", "images": [3]}, "missing file", "media 3; needed a path"),
        ({"problem": "?", "images": ["zero.png"]}, "empty file", r"zero\.png is empty \(0 bytes\)"),
        ({"problem": "?", "videos": [["1.png"]], "fps": [1, 2]}, "media count", "2 fps values for 1 videos"),
        (
            {"problem": "?", "task": "image_und "},
            "unknown task",
            r"task 'image_und ' is unknown; did you mean 'image_und'\?",
        ),
        ({"problem": "?", "solution": "the first"}, "bad label", "solution 'the first'; needed 'Image N is better'"),
        (
            {"problem": "?", "solution": "Image 1 is better", "task": "image_und"},
            "bad label",
            "needed 'Answer N is better'",
        ),
        ({"problem": "?", "label": "a"}, "bad label", "label 'a'; needed 1, 2, ... or \"tie\""),
        ({"caption": "a", "images": ["1.png", "2.png"], "label": 3}, "bad label", "label 3, but it has 2 candidates"),
        ({"problem": "a <|image_pad|>"}, "control text", "reads as a control token"),
        ({"image_a": "1.png"}, "unknown schema", r"fields image_a; needed conversations or messages \(SFT\)"),
        ({"conversations": []}, "unknown schema", "conversations is empty or no list"),
        ({"conversations": [GPT]}, "unknown schema", "needs a human turn"),
        (
            {"conversations": [{"from": "robot", "value": "x"}]},
            "unknown schema",
            "is from 'robot' with a str; needed text",
        ),
        ({"prompt": "?", "image": "1.png", "chosen": "a"}, "unknown schema", "rejected is None; needed the text"),
        ({"problem": "?", "votes": ["many"]}, "wrong type", "votes: 0 is 'many'; needed a number"),
        ([1], "broken line", r"\[1\] where a JSON object is needed"),
    ],
)
def test_a_bad_record_is_named_or_counted(folder: Path, record: Any, reason: str, message: str) -> None:
    path = write_lines(folder, record, {"problem": "fine"})
    with pytest.raises(BadInputError, match=rf"d\.jsonl line 1.*{message}"):
        read_examples(path)
    pool = read_pool(path)
    assert [example.text for example in pool.examples] == ["fine"]
    assert pool.skipped.counts == {reason: 1}
    assert "line 1" in pool.skipped.messages[reason]


def test_a_record_without_label_where_one_is_needed(folder: Path) -> None:
    path = write_lines(folder, {"problem": "a"}, {"problem": "b", "label": "tie"}, {"problem": "c"})
    assert [example.label for example in read_examples(path)] == [None, "tie", None]
    with pytest.raises(BadInputError, match=r"line 1 \(id d:1\): no label and this stage needs one"):
        read_examples(path, require_label=True)
    assert read_pool(path, require_label=True).skipped.counts == {"no label": 2}


def test_a_broken_line_has_its_number(folder: Path) -> None:
    path = folder / "d.jsonl"
    path.write_bytes('{"problem": "a\u2028b"}\n\n{"problem": \n{"problem": "c"}\n'.encode())
    with pytest.raises(BadInputError, match=r"d\.jsonl line 3: not JSON"):
        read_examples(path)
    assert [(example.id, example.text) for example in read_pool(path).examples] == [("d:1", "a\u2028b"), ("d:4", "c")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.jsonl", None, r"no\.jsonl: no such file"),
        ("d.csv", "", "Empty CSV file.*give a csv file with a line of column names"),
        ("d.json", "[{]", "not JSON: "),
        ("d.txt", "a", r"\.txt ending; known are hf:org/name.*\.json, \.jsonl"),
        ("d.json", "{}", "an object of 0 keys where a JSON list is needed"),
        ("d.yaml", "a: [", "not readable as YAML"),
        ("d.yaml", "data: []", "needed 'datasets:', a list of entries"),
        (
            "d.yaml",
            "datasets: [{json: x}]",
            r"entry 1: key 'json' is unknown; did you mean 'json_path'\? known: json_path",
        ),
        ("d.yaml", "datasets: [{image_folder: x}]", "entry 1: json_path is missing"),
        ("d.yaml", "datasets: [{json_path: p.json, sampling_strategy: frist:2}]", r"'frist:2'.*did you mean 'first'\?"),
    ],
)
def test_files_that_cannot_be_read(folder: Path, name: str, content: str | None, message: str) -> None:
    (folder / "p.json").write_text("[]")
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(BadInputError, match=message):
        read_pool(folder / name)


@pytest.mark.parametrize(
    ("strategy", "taken"),
    [("all", "0123456789"), ("first:3", "012"), ("end:25%", "789"), ("first:99", "0123456789"), ("end:0", "")],
)
def test_mixture_strategies(folder: Path, strategy: str, taken: str) -> None:
    (folder / "p.json").write_text(json.dumps([{"problem": str(n)} for n in range(10)]))
    (folder / "m.yaml").write_text(f"datasets:\n  - json_path: p.json\n    sampling_strategy: {strategy}\n")
    assert "".join(str(example.text) for example in read_examples(folder / "m.yaml")) == taken


def test_mixture_draws_by_seed_and_joins_folders(folder: Path) -> None:
    (folder / "sub").mkdir()
    records = [{"id": str(n), "problem": "?", "image": "1.png"} for n in range(50)]
    (folder / "sub" / "p.json").write_text(json.dumps(records))
    entry = "{json_path: sub/p.json, image_folder: ., sampling_strategy: 'random:20%'}"
    (folder / "m.yaml").write_text(f"datasets: [{entry}, {entry}]")
    drawn = {seed: [example.id for example in read_examples(folder / "m.yaml", seed=seed)] for seed in (0, 0, 1)}
    assert len(drawn[0]) == len(set(drawn[0])) == 20  # ids that come again are told apart
    assert drawn[0] == [example.id for example in read_examples(folder / "m.yaml", seed=0)]
    assert drawn[0] != drawn[1]
    assert drawn[0][:10] != [name.removesuffix("#2") for name in drawn[0][10:]]  # each entry draws for itself


def test_media_root(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("records")
    record = {"problem": "?", "image": "1.png"}
    assert read_one(elsewhere, record, media_root=folder).context[0].source == str(folder / "1.png")
    with pytest.raises(BadInputError, match="is missing; paths are relative to"):
        read_one(elsewhere, record)


def examples_to_write(folder: Path) -> list[Example]:
    """Return one example of each kind, all media files of ``folder``."""
    one, two = Media("image", str(folder / "1.png")), Media("image", str(folder / "2.png"))
    clip = Media("video", [str(folder / "3.png"), str(folder / "4.png")], 2.0)
    scores = {"Aesthetics": [9, 7]}
    return [
        Example("gen", "image_gen", "a <image> of a dot", (), (one, two), 2, meta={"scores": scores, "kind": "one"}),
        Example(
            "clips", "video_gen", "it moves", (), (clip, clip), "tie", (0.5, 0.5), meta={"provenance": {"seed": 1}}
        ),
        Example(
            "und", "image_und", "What?", (one,), ("a dot", "a cat"), 1, response="<answer>Answer 2 is better</answer>"
        ),
        Example("film", "video_und", "Where?", (clip,), ("left", "right"), None),
        Example("own", "image_gen", "a dot", (), (one, two), 1, text="Look: <image> or <image>?", response="r"),
        Example("untagged", "image_gen", "", (), (one, two), 1, text="Which?", response="r"),
        Example("drill", None, "", (two, clip), text="<image> <video> describe", response="a dot"),
        Example("drill 2", "image_gen", "", (one,), text="<image> describe", response="a dot"),
        Example(
            "chat",
            None,
            "",
            (one,),
            text="Sure?",
            response="Yes.",
            meta={"history": [{"role": "user", "content": "<image>"}]},
        ),
    ]


def test_examples_come_back_as_written(folder: Path) -> None:
    examples = examples_to_write(folder)
    path = folder / "o.jsonl"
    write_examples(path, examples)
    assert read_examples(path) == examples
    pair, _, answers, *_ = (json.loads(line) for line in path.read_text().splitlines())
    assert pair["images"] == ["1.png", "2.png"]
    assert (pair["solution"], pair["caption"]) == ("Image 2 is better", "a <image> of a dot")
    assert pair["scores"] == {"Aesthetics": [9, 7]}
    assert answers["conversations"][0]["value"].startswith("<image>question: What?\nanswer 1: a dot\n")
    assert answers["solution"] == "Answer 1 is better"  # the label, not what the response says


def test_paths_are_relative_to_the_written_file(folder: Path) -> None:
    examples = examples_to_write(folder)
    write_examples(folder / "out" / "o.jsonl", examples)
    first = json.loads((folder / "out" / "o.jsonl").read_text().splitlines()[0])
    assert first["images"] == ["../1.png", "../2.png"]
    write_examples(folder / "again.jsonl", read_examples(folder / "out" / "o.jsonl"))
    again = json.loads((folder / "again.jsonl").read_text().splitlines()[0])
    assert again["images"] == ["1.png", "2.png"]


def test_arrays_become_files_beside_the_records(tmp_path: Path) -> None:
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    clip = np.stack([picture, picture[::-1]])
    examples = [
        Example("a", "image_gen", "x", candidates=(Media("image", picture), Media("image", Image.fromarray(clip[1])))),
        Example("b", "video_und", "x", (Media("video", clip, 2.0),), ("l", "r"), meta={"margin": np.int64(3)}),
    ]
    write_examples(tmp_path / "o.jsonl", examples)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["media", "o.jsonl"]  # no partial file is left
    assert len(list((tmp_path / "media").iterdir())) == 2  # equal pictures are stored once
    pair, film = read_examples(tmp_path / "o.jsonl")
    stored = [np.asarray(Image.open(item.source)) for item in pair.candidates if isinstance(item, Media)]
    np.testing.assert_array_equal(stored, clip)
    assert names(film.context) == [[Path(item.source).name for item in pair.candidates if isinstance(item, Media)]]
    assert (film.context[0].fps, film.meta) == (2.0, {"margin": 3})


def test_encoded_pictures_keep_their_bytes(folder: Path) -> None:
    content = (folder / "1.png").read_bytes()
    media = (Media("image", content), Media("image", "data:image/png;base64,AA=="))
    write_examples(folder / "o.jsonl", [Example("a", "image_gen", "x", candidates=media)])
    (example,) = read_examples(folder / "o.jsonl")
    sources = [item.source for item in example.candidates if isinstance(item, Media)]
    assert Path(sources[0]).read_bytes() == content
    assert sources[1] == "data:image/png;base64,AA=="


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="a picture given as int; needed a path"):
        write_examples(tmp_path / "o.jsonl", [Example("a", text="x", context=(Media("image", 3),))])
    with pytest.raises(BadInputError, match="neither a prompt of its own nor a task"):
        write_examples(tmp_path / "o.jsonl", [Example("a")])
    with pytest.raises(BadInputError, match="set in an example's meta cannot be written"):
        write_examples(tmp_path / "o.jsonl", [Example("a", text="x", meta={"kinds": {1}})])
    assert not (tmp_path / "o.jsonl").exists()


def test_real_records_of_llama_factory(test_data: Path) -> None:
    chats = read_examples(test_data / "llamafactory-demo" / "mllm_demo.json")
    assert len(chats) == 6
    assert [len(render(chat).images) for chat in chats] == [2, 1, 1, 2, 1, 1]
    (video, *_) = read_examples(test_data / "llamafactory-demo" / "mllm_video_demo.json")
    assert (video.task, len(render(video).videos)) == (None, 1)

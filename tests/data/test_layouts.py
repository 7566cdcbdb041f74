"""Every published layout: a record in its form is read with its task, order, label, ties, media and what is kept."""

import base64
import csv
import io
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from urt_jax.data.examples import Example, Media
from urt_jax.data.pairing import pairs_of
from urt_jax.data.settings import PoolData
from urt_jax.data.sources import read_examples, read_pool
from urt_jax.data.sources.files import Record, RecordError
from urt_jax.data.sources.layouts.row import larger
from urt_jax.data.sources.layouts.table import LAYOUTS, find_layout, layout_named
from urt_jax.data.sources.schemas import to_example
from urt_jax.errors import BadInputError
from urt_jax.files.fields import Fields


def png() -> str:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode()


CELL = {"bytes": png(), "path": "x.png"}


def said(reply: str, **media: Any) -> dict[str, Any]:
    """Return a row of a conversation with one reply."""
    tags = "<image>" * len(media.get("images", [])) + "<video>" * len(media.get("videos", []))
    turns = [{"from": "human", "value": f"{tags}Judge."}, {"from": "gpt", "value": reply}]
    return {"conversations": turns, **media}


FOUR = ["a.png", "b.png", "c.png", "d.png"]
TWO = {"images": ["a.png", "b.png"]}
CLIPS = {"videos": [["a.png", "b.png"], ["c.png", "d.png"]]}
FLEX = json.dumps(
    {
        "categories": [
            {"name": "c", "cat_winner": "Image 2", "dims": [
                {"name": "Detail", "reason_1": "x", "reason_2": "y", "score_1": 3, "score_2": 7}]}
        ],
        "winner": "Image 2",
    }
)  # fmt: skip
FEEDBACK = {
    "visual quality": 3, "temporal consistency": 2, "dynamic degree": 4, "text-to-video alignment": 1,
    "factual consistency": 3,
}  # fmt: skip


class Case(NamedTuple):
    """A row in a published form, and what is read of it."""

    layout: str
    row: dict[str, Any]
    task: str
    label: Any
    context: tuple[str, ...] = ()  # names of media without their endings
    candidates: tuple[str, ...] = ()
    more: Mapping[str, Any] = MappingProxyType({})  # further attributes, and keys of meta


CASES = [
    Case("unifiedreward_pairs", said("Image 2 is better than Image 1.", **TWO), "image_gen", 2, (), ("a", "b"),
         {"response": "Image 2 is better than Image 1."}),
    Case("unifiedreward_pairs", said("Image 1 is better.", **TWO), "image_gen", 1, (), ("a", "b")),
    Case("unifiedreward_pairs", said("Both images are equally good", **TWO), "image_gen", "tie", (), ("a", "b")),
    Case("unifiedreward_pairs", said("Both videos are equally good.", **CLIPS), "video_gen", "tie"),
    Case("unifiedreward_pairs", said("Video 1 is better.", **CLIPS), "video_gen", 1),
    Case("unifiedreward_pairs", said("Video 2 is better.", images=FOUR), "video_gen", 2),
    Case("unifiedreward_pairs", said("Answer 1 is better. It is a dog.", images=["a.png"]), "image_und", 1, ("a",)),
    Case("unifiedreward_pairs", said("Answer 2 is better. So.", videos=[["a.png"]]), "video_und", 2),
    Case("unifiedreward_points", said("dog (object): 1\nFinal Score: 3.67", images=["a.png"]), "image_score", None, (),
         ("a",), {"scores": {"Final": [3.67]}}),
    Case("unifiedreward_axes",
         said("Alignment Score (1-5): 2.69\nCoherence Score (1-5): 3\nStyle Score (1-5): 4.5", images=["a.png"]),
         "image_score", None, (), ("a",), {"scores": {"Alignment": [2.69], "Coherence": [3.0], "Style": [4.5]}}),
    Case("unifiedreward_axes",
         said("Alignment Score (1-5): 2\nPhysics Score (1-5): 3\nStyle Score (1-5): 4", videos=[["a.png", "b.png"]]),
         "video_score", None, more={"scores": {"Alignment": [2.0], "Physics": [3.0], "Style": [4.0]}}),
    Case("unifiedreward_flex", said(FLEX, **TWO), "image_gen", 2, (), ("a", "b"), {"scores": {"Detail": [3, 7]}}),
    Case("hpdv2", {"prompt": "p", "image_path": ["a.png", "b.png"], "human_preference": [0, 1]}, "image_gen", 2, (),
         ("a", "b")),
    Case("hpdv2", {"prompt": "p", "file_path": ["a.png", "b.png"], "human_preference": [1, 0]}, "image_gen", 1, (),
         ("a", "b")),
    Case("hpdv2_ranking",
         {"prompt": "p", "image_path": FOUR[:3], "rank": [2, 0, 1], "raw_annotations": [{"rank": []}]},
         "image_gen", None, (), ("a", "b", "c"), {"ranking": (3, 1, 2), "raw_annotations": [{"rank": []}]}),
    Case("hpdv3", {"prompt": "p", "path1": "a.png", "path2": "b.png", "confidence": None, "choice_dist": [9, 1],
                   "model1": "m", "model2": "n"}, "image_gen", 1, (), ("a", "b"), {"choice_dist": [9, 1]}),
    Case("image_reward",
         {"prompt": "p", "prompt_id": "7", "generations": FOUR, "ranking": [2, 1, 4, 2],
          "image_text_alignment_rating": [5, 6, 1, 5], "fidelity_rating": [3, 3, 3, 3], "overall_rating": [5, 6, 2, 5]},
         "image_gen", None, (), ("a", "b", "c", "d"),
         {"ranking": (2, 1, 4, 2), "prompt_id": "7",
          "scores": {"image_text_alignment": [5, 6, 1, 5], "fidelity": [3, 3, 3, 3], "overall": [5, 6, 2, 5]}}),
    Case("rapidata_pictures", {"prompt": "p", "image1": "a.png", "image2": "b.png", "votes_image1": 3,
                               "votes_image2": 9, "detailed_results": "[]"}, "image_gen", 2, (), ("a", "b"),
         {"votes": (3.0, 9.0), "detailed_results": "[]"}),
    Case("rapidata_pictures", {"prompt": "p", "image1": CELL, "image2": CELL, "votes_image1": 4, "votes_image2": 4},
         "image_gen", "tie"),
    Case("open_image_preferences", {"prompt": "p", "chosen": CELL, "rejected": CELL, "chosen_model": "m"},
         "image_gen", 1, more={"chosen_model": "m"}),
    Case("evalmuse", {"prompt": "p", "prompt_id": "1", "img_path": "a.png", "total_score": [3, 4, 5],
                      "promt_meaningless": 0}, "image_score", None, (), ("a",),
         {"scores": {"Alignment": [4.0]}, "raters": [3, 4, 5], "promt_meaningless": 0}),
    Case("genai_bench_pictures", {"prompt": "p", "left_image": CELL, "right_image": CELL, "left_model": "m",
                                  "vote_type": "rightvote"}, "image_gen", 2, more={"left_model": "m"}),
    Case("genai_bench_pictures", {"prompt": "p", "left_image": "a.png", "right_image": "b.png",
                                  "vote_type": "tievote"}, "image_gen", "tie", (), ("a", "b")),
    Case("genai_bench_pictures", {"prompt": "p", "left_image": "a.png", "right_image": "b.png",
                                  "vote_type": "bothbad_vote"}, "image_gen", "tie", (), ("a", "b"), {"both_bad": True}),
    Case("omni_reward_pictures", {"prompt": "p", "response1_path": "a.png", "response2_path": "b.png",
                                  "criterion": "calm", "preference": "response2"}, "image_gen", 2, (), ("a", "b"),
         {"criterion": "calm"}),
    Case("editreward_generation", {"prompt": "p", "path1": "a.png", "path2": "b.png", "model1_dim1_score": 2,
                                   "model2_dim1_score": 4}, "image_gen", 2, (), ("a", "b")),
    Case("unifiedreward_axes", said("Alignment Score (1-5): 2\nPhysics Score (1-5): 3", images=FOUR), "video_score",
         None, more={"scores": {"Alignment": [2.0], "Physics": [3.0]}}),
    Case("editreward", {"prompt": "add a taxi", "path_src": "a.png", "path1": "b.png", "path2": "c.png", "model1": "m",
                        "model2": "n", "model1_dim1_score": 4, "model2_dim1_score": 2, "model1_overall_score": 0.1,
                        "model2_overall_score": 0.9, "scores": "x", "confidence": None},
         "image_edit", 1, ("a",), ("b", "c"),
         {"scores": {"dim1": [4, 2]}, "model1": "m", "model1_overall_score": 0.1, "published_scores": "x"}),
    Case("editreward_bench", {"instruction": "i", "source_image": "a.png", "candidate_1": "b.png",
                              "candidate_2": "c.png", "ranking": "A=B"}, "image_edit", "tie", ("a",),
         ("b", "c"), {"ranking": (1, 1)}),
    Case("editreward_bench", {"instruction": "i", "source_image": "a.png", "candidate_1": "b.png",
                              "candidate_2": "c.png", "candidate_3": "d.png", "ranking": "C>A=B"}, "image_edit", None,
         ("a",), ("b", "c", "d"),
         {"ranking": (2, 2, 1)}),
    Case("genai_bench_edits", {"instruct_prompt": "i", "source_image": "a.png", "left_image": "b.png",
                               "right_image": "c.png", "vote_type": "leftvote"}, "image_edit", 1, ("a",), ("b", "c")),
    Case("videogen_rewardbench", {"path_A": "a.avi", "path_B": "b.avi", "prompt": "p", "VQ": "A", "MQ": "same",
                                  "TA": "B", "Overall": "B", "A_model": "m", "fps_A": 8, "fps_B": 9.0,
                                  "num_frames_A": 49}, "video_gen", 2, (), ("a", "b"),
         {"aspects": {"VQ": 1, "MQ": "tie", "TA": 2}, "num_frames_A": 49}),
    Case("genai_bench_clips", {"prompt": "p", "left_video": "a.avi", "right_video": "b.avi", "vote_type": "leftvote"},
         "video_gen", 1, (), ("a", "b")),
    Case("rapidata_clips", {"prompt": "p", "file_name1": "a.avi", "file_name2": "b.avi",
                            "weighted_results1_Preference": 0.4, "weighted_results2_Preference": 0.6,
                            "weighted_results1_Coherence": 0.5, "weighted_results2_Coherence": 0.5}, "video_gen", 2, (),
         ("a", "b"), {"votes": (0.4, 0.6), "aspects": {"Coherence": "tie"}}),
    Case("video_feedback", {"text prompt": "p", "images": ["a.png", "b.png"], **FEEDBACK}, "video_score", None,
         more={"scores": {name: [score] for name, score in FEEDBACK.items()}}),
    Case("video_dpo", {"video1": "a.avi", "video2": "b.avi", "frame_caption": "p"}, "video_gen", 1, (), ("a", "b")),
    Case("vl_rewardbench", {"id": "x", "query": "q?", "response": ["r", "s"], "image": "a.png", "human_ranking": [0, 1],
                            "models": ["m", "n"], "ground_truth": "", "meta": "{}"}, "image_und", 1, ("a",), ("r", "s"),
         {"models": ["m", "n"]}),
    Case("multimodal_rewardbench", {"ID": "7", "Text": "q?", "Image": "a.png", "Output1": "r", "Output2": "s",
                                    "Better": "Output2", "Category": "safety"}, "image_und", 2, ("a",), ("r", "s"),
         {"id": "7", "Category": "safety"}),
    Case("mmrb2", {"pair_id": "1", "prompt_content": [["text", "a dot"]], "response_a": [["image", "a.png"]],
                   "response_b": [["image", "b.png"]], "chosen": "B"}, "image_gen", 2, (), ("a", "b"), {"id": "1"}),
    Case("mmrb2", {"prompt_content": [["text", "red"], ["image", "a.png"]], "response_a": [["image", "b.png"]],
                   "response_b": [["image", "c.png"]], "chosen": "response_a"}, "image_edit", 1, ("a",), ("b", "c")),
    Case("mmrb2", {"prompt_content": [["text", "q?"], ["image", "a.png"]], "response_a": [["text", "r"]],
                   "response_b": [["text", "s"]], "chosen": "A"}, "image_und", 1, ("a",), ("r", "s")),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("layouts")
    for name in "abcd":
        Image.new("RGB", (4, 4), "red").save(made / f"{name}.png")
        (made / f"{name}.avi").write_bytes(b"RIFF\x00\x00\x00\x00AVI LIST" + bytes(100))
    return made


def names(items: tuple[Media | str, ...]) -> tuple[str, ...]:
    return tuple(item if isinstance(item, str) else Path(item.source).stem for item in items)


def read(folder: Path, row: dict[str, Any], **options: Any) -> Example:
    (folder / "row.jsonl").write_text(json.dumps(row))
    return read_examples(folder / "row.jsonl", **options)[0]


@pytest.mark.parametrize("case", CASES, ids=[f"{case.layout}-{n}" for n, case in enumerate(CASES)])
def test_a_row_in_the_published_form(case: Case, folder: Path) -> None:
    found = find_layout(Fields({k: v for k, v in case.row.items() if v is not None}, "row"))
    assert found is not None
    assert found.name == case.layout
    example = read(folder, case.row, require_label=True)
    assert example == read(folder, case.row, layout=case.layout), "found by its columns as by its name"
    assert (example.task, example.label) == (case.task, case.label)
    if case.context:
        assert names(example.context) == case.context
    if case.candidates:
        assert names(example.candidates) == case.candidates
    for name, value in case.more.items():
        assert (getattr(example, name) if hasattr(example, name) else example.meta[name]) == value
    if len(example.candidates) == 2 and example.swappable:
        mirrored = {1: 2, 2: 1}.get(example.label, example.label)  # type: ignore[arg-type]
        assert example.swapped().label == mirrored


def test_every_layout_has_a_row_here() -> None:
    assert {case.layout for case in CASES} == set(LAYOUTS)


def test_our_own_rows_have_no_layout() -> None:
    own = (
        {"caption": "x", "images": ["a.png", "b.png"], "label": 1},
        {"problem": "x", "solution": "Image 1 is better", "images": []},
        said("<think>x</think><answer>Image 1 is better</answer>", **TWO),
        said("A dog.", images=["a.png"]),
        {"prompt": "x", "chosen": "a", "rejected": "b"},
        {"caption": "x", "jpg_0": CELL, "jpg_1": CELL, "label_0": 0.5, "label_1": 0.5, "has_label": True},
    )
    assert [find_layout(Fields(row, "row")) for row in own] == [None] * len(own)


def test_a_ranking_with_a_tie_becomes_five_pairs_and_a_tie(folder: Path) -> None:
    (row,) = [case.row for case in CASES if case.layout == "image_reward"]
    labels = [pair.label for pair in pairs_of(read(folder, row), seed=0)]
    assert len(labels) == 6
    assert labels.count("tie") == 1


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        ("genai_bench_pictures", {"vote_type": "upvote"}, "vote_type is 'upvote'; needed 'leftvote' or 'rightvote'"),
        ("videogen_rewardbench", {"VQ": "C"}, "VQ is 'C'; needed 'A' or 'B' or 'same'"),
        ("editreward_bench", {"ranking": "A>C"}, "ranking is 'A>C'; needed an order of A, B, such as A>B"),
        ("multimodal_rewardbench", {"Better": 1}, "Better is 1; needed 'Output1' or 'Output2'"),
        ("hpdv2", {"human_preference": [1, 0, 0]}, "human_preference has 3 items; needed a list of 2"),
        ("image_reward", {"ranking": [1, 2, 3]}, "ranking has 3 items; needed a list of 4"),
        ("mmrb2", {"response_a": [["image", "a.png"], ["text", "and"]]}, "needed two pictures, or two texts"),
    ],
)
def test_a_label_that_the_layout_does_not_know_is_an_error(
    layout: str, change: dict[str, Any], message: str, folder: Path
) -> None:
    row = next(case.row for case in CASES if case.layout == layout)
    with pytest.raises(BadInputError, match=message):
        read(folder, row | change)


def test_a_row_of_two_layouts_is_refused_until_one_is_named(folder: Path) -> None:
    row = {"prompt": "p", "path1": "a.png", "path2": "b.png", "model1": "m", "model2": "n", "human_preference": [0, 1],
           "image_path": ["a.png", "b.png"]}  # fmt: skip
    with pytest.raises(BadInputError, match=r"it fits the layouts hpdv2, hpdv3; name one with data\.layout"):
        read(folder, row)
    assert read(folder, row, layout="hpdv3").label == 1
    assert read(folder, row, layout="hpdv2").label == 2


def own_layout(fields: Fields) -> dict[str, Any]:
    """Read pairs that a user has in a form of his own."""
    return {"caption": fields.text("words"), "images": [fields["good"], fields["bad"]], "label": 1}


def test_a_user_adds_a_layout(folder: Path) -> None:
    example = read(folder, {"words": "p", "good": "b.png", "bad": "a.png"}, layout=f"{__name__}:own_layout")
    assert (example.prompt, example.label, names(example.candidates)) == ("p", 1, ("b", "a"))
    for name, message in (
        ("hpdv4", "layout 'hpdv4' is unknown; did you mean 'hpdv3'"),
        ("no_such_module:f", "importing 'no_such_module' raised"),
        (f"{__name__}:gone", "has no function 'gone'"),
    ):
        with pytest.raises(BadInputError, match=message):
            layout_named(name)
        assert [key for key, _ in PoolData(path=str(folder), layout=name).file_problems()] == ["layout"]


def test_labels_of_a_layout_count_from_one_whatever_the_setting(folder: Path) -> None:
    row = next(case.row for case in CASES if case.layout == "hpdv3")
    assert read(folder, row, first_label=0).label == 1


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 9), st.floats(allow_nan=True), st.text(max_size=5), st.just([]),
    st.lists(st.one_of(st.integers(0, 3), st.text(max_size=2), st.none()), max_size=4), st.just({}),
    st.sampled_from(["A", "same", "leftvote", "A>B", "Output1", "a.png", {"bytes": "x", "path": None}]),
)  # fmt: skip


@settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_spoiled_row_is_read_or_refused_with_a_reason(data: st.DataObject, folder: Path) -> None:
    case = data.draw(st.sampled_from(CASES))
    row = dict(case.row)
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(row)))
        if data.draw(st.booleans()):
            row.pop(name, None)
        else:
            row[name] = data.draw(VALUES)
        if not row:
            return
    with suppress(RecordError):
        example = to_example(Record(row, "row", "row:1", folder), require_label=False)
        assert example.label in (None, "tie") or isinstance(example.label, int)


@pytest.mark.slow
def test_given_is_read_plus_skipped(folder: Path, tmp_path: Path) -> None:
    """10,000 rows of all layouts, a third of them spoiled: each is read, or skipped with a reason."""
    import random

    rng = random.Random(0)
    spoilt: list[Any] = [None, -1, "x", [], {}, 0.5, "A"]
    lines = []
    for n in range(10_000):
        row = dict(CASES[n % len(CASES)].row)
        if rng.random() < 1 / 3:
            row[rng.choice(sorted(row))] = rng.choice(spoilt)
        lines.append(json.dumps(row))
    (folder / "many.jsonl").write_text("\n".join(lines))
    pool = read_pool(folder / "many.jsonl")
    assert len(pool.examples) + sum(pool.skipped.counts.values()) == 10_000
    assert len(pool.examples) > 6_000
    assert set(pool.skipped.counts) == set(pool.skipped.messages)


def test_the_real_samples(test_data: Path, tmp_path: Path) -> None:
    with open(test_data / "videoalign-examples" / "example.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = [{k: float(v) if k.startswith(("fps", "num")) else v for k, v in row.items()} for row in rows]
    (tmp_path / "clips.jsonl").write_text("\n".join(map(json.dumps, numbers)))
    clips = read_examples(tmp_path / "clips.jsonl", media_root=test_data / "videoalign-examples")
    assert [clip.meta["aspects"] for clip in clips][:2] == [
        {"VQ": 2, "MQ": 2, "TA": 1}, {"VQ": "tie", "MQ": "tie", "TA": 1},
    ]  # fmt: skip
    edits = json.loads((test_data / "editreward-valid" / "valid_dataset_1.json").read_text())
    for edit in edits:
        for key in ("path_src", "path1", "path2"):
            edit[key] = {"bytes": png(), "path": edit[key]}
    (tmp_path / "edits.json").write_text(json.dumps(edits))
    read_edits = read_examples(tmp_path / "edits.json", require_label=True)
    assert len(read_edits) == 503
    assert [example.label for example in read_edits] == [
        larger(edit["model1_dim1_score"], edit["model2_dim1_score"]) for edit in edits
    ]
    assert set(read_edits[0].meta["scores"]) == {"dim1"}

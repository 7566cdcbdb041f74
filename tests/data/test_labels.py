"""Every kind of label: rankings, scores of one candidate, open answers, edits; and no label that is left unread."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from urt_jax.data.examples import Example
from urt_jax.data.sources import read_examples, read_pool, write_examples
from urt_jax.errors import BadInputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abcd":
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"{name}.png")
    return tmp_path


def read(folder: Path, record: dict[str, Any], **options: Any) -> Example:
    (folder / "r.jsonl").write_text(json.dumps(record))
    return read_examples(folder / "r.jsonl", **options)[0]


GROUP = {
    "task": "image_gen",
    "caption": "a dot",
    "images": ["a.png", "b.png", "c.png", "d.png"],
    "ranking": [2, 1, 4, 2],
}
PAIR = {"task": "image_gen", "caption": "a dot", "images": ["a.png", "b.png"]}
EDIT = {"instruction": "paint it red", "images": ["a.png", "b.png", "c.png"], "label": 2}
SCORE = {"task": "image_score", "caption": "a dot", "images": ["a.png"], "scores": {"Alignment": [4]}}
OPEN = {"task": "open", "question": "how many?", "images": ["a.png"], "solution": "seven"}


def test_a_ranking_is_read_and_needs_one_rank_a_candidate(folder: Path) -> None:
    example = read(folder, GROUP, require_label=True)
    assert (example.ranking, example.label, len(example.candidates)) == ((2, 1, 4, 2), None, 4)
    with pytest.raises(BadInputError, match="ranking has 3 items; needed a list of 4"):
        read(folder, GROUP | {"ranking": [1, 2, 3]})
    with pytest.raises(BadInputError, match="0 is 0; needed a whole number from 1"):
        read(folder, GROUP | {"ranking": [0, 1, 2, 3]})


@pytest.mark.parametrize(("ranking", "label"), [([1, 2], 1), ([2, 1], 2), ([1, 1], "tie")])
def test_of_a_pair_the_label_follows_from_the_ranks(folder: Path, ranking: list[int], label: Any) -> None:
    example = read(folder, PAIR | {"ranking": ranking})
    assert example.label == label
    assert example.swapped().ranking == tuple(ranking[::-1])
    assert read(folder, PAIR | {"ranking": ranking, "label": label}).label == label
    other = {1: 2, 2: 1, "tie": 1}[label]
    if label != "tie":
        with pytest.raises(BadInputError, match="contradicts the ranking"):
            read(folder, PAIR | {"ranking": ranking, "label": other})


def test_an_edit_shows_its_source_first(folder: Path) -> None:
    example = read(folder, EDIT)
    assert example.task == "image_edit"
    assert [len(example.context), len(example.candidates)] == [1, 2]
    assert example.context[0].source.endswith("a.png")
    assert (example.solution, example.swapped().solution) == ("Image 2 is better", "Image 1 is better")
    assert example.swapped().context == example.context
    with pytest.raises(BadInputError, match="a comparison for image_edit needs two candidates, it has 1"):
        read(folder, EDIT | {"images": ["a.png", "b.png"]})
    with pytest.raises(BadInputError, match="image_edit needs one source picture before its edits, it has 0"):
        read(folder, EDIT | {"context_images": 0})


def test_a_single_candidate_has_scores_and_no_label(folder: Path) -> None:
    example = read(folder, SCORE, require_label=True)
    assert (example.label, example.judged, example.swappable) == (None, True, False)
    assert example.meta["scores"] == {"Alignment": [4]}
    with pytest.raises(BadInputError, match="no label and this stage needs one"):
        read(folder, {key: value for key, value in SCORE.items() if key != "scores"}, require_label=True)
    with pytest.raises(BadInputError, match="a score for image_score needs one candidate, it has 2"):
        read(folder, SCORE | {"images": ["a.png", "b.png"], "scores": {"Alignment": [4, 3]}})


def test_an_open_question_has_any_solution(folder: Path) -> None:
    example = read(folder, OPEN, require_label=True)
    assert (example.answer, example.solution, example.label) == ("seven", "seven", None)
    assert len(example.context) == 1
    assert (
        read(folder, {"task": "open", "problem": "<image> how many?", "images": ["a.png"], "solution": "7"}).answer
        == "7"
    )


@pytest.mark.parametrize(
    "record", [GROUP, PAIR | {"label": "tie"}, EDIT, SCORE, OPEN], ids=["group", "tie", "edit", "score", "open"]
)
def test_it_comes_back_as_written(folder: Path, record: dict[str, Any]) -> None:
    example = read(folder, record | {"id": "x", "rater": "r", "origin": "o", "licence": "MIT", "weight": 0.5})
    assert example.meta["rater"] == "r"
    write_examples(folder / "out.jsonl", [example])
    assert read_examples(folder / "out.jsonl") == [example]


@pytest.mark.parametrize("name", ["human_preference", "rank", "vote_type", "Better", "winner", "human_ranking"])
def test_a_field_that_looks_like_a_label_is_never_dropped(folder: Path, name: str) -> None:
    with pytest.raises(
        BadInputError, match=f"{name} 1 looks like a label, and this layout is not known; write it as label"
    ):
        read(folder, PAIR | {name: 1})
    (folder / "r.jsonl").write_text(json.dumps(PAIR | {name: 1}) + "\n" + json.dumps(PAIR | {"label": 1}))
    pool = read_pool(folder / "r.jsonl")
    assert len(pool.examples) == 1
    assert pool.skipped.counts == {"unread label": 1}
    assert read(folder, PAIR | {"meta": {name: 1}}).meta[name] == 1

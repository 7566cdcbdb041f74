import re

import numpy as np
import pytest

from urt_jax.data.examples import Example
from urt_jax.errors import BadInputError
from urt_jax.scenes import PHRASES, direct_answer, make_example, write_reasoning
from urt_jax.tasks import PAPER_TASKS, TASKS
from urt_jax.tasks.replies import parse

LONGEST_FIRST = "|".join(re.escape(phrase) for phrase in sorted(PHRASES, key=len, reverse=True))
PIECE = re.compile(rf"{LONGEST_FIRST}| ?[a-z]+|\d+|[;+=\n]")


def pieces(text):
    """Cut a text into phrases, words, numbers and single signs; fails where something is left over."""
    found = PIECE.findall(text)
    assert "".join(found) == text
    return found


def records(task, count=40):
    return [make_example(task, split="heldout", seed=5, index=index) for index in range(count)]


def test_the_form_is_exact():
    example = Example(
        id="x",
        task="image_gen",
        meta={
            "candidates": [
                {"Semantic consistency": [["red", "red"]], "Aesthetics": [], "Authenticity": ["cracked"]},
                {"Semantic consistency": [["blue", "red"]], "Aesthetics": ["noisy"], "Authenticity": []},
            ]
        },
    )
    assert write_reasoning(example, np.random.default_rng(0)) == (
        "<think>\n"
        "Image 1: red (ok); clean; cracked\n"
        "Image 2: blue (no); noisy; whole\n"
        "1. Semantic consistency: Image 1 (9/10) - 0 wrong; Image 2 (6/10) - 1 wrong\n"
        "2. Aesthetics: Image 1 (9/10) - clean; Image 2 (7/10) - noisy\n"
        "3. Authenticity: Image 1 (5/10) - cracked; Image 2 (8/10) - whole\n"
        "Total score:\n"
        "Image 1: 9+9+5=23\n"
        "Image 2: 6+7+8=21\n"
        "</think>\n"
        "<answer>Image 1 is better</answer>"
    )


@pytest.mark.parametrize("task", PAPER_TASKS)
def test_a_perfect_judge_gives_the_gold_scores_and_the_label(task):
    for example in records(task):
        verdict = parse(write_reasoning(example, np.random.default_rng(0)))
        assert verdict.failure is None
        assert verdict.winner == example.label
        assert {name: list(pair) for name, pair in verdict.scores.items()} == example.meta["scores"]
        assert verdict.totals == tuple(sum(pair[side] for pair in example.meta["scores"].values()) for side in (0, 1))


@pytest.mark.parametrize("task", PAPER_TASKS)
def test_an_erring_judge_is_honest_about_what_it_misread(task):
    differing = 0
    for example in records(task):
        verdict = parse(write_reasoning(example, np.random.default_rng(example.meta["index"]), error_rate=0.15))
        assert verdict.failure is None
        sums = tuple(sum(verdict.scores[name][side] for name in TASKS[task].dimensions) for side in (0, 1))
        assert verdict.totals == sums
        if sums[0] != sums[1]:
            assert verdict.winner == (1 if sums[0] > sums[1] else 2)
        differing += {name: list(pair) for name, pair in verdict.scores.items()} != example.meta["scores"]
    assert differing > 10


def test_marks_follow_the_words_written():
    example = records("image_gen", 1)[0]
    wanted = [pair[1] for pair in example.meta["candidates"][0]["Semantic consistency"]]
    for seed in range(20):
        text = write_reasoning(example, np.random.default_rng(seed), error_rate=0.5)
        line = re.search(r"Image 1: (.*?);", text)
        seen = re.findall(r"([a-z ]+?) \((ok|no)\)", line.group(1))
        assert [mark == "ok" for _, mark in seen] == [word.strip() == want for (word, _), want in zip(seen, wanted)]


def test_a_misread_picture_changes_what_counts_as_right():
    example = make_example("image_und", split="train", seed=0, index=0)
    for seed in range(20):
        text = write_reasoning(example, np.random.default_rng(seed), error_rate=0.4)
        seen = re.search(r"Image:(.*)", text).group(1)
        for number in (1, 2):
            values = re.search(rf"Answer {number}:[^;]*;([^;]*);", text).group(1)
            marks = re.findall(r"([a-z ]+?) \((ok|no)\)", values)
            if all(mark == "ok" for _, mark in marks):
                assert all(word in seen for word, _ in marks)


def test_equal_totals_are_decided_by_chance():
    part = {"Semantic consistency": [["red", "red"]], "Aesthetics": [], "Authenticity": []}
    example = Example(id="x", task="image_gen", meta={"candidates": [part, part]})
    winners = {parse(write_reasoning(example, np.random.default_rng(seed))).winner for seed in range(20)}
    assert winners == {1, 2}


@pytest.mark.parametrize("task", PAPER_TASKS)
def test_phrases_words_and_numbers_cover_every_reasoning_shortly(task):
    lengths = []
    for example in records(task):
        for error_rate in (0.0, 0.3):
            lengths.append(len(pieces(write_reasoning(example, np.random.default_rng(0), error_rate))))
        pieces(direct_answer(example))
    assert np.mean(lengths) <= 92


@pytest.mark.parametrize("task", PAPER_TASKS)
def test_swapping_swaps_the_reasoning(task):
    example = records(task, 1)[0]
    verdict, mirrored = (parse(write_reasoning(e, np.random.default_rng(0))) for e in (example, example.swapped()))
    assert mirrored.winner == 3 - verdict.winner
    assert mirrored.scores == {name: pair[::-1] for name, pair in verdict.scores.items()}


def test_direct_answer():
    example = records("video_und", 1)[0]
    assert direct_answer(example) == f"<answer>Answer {example.label} is better</answer>"
    with pytest.raises(BadInputError, match="record x has no decided label"):
        direct_answer(Example(id="x", task="image_gen"))


def test_a_foreign_record_is_refused():
    with pytest.raises(BadInputError, match=r"record 17: only comparisons made by scenes.make_example.*\['scores'\]"):
        write_reasoning(Example(id="17", task="image_gen", meta={"scores": {}}), np.random.default_rng(0))

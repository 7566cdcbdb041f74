"""Pairs in, judgements out: orders, labels, parsing, votes, and the JSON lines."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.evals.judged import GOLD, image_pair, written
from urt_jax.data.examples import Example, Media, Query
from urt_jax.errors import BadInputError
from urt_jax.evals.pairwise import judge_pairs, judge_texts, read_judgements, write_judgements
from urt_jax.evals.protocols import PROTOCOLS

OURS = PROTOCOLS["urt"]
RIGHT = written((9, 9, 5), (6, 7, 8), 1)
MIRRORED = written((6, 7, 8), (9, 9, 5), 2)


def answers(*texts: str, votes: int = 1):  # type: ignore[no-untyped-def]
    """A judge that says these texts in turn, so many to a query, and keeps what it was asked."""
    left = list(texts)

    def generate(queries: Sequence[Query]) -> list[list[str]]:
        generate.asked += queries  # type: ignore[attr-defined]
        return [[left.pop(0) for _ in range(votes)] for _ in queries]

    generate.asked = []  # type: ignore[attr-defined]
    return generate


def test_both_orders_are_judged_against_the_mirrored_label() -> None:
    generate = answers(RIGHT, MIRRORED)
    given, swapped = judge_pairs([image_pair("a")], generate, protocol=OURS)
    assert (given.order, given.label, given.correct) == ("given", 1, True)
    assert (swapped.order, swapped.label, swapped.correct) == ("swapped", 2, True)
    assert swapped.gold_scores == {name: (float(b), float(a)) for name, (a, b) in GOLD.items()}
    assert [request.id for request in generate.asked] == ["a", "a#swapped"]
    first, second = (request.chat.images for request in generate.asked)
    assert first[0].source[0, 0, 0] == 40
    assert second[0].source[0, 0, 0] == 200


def test_always_the_first_is_right_once() -> None:
    judged = judge_pairs([image_pair("a")], answers(RIGHT, RIGHT), protocol=OURS)
    assert [j.correct for j in judged] == [True, False]


def test_what_does_not_parse_is_wrong_and_says_why() -> None:
    (judged,) = judge_pairs(
        [image_pair("a")], answers("Image 1 is better"), protocol=dataclasses.replace(OURS, orders="given")
    )
    assert not judged.correct
    assert judged.verdict.winner is None
    assert judged.verdict.failure
    assert judged.agreement is None
    assert judged.text == "Image 1 is better"


def test_agreement_wants_honest_sums_and_an_answer_that_follows() -> None:
    pair = image_pair("a")
    assert judge_texts(pair, [RIGHT]).agreement is True
    assert judge_texts(pair, [written((9, 9, 5), (6, 7, 8), 2)]).agreement is False
    assert judge_texts(pair, [written((9, 9, 5), (6, 7, 8), 1, carry=1)]).agreement is False


def test_gold_match_counts_scores_that_are_exactly_right() -> None:
    pair = image_pair("a")
    assert judge_texts(pair, [RIGHT]).gold_match == 1.0
    assert judge_texts(pair, [written((9, 9, 4), (6, 6, 8), 1)]).gold_match == pytest.approx(4 / 6)
    without = dataclasses.replace(pair, meta={})
    assert judge_texts(without, [RIGHT]).gold_match is None


def test_novelty_is_told_where_it_is_known() -> None:
    given = [{"unseen": True}, {"unseen": False}, {}]
    assert [judge_texts(image_pair("a", **meta), [RIGHT]).novelty for meta in given] == ["unseen", "seen", None]


def test_a_direct_answer_has_a_verdict_and_no_agreement() -> None:
    direct = OURS.in_mode("direct")
    generate = answers("<answer>Image 1 is better</answer>", "<answer>Image 1 is better</answer>")
    judged = judge_pairs([image_pair("a")], generate, protocol=direct)
    assert [(j.verdict.winner, j.agreement, j.gold_match) for j in judged] == [(1, None, None)] * 2
    asked = [part["text"] for part in generate.asked[0].chat.messages[0]["content"] if part["type"] == "text"]
    assert "think" not in asked[0]


def test_clips_and_written_answers_are_judged_too() -> None:
    clip = np.zeros((2, 28, 28, 3), np.uint8)
    video = Example(
        id="v", task="video_gen", prompt="it moves", candidates=(Media("video", clip), Media("video", clip)), label=2
    )
    und = Example(
        id="u",
        task="image_und",
        prompt="what colour?",
        context=(Media("image", np.zeros((28, 28, 3), np.uint8)),),
        candidates=("it is red", "it is blue"),
        label=2,
    )
    direct = OURS.in_mode("direct")
    said = ["Video 2", "Video 1", "Answer 1", "Answer 1"]
    judged = judge_pairs([video, und], answers(*[f"<answer>{x} is better</answer>" for x in said]), protocol=direct)
    assert [j.correct for j in judged] == [True, True, False, True]
    assert judged[0].media == ("<video in memory 2x28x28x3>",) * 2
    assert judged[2].answers == ("it is red", "it is blue")
    assert judged[3].answers == ("it is blue", "it is red")


def test_a_record_with_its_own_prompt_text_is_judged_in_its_order_only() -> None:
    fixed = Example(
        id="t",
        task="image_und",
        text="<image>Answer 1: red. Answer 2: blue. Which?",
        context=(Media("image", np.zeros((28, 28, 3), np.uint8)),),
        candidates=("red", "blue"),
        label=1,
    )
    (judged,) = judge_pairs([fixed], answers(written((9, 9, 9), (1, 1, 1), 1)), protocol=OURS)
    assert judged.order == "given"


def test_votes_are_merged_by_majority_and_a_draw_is_no_verdict() -> None:
    other = written((1, 1, 1), (9, 9, 9), 2)
    protocol = dataclasses.replace(OURS, votes=3, orders="given")
    generate = answers(other, RIGHT, RIGHT, other, RIGHT, "nothing", votes=3)
    majority, drawn = judge_pairs([image_pair("a"), image_pair("b")], generate, protocol=protocol)
    assert [query.id for query in generate.asked] == ["a", "b"]
    assert (majority.verdict.winner, majority.vote_counts) == (1, (2, 1, 0))
    assert majority.text == RIGHT
    assert (drawn.verdict.winner, drawn.vote_counts, drawn.correct) == (None, (1, 1, 1), False)
    assert drawn.verdict.failure == "the votes are drawn: 1 for 2, 1 for 1"


def test_queries_come_in_calls_of_limited_size_and_progress_is_told() -> None:
    sizes: list[int] = []
    told: list[tuple[int, int]] = []

    def generate(queries: Sequence[Query]) -> list[tuple[str]]:
        sizes.append(len(queries))
        return [(RIGHT,)] * len(queries)

    def progress(done: int, total: int) -> None:
        told.append((done, total))

    pairs = [image_pair(str(n)) for n in range(5)]
    judged = judge_pairs(pairs, generate, protocol=OURS, queries_per_call=4, progress=progress)
    assert sizes == [4, 4, 2]
    assert told == [(4, 10), (8, 10), (10, 10)]
    assert [j.id for j in judged] == [str(n) for n in range(5) for _ in range(2)]


def test_no_label_and_no_pair_are_errors_before_anything_is_generated() -> None:
    generate = answers()
    with pytest.raises(BadInputError, match=r"record b has no label.*give it one"):
        judge_pairs([image_pair("a"), image_pair("b", label=None)], generate, protocol=OURS)
    three = dataclasses.replace(image_pair("c"), candidates=image_pair("c").candidates + image_pair("c").candidates[:1])
    with pytest.raises(BadInputError, match=r"record c: a judgement needs .* 3 candidates"):
        judge_pairs([three], generate, protocol=OURS)
    assert generate.asked == []


def test_a_generator_that_loses_a_response_is_caught() -> None:
    with pytest.raises(ValueError, match=r"asked for 2 queries with 1 votes each and gave \[1\] texts"):
        judge_pairs([image_pair("a")], lambda queries: [(RIGHT,)], protocol=OURS)


def test_json_lines_round_trip(tmp_path: Path) -> None:
    pair = dataclasses.replace(
        image_pair("ä/1", prompt_group="p7"), candidates=(Media("image", "pictures/a.png"), Media("image", b"png"))
    )
    clip = Example(
        id="v",
        task="video_gen",
        candidates=(Media("video", ["f0.png", "f1.png"]), Media("video", Path("clip.gif"))),
        label="tie",
    )
    judged = [
        judge_texts(pair, [RIGHT, RIGHT, "line one\nline two\u2028"]),
        judge_texts(pair.swapped(), ["no verdict"], order="swapped"),
        judge_texts(clip, ["<answer>Video 1 is better</answer>"], think=False),
    ]
    assert judged[0].media == ("pictures/a.png", "<image in memory>")
    assert judged[2].media == (("f0.png", "f1.png"), "clip.gif")
    path = tmp_path / "records" / "judgements.jsonl"
    write_judgements(path, judged)
    assert read_judgements(path) == judged
    assert len(path.read_bytes().splitlines()) == 3
    assert [item.name for item in path.parent.iterdir()] == ["judgements.jsonl"]


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    write_judgements(path, [judge_texts(image_pair("a"), [RIGHT])])
    for broken in ('{"id": "b"', '{"id": "b"}', "[1]"):
        path.write_text(path.read_text().splitlines()[0] + "\n" + broken + "\n")
        with pytest.raises(BadInputError, match=r"j\.jsonl line 2: "):
            read_judgements(path)
    with pytest.raises(BadInputError, match=r"none\.jsonl: no such file"):
        read_judgements(tmp_path / "none.jsonl")

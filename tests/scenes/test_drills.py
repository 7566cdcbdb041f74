import re

import numpy as np
import pytest

from urt_jax.errors import BadInputError
from urt_jax.scenes import DRILLS, PHRASES, make_drill
from urt_jax.scenes.drills import SCENE_WORD
from urt_jax.scenes.scales import SCALES
from urt_jax.scenes.world import CATEGORY_OF, DRILL_WORDS
from urt_jax.tasks.replies import parse

LONGEST_FIRST = "|".join(re.escape(phrase) for phrase in sorted(PHRASES, key=len, reverse=True))
PIECE = re.compile(rf"{LONGEST_FIRST}| ?[a-z]+|\d+|[;+=\n]")

ONLY_DRILLED = {f" {word}" for words in DRILL_WORDS.values() for word in words}


def drills(kind, split="train", count=30, **knobs):
    return [make_drill(kind, split=split, seed=2, index=index, **knobs) for index in range(count)]


@pytest.mark.parametrize("kind", DRILLS)
def test_placeholders_match_the_media_and_the_response_is_made_of_known_pieces(kind):
    for drill in drills(kind):
        assert re.findall(r"<(image|video)>", drill.text) == [medium.kind for medium in drill.context]
        assert not drill.candidates
        assert "".join(PIECE.findall(drill.response)) == drill.response


@pytest.mark.parametrize("kind", DRILLS)
def test_the_same_arguments_give_the_same_drill(kind):
    first, second = (make_drill(kind, split="train", seed=2, index=4) for _ in range(2))
    assert (first.text, first.response) == (second.text, second.response)
    assert all(np.array_equal(a.source, b.source) for a, b in zip(first.context, second.context))


@pytest.mark.parametrize("wide", [0.0, 1.0])
@pytest.mark.parametrize("kind", [kind for kind in DRILLS if kind != "sums"])
def test_training_drills_never_name_a_held_out_pair(kind, wide):
    text = " ".join(f"{drill.text} {drill.response}" for drill in drills(kind, count=100, wide=wide))
    assert not re.search(r"(purple( \(..\))? triangle|green( \(..\))? circle|yellow( \(..\))? square)", text)
    assert any(drill.meta["unseen"] for drill in drills(kind, split="heldout"))


@pytest.mark.parametrize("kind", [kind for kind in DRILLS if kind != "sums"])
def test_a_wide_share_of_the_drills_holds_words_that_comparisons_never_do(kind):
    def widened(wide):
        found = drills(kind, count=60, wide=wide)
        return sum(bool(set(SCENE_WORD.findall(f"{drill.text} {drill.response}")) & ONLY_DRILLED) for drill in found)

    assert widened(0.0) == 0
    assert 15 < widened(0.5) < widened(1.0)
    assert widened(1.0) > 48


@pytest.mark.parametrize("kind", ["check", "check_clip", "check_answer"])
def test_checks_score_their_own_marks_and_add_up(kind):
    for drill in drills(kind):
        marks, scores = drill.response.rsplit(" | ", 1)
        parts = marks.split("\n")[-1].split(";")
        terms, total = scores.split("=")
        assert sum(map(int, terms.split("+"))) == int(total)
        first = SCALES["image_gen"][0].score(parts[0].count("(no)"))
        assert int(terms.split("+")[0]) == first


def test_a_text_check_compares_caption_and_description():
    for drill in drills("check_text"):
        described = re.match(r"(?:Image|Video):(.*)", drill.text).group(1)
        marked = re.sub(r" \((ok|no)\)", "", drill.response.split(" | ")[0].split(":")[1])
        assert marked == described
        assert int(drill.response.split(" | ")[1]) == SCALES["image_gen"][0].score(drill.response.count("(no)"))


def test_sums_and_comparisons_are_right():
    seen = set()
    for drill in drills("sums", count=100):
        if "+" in drill.text:
            seen.add("sum")
            assert drill.response == f"={sum(map(int, drill.text.split('+')))}"
        else:
            seen.add("compare")
            first, second = map(int, drill.text.split(" or "))
            assert drill.response == f"<answer>Image {1 if first > second else 2} is better</answer>"
    assert seen == {"sum", "compare"}


def test_a_conclusion_completes_its_observation_to_a_whole_reasoning():
    for drill in drills("conclude"):
        verdict = parse(f"<think>\n{drill.text.removesuffix(chr(10) + 'Conclude.')}{drill.response}")
        assert verdict.failure is None
        assert verdict.winner == (1 if verdict.margin > 0 else 2)


def test_an_observation_is_how_a_reasoning_begins():
    seen = set()
    for drill in drills("observe", count=60):
        noun = "Answer" if "question:" in drill.text else drill.context[0].kind.capitalize()
        *context, first, second = drill.response.split("\n")
        assert (first.split(":")[0], second.split(":")[0]) == (f"{noun} 1", f"{noun} 2")
        assert bool(context) == (noun == "Answer")
        assert len(drill.context) == (1 if context else 2)
        for line in (first, second):
            assert re.fullmatch(rf"{noun} .:( [a-z ]+ \((ok|no)\))+;.+;.+", line)
        seen.add((noun, drill.context[0].kind))
    assert seen == {("Image", "image"), ("Video", "video"), ("Answer", "image"), ("Answer", "video")}


def test_a_described_pair_has_a_line_for_each_picture():
    drill = drills("describe_pair", count=1)[0]
    assert re.fullmatch(r"Image 1: .+;.+;.+\nImage 2: .+;.+;.+", drill.response)


SEEING = [kind for kind in DRILLS if kind not in ("check_text", "sums", "conclude")]


@pytest.mark.parametrize("kind", SEEING)
def test_misread_words_change_what_is_read_and_what_follows_from_it_but_not_the_words_to_learn(kind):
    slips = 0
    for index in range(40):
        plain, misread = (make_drill(kind, split="train", seed=2, index=index, misread=p) for p in (0.0, 0.4))
        assert (misread.text, plain.input_response) == (plain.text, None)
        assert SCENE_WORD.findall(misread.response) == SCENE_WORD.findall(plain.response)
        read = SCENE_WORD.findall(misread.input_response)
        assert [CATEGORY_OF[word[1:]] for word in read] == [
            CATEGORY_OF[word[1:]] for word in SCENE_WORD.findall(plain.response)
        ]
        assert SCENE_WORD.sub("_", misread.input_response) == SCENE_WORD.sub("_", misread.response)
        slips += misread.input_response != misread.response
    assert slips > 20


def test_marks_and_scores_follow_from_the_misread_word():
    for index in range(60):
        drill = make_drill("check", split="train", seed=2, index=index, misread=0.4)
        caption = SCENE_WORD.findall(drill.text)
        read = SCENE_WORD.findall(drill.input_response)
        marks = re.findall(r"\((ok|no)\)", drill.input_response)
        assert marks == ["ok" if said == wanted else "no" for said, wanted in zip(read, caption)]
        scores = drill.input_response.rsplit(" | ", 1)[1]
        assert int(scores.split("+")[0]) == SCALES["image_gen"][0].score(marks.count("no"))


@pytest.mark.parametrize("kind", ["check_text", "sums", "conclude"])
def test_what_stands_in_the_prompt_is_never_misread(kind):
    assert all(make_drill(kind, split="train", seed=2, index=i, misread=0.9).input_response is None for i in range(20))


def test_an_unknown_drill_is_refused():
    with pytest.raises(BadInputError, match=r"drill 'describ' is unknown; did you mean 'describe'\? known: describe, "):
        make_drill("describ", split="train", seed=0, index=0)

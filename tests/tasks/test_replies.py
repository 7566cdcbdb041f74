"""The strict form, both written variants, every failure by its name, and linear time."""

import time

import pytest

from urt_jax.tasks.replies import Verdict, parse, read_scores, read_totals

V1 = """<think>
Image 1: large (ok) red (ok) circle (ok); clean; cracked
Image 2: large (ok) blue (no) circle (ok); noisy; whole
1. Semantic consistency: Image 1 (9/10) - 0 wrong; Image 2 (6/10) - 1 wrong
2. Aesthetics: Image 2 (7/10) - noisy; Image 1 (9/10) - clean
3. Authenticity: Image 1 (5/10) - cracked; Image 2 (8/10) - whole
Total score:
Image 1: 9+9+5=23
Image 2: 6+7+8=21
</think>
<answer>Image 1 is better</answer>"""

V2 = f"""<think>
1. Semantic consistency:{" "}
    Video 1 (4/10) - loses the dog: it is gone after a second. Nothing else fits;{" "}
    Video 2 (7.5/10) - shows all of it
2. Temporal coherence:
    - Video 2 (8/10) - smooth
    - Video 1 (6/10) - jumps
Total score:
Video 1: 4+6=10
Video 2: 7.5+8=15.5
</think>

<answer> Video 2 is better </answer>"""


def test_one_line_form():
    verdict = parse(V1)
    assert (
        verdict
        == Verdict(
            winner=1,
            scores={
                "Semantic consistency": (9.0, 6.0),
                "Aesthetics": (9.0, 7.0),  # written in the other order
                "Authenticity": (5.0, 8.0),
            },
            totals=(23.0, 21.0),
            margin=2.0,
            reasoning=V1[len("<think>") : V1.index("</think>")].strip(),
            text=V1,
            failure=None,
        )
    )


def test_block_form():
    verdict = parse(V2)
    assert verdict.failure is None
    assert verdict.winner == 2
    assert verdict.scores == {"Semantic consistency": (4.0, 7.5), "Temporal coherence": (6.0, 8.0)}
    assert (verdict.totals, verdict.margin) == ((10.0, 15.5), -5.5)


@pytest.mark.parametrize(
    ("label", "winner"),
    [
        ("Image 1 is better", 1),
        ("Video 2 is better", 2),
        ("Answer 1 is better", 1),
        ("  Answer 2 is better\n", 2),
        ("Both images are equally good", "tie"),
    ],
)
def test_labels(label, winner):
    verdict = parse(f"<think>x</think><answer>{label}</answer>")
    assert (verdict.winner, verdict.failure) == (winner, None)


@pytest.mark.parametrize("ends", ["<|im_end|>", "<|im_end|>\n<|endoftext|> \n", "\n", "<|endoftext|>" * 3])
def test_surrounding_whitespace_and_end_tokens_are_dropped(ends):
    assert parse(f" \n{V1}{ends}").winner == 1


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("", "no <think>"),
        ("Image 1 is better", "no <think>"),
        ("<answer>Image 1 is better</answer>", "no <think>"),
        ("<think>x", "no </think>"),
        ("<think>x</think>", "no <answer>"),
        ("<think>x</think><answer>Image 1 is better", "no </answer>"),
        ("<think>x</think><answer>Image 1 is better</answer><answer>Image 1 is better</answer>", "two <answer> tags"),
        ("<think>x<think></think><answer>Image 1 is better</answer>", "two <think> tags"),
        ("<think>x</think><answer>Image 1 is better" + "</answer>" * 7, "7 </answer> tags"),
        ("Sure! <think>x</think><answer>Image 1 is better</answer>", "text before <think>"),
        ("<|im_end|><think>x</think><answer>Image 1 is better</answer>", "text before <think>"),
        ("<think>x</think> so <answer>Image 1 is better</answer>", "text between </think> and <answer>"),
        ("<think>x</think><answer>Image 1 is better</answer>.", "text after </answer>"),
        (
            "<think>x<answer>Image 1 is better</answer></think>",
            "tags out of order: <think> <answer> </answer> </think>",
        ),
        (
            "<think>x</think><answer>image 1 is better</answer>",
            "answer is not one of 'Image|Video|Answer 1|2 is better': 'image 1 is better'",
        ),
        (
            "<think>x</think><answer></answer>",
            "answer is not one of 'Image|Video|Answer 1|2 is better': ''",
        ),
        (
            "<think>x</think><answer>Image 1 is better than Image 2</answer>",
            "answer is not one of 'Image|Video|Answer 1|2 is better': 'Image 1 is better than Image 2'",
        ),
    ],
)
def test_failures_name_the_reason(text, failure):
    verdict = parse(text)
    assert (verdict.winner, verdict.failure) == (None, failure)


def test_a_direct_answer_needs_think_false():
    assert parse("<answer>Image 2 is better</answer>").failure == "no <think>"
    assert parse(" <answer>Image 2 is better</answer><|im_end|>", think=False).winner == 2
    assert parse(V1, think=False).winner == 1
    assert parse("<think>x<answer>Image 2 is better</answer>", think=False).failure == "no </think>"
    assert parse("I say <answer>Image 2 is better</answer>", think=False).failure == "text before <answer>"


def test_scores_survive_a_broken_answer():
    verdict = parse(V1.replace("</think>", ""))
    assert verdict.failure == "no </think>"
    assert verdict.totals == (23.0, 21.0)
    assert len(verdict.scores) == 3
    assert verdict.reasoning.endswith("6+7+8=21")


def test_dimensions_with_both_scores_up_to_ten_count():
    reasoning = """Image 1 (2/10) - first look; Image 2 (3/10) - first look
1. Clarity: Image 1 (9/10) - a
2. Correctness: Image 1 (11/10) - a; Image 2 (7/10) - b
3. Extra: Image 1 (0/10) - a. Unlike Image 2 (1/10) here; Image 2 (10/10) - b
3. Extra: Image 1 (5/10) - again; Image 2 (5/10) - again
Aesthetics: Image 1 (9/10) - a; Image 2 (7/10) - b
Total score:
4. Late: Image 1 (9/10) - a; Image 2 (7/10) - b"""
    assert read_scores(reasoning) == {"Extra": (0.0, 1.0), "Extra (2)": (5.0, 5.0), "Aesthetics": (9.0, 7.0)}


def test_totals_are_as_written_and_only_after_their_heading():
    reasoning = "Image 1: 1+1=2\nTotal score: \nImage 1: 9 + 8 = 18\nImage 2: =7\nImage 2: 6+1=7\nnothing"
    totals = read_totals(reasoning)
    assert totals[1] == ((9.0, 8.0), 18.0)
    assert totals[2] == (None, 7.0)
    assert read_totals("Image 1: 1+1=2") == {}
    assert parse(V1.replace("Image 2: 6+7+8=21\n", "")).totals is None
    assert parse(V1.replace("Image 2: 6+7+8=21\n", "")).margin is None


@pytest.mark.parametrize(
    "text",
    [
        "<think>" * 20_000,
        "<think>" + "1." + " " * 100_000 + "x",
        "<think>" + "1. a: " + "Image 1 (" * 12_000,
        "<think>" + "1. a\n" * 25_000,
        "<think>1." + "1." * 50_000 + "</think>",
        "<think>Total score:\nImage 1:" + "9+" * 50_000 + "</think>",
        "<think>Total score:\nImage 1:" + " " * 100_000 + "</think>",
        "<think>Total score:\nImage 1: 1=" + " " * 100_000 + "x</think>",
        "<think>x</think><answer>Image 1 is better</answer>" + " <|im_end|>" * 10_000,
        "<think>x</think>" + "\n" * 100_000 + "<answer>Image 1 is better</answer>",
        "9" * 100_000,
    ],
    ids=range(11),
)
def test_long_texts_take_linear_time(text):
    start = time.perf_counter()
    parse(text)
    assert time.perf_counter() - start < 1.0  # quadratic would take minutes

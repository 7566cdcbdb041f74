"""Forms of replies by hand: what each reads, why it refuses, and that any text takes linear time."""

import json
import random
import time
from typing import Any

import pytest

from urt_jax.errors import BadInputError
from urt_jax.rewards.verifiable import consistency_reward, score_agreement
from urt_jax.tasks.forms import FORMS, read_form
from urt_jax.tasks.replies import parse

THINK = "<think>\n1. A: Image 1 (9/10) - x; Image 2 (6/10) - y\nTotal score:\nImage 1: 9=9\nImage 2: 6=6\n</think>\n"
FLEX: dict[str, Any] = {
    "categories": [{"name": "c", "cat_winner": "Image 2", "dims": [
        {"name": "Detail", "reason_1": "x", "reason_2": "y", "score_1": 3, "score_2": 7},
        {"name": "Light", "reason_1": "x", "reason_2": "y", "score_1": 6.5, "score_2": 3.5}]}],
    "winner": "Image 2",
}  # fmt: skip

READ = [
    ("think", THINK + "<answer>Image 1 is better</answer>", 1, {"A": (9, 6)}),
    ("think_lenient", THINK + "<answer>Image 1 is better.</answer> So it is.", 1, {"A": (9, 6)}),
    ("think_lenient", THINK[7:] + "<answer>Image 2 is better than Image 1.</answer>", 2, {"A": (9, 6)}),
    ("think_lenient", "<answer>Image 1 is better</answer> <answer>Both images are equally good</answer>", "tie", {}),
    ("think_lenient", "<answer>Video 2 is better", 2, {}),
    ("sentence", "Image 1 is better than Image 2.", 1, {}),
    ("sentence", " Answer 2 is better. It names the dog.<|im_end|>", 2, {}),
    ("sentence", "Both videos are equally good", "tie", {}),
    ("final_score", "dog (object): 1\nred (color): 0\nFinal Score: 3.67", None,
     {"dog (object)": (1,), "red (color)": (0,), "Final": (3.67,)}),
    ("final_score", "Final Score: 4", None, {"Final": (4,)}),
    ("axis_scores", "Alignment Score (1-5): 2.69\nCoherence Score (1-5): 3\n**Style Score (1-5):** 4.5", None,
     {"Alignment": (2.69,), "Coherence": (3,), "Style": (4.5,)}),
    ("pair_scores", "Alignment: 0.6, 0.4\nStyle: Image 1: 0.25; Image 2: 0.75", 2,
     {"Alignment": (0.6, 0.4), "Style": (0.25, 0.75)}),
    ("pair_scores", "Alignment: 0.5, 0.5", "tie", {"Alignment": (0.5, 0.5)}),
    ("edit_scores", 'So:\n{"reasoning": "fine", "score": [20, 12.5]}', None,
     {"instruction": (20,), "quality": (12.5,)}),
    ("flex", f"```json\n{json.dumps(FLEX)}\n```", 2, {"Detail": (3, 7), "Light": (6.5, 3.5)}),
    ("flex", json.dumps(FLEX | {"winner": "tie"}), "tie", {"Detail": (3, 7), "Light": (6.5, 3.5)}),
    ("letters", "My verdict is [[A]].", 1, {}),
    ("letters", "[[B>A]] ... [[B>>A]]", 2, {}),
    ("letters", "[[A=B]]", "tie", {}),
    ("letters", "[[C]]", "tie", {}),
    ("overall_judgment", "Overall Judgment: Answer 1 is better.", 1, {}),
    ("overall_judgment", "Overall Judgment: **Both answers are equally good**", "tie", {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "text", "winner", "scores"), READ, ids=[f"{one[0]}-{n}" for n, one in enumerate(READ)]
)
def test_it_reads(form: str, text: str, winner: Any, scores: dict[str, Any]) -> None:
    reading = read_form(form, text)
    assert reading.failure is None
    assert reading.winner == winner
    assert dict(reading.scores) == scores


REFUSED = [
    ("think", THINK + "<answer>Image 1 is better.</answer>", "answer is not one of"),
    ("think_lenient", "Image 1 is better", "no <answer>"),
    ("think_lenient", "<answer>I think Image 1 is better</answer>", "answer is no verdict: 'I think"),
    ("think_lenient", "<answer>Image 1 is better or not</answer>", "answer is no verdict"),
    ("sentence", "I think Image 1 is better", "starts with no verdict"),
    ("sentence", "Image 1 is better. But Image 2 is better.", "2 different verdicts"),
    ("final_score", "Score: 3", "0 different final scores"),
    ("final_score", "Final Score: 3\nFinal Score: 4", "2 different final scores"),
    ("axis_scores", "Alignment Score (1-5): 6", "Alignment is 6, outside 1 to 5"),
    ("axis_scores", "Alignment Score (1-5): 2\nAlignment Score (1-5): 3", "Alignment has different scores"),
    ("axis_scores", "Alignment: 3", "no line 'Axis Score"),
    ("pair_scores", "Alignment: 0.6, 0.6", "the scores of Alignment do not sum to 1"),
    ("pair_scores", "nothing", "no line 'Dimension: x, y'"),
    ("edit_scores", '{"score": [20, 26]}', "1 is 26; needed"),
    ("edit_scores", '{"score": [20]}', "score has 1 items"),
    ("edit_scores", "{", "no JSON object"),
    ("edit_scores", "{'score': 1}", "its JSON cannot be read"),
    ("flex", json.dumps(FLEX | {"winner": "neither"}), "winner is 'neither'"),
    ("flex", json.dumps(FLEX).replace('"score_1": 3', '"score_1": 4'), "the scores of Detail do not sum to 10"),
    ("flex", json.dumps({"winner": "Image 1"}), "categories is missing"),
    ("letters", "A", r"no [[A]] or [[B]]"),
    ("letters", "[[A]] [[B]]", "2 different verdicts"),
    ("overall_judgment", "Answer 1 is better", "no 'Overall Judgment:'"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "text", "why"), REFUSED)
def test_it_refuses_with_a_reason_and_no_number(form: str, text: str, why: str) -> None:
    reading = read_form(form, text)
    assert why in str(reading.failure)
    assert (reading.winner, dict(reading.scores), reading.totals) == (None, {}, None)


def test_every_form_is_read_and_refused_here() -> None:
    assert {one[0] for one in READ} == {one[0] for one in REFUSED} == set(FORMS)
    with pytest.raises(BadInputError, match=r"reply form 'flux' is unknown; did you mean 'flex'\?"):
        read_form("flux", "")


BLOCKS = """<think>
1. Semantic consistency:
    Image 1 (9/10) - a: b;
    Image 2 (6/10) - c
2. Aesthetics:
    Image 1 (8/10) - d;
    Image 2 (7/10) - e
3. Authenticity:
    Image 1 (7/10) - f;
    Image 2 (7/10) - g
Fidelity of style:
    Image 1 (6/10) - h;
    Image 2 (5/10) - i
Total score:
Image 1: 9+8+7+6=30
Image 2: 6+7+7+5=25
</think>
<answer>Image 1 is better</answer>"""


def test_a_fourth_dimension_without_a_number_counts() -> None:
    verdict = parse(BLOCKS)
    assert list(verdict.scores) == ["Semantic consistency", "Aesthetics", "Authenticity", "Fidelity of style"]
    assert score_agreement(verdict)
    assert consistency_reward(BLOCKS) == 1
    assert consistency_reward(BLOCKS.replace("+6=30", "=24")) == 0


@pytest.mark.parametrize("form", FORMS)
def test_any_text_takes_linear_time(form: str) -> None:
    for piece in ("Image 1 is better", "<answer>", "A Score (1-5): 1\n", "x (y): 1\n", "[[A", "{", "Final Score: 1",
                  "A: 1, 1\n", " " * 9, "*", "Overall Judgment: ", "A A A A A A A A "):  # fmt: skip
        started = time.process_time()
        read_form(form, piece * (400_000 // len(piece)))
        assert time.process_time() - started < 5


@pytest.mark.parametrize("form", FORMS)
def test_no_text_raises(form: str) -> None:
    rng = random.Random(form)
    texts = [one[1] for one in READ]
    for _ in range(300):
        text = rng.choice(texts)
        start, end = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        text = text[:start] + rng.choice(("", "\x00", "9" * 30, "\ud800", "{}", "[1]", "tie")) + text[end:]
        reading = read_form(form, text)
        assert (reading.failure is None) is (reading.winner is not None or bool(reading.scores))

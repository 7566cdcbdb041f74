"""Scores of one candidate: expected values by hand, their tokens, and the judge's own probabilities."""

import math
from typing import Any

import numpy as np
import pytest

from urt_jax import RewardModel
from urt_jax.checkpoints.model_folder import load_model
from urt_jax.data.examples import Example, Media
from urt_jax.data.prompts import render
from urt_jax.errors import BadInputError
from urt_jax.evals.alone import singles_of, verdict_of_scores
from urt_jax.judge.scoring import Score, Vocabulary, expected_number, numbers_of
from urt_jax.scenes import direct_answer, make_example

WORDS = ["a", "1", "2", " 3", "5", "9", ".", "25", "4.5", "12"]


class Tokens:
    """A tokenizer of ten tokens."""

    def __len__(self) -> int:
        return len(WORDS)

    def batch_decode(self, ids: list[list[int]]) -> list[str]:
        return [WORDS[n] for (n,) in ids]


VOCABULARY = Vocabulary(Tokens(), 12)


def logits(**shares: float) -> np.ndarray:
    """Return a row of logits with these probabilities, given by "w" and the token's number."""
    row = np.full(12, -50.0, np.float32)
    for name, share in shares.items():
        row[int(name[1:])] = math.log(share)
    return row


def test_the_mean_of_whole_numbers_within_the_scale() -> None:
    rows = logits(w1=0.1, w2=0.2, w3=0.2, w5=0.3, w0=0.2)  # 1, 2, 3 count; 9 is beyond the scale, "a" no number
    assert expected_number(rows[None], ["2"], (1, 5), VOCABULARY) == pytest.approx((0.1 + 0.4 + 0.6) / 0.5)
    assert expected_number(rows[None], ["2"], (1, 10), VOCABULARY) == pytest.approx((0.1 + 0.4 + 0.6 + 2.7) / 0.8)


def test_decimals_add_their_mean_and_the_sum_stays_in_the_scale() -> None:
    whole, point, digits = logits(w1=0.5, w2=0.5), logits(w6=1.0), logits(w4=0.5, w7=0.5)
    found = expected_number(np.stack([whole, point, digits]), ["1", ".", "25"], (1, 5), VOCABULARY)
    assert found == pytest.approx(1.5 + 0.5 * 0.5 + 0.5 * 0.25)
    high = expected_number(np.stack([logits(w4=1.0), point, logits(w5=1.0)]), ["5", ".", "9"], (1, 5), VOCABULARY)
    assert high == 5
    assert expected_number(logits(w8=1.0)[None], ["4.5"], (1, 5), VOCABULARY) == pytest.approx(4.5)
    rows = np.stack([logits(w1=1.0), point, logits(w1=1.0), logits(w2=1.0)])
    two = expected_number(rows, ["1", ".", "1", "2"], (1, 5), VOCABULARY)
    assert two == pytest.approx(1.12)


@pytest.fixture(scope="module")
def judge() -> RewardModel:
    return RewardModel(load_model("urt-tiny-cold"))


def test_the_tokens_of_a_number_are_those_that_hold_its_characters(judge: RewardModel) -> None:
    reply = "<answer>Alignment Score (1-5): 4.5\nCoherence Score (1-5): 2</answer>"
    at = reply.index("4.5")
    ids, numbers = numbers_of(judge.processor.tokenizer, reply, {"Alignment": (at, at + 3)})
    assert numbers[0].axis == "Alignment"
    assert "4.5" in judge.processor.tokenizer.decode([ids[n] for n in numbers[0].places])
    assert "".join(numbers[0].texts) == "4.5"


def spoken(judge: RewardModel, text: str) -> Any:
    """Make the judge write one text whatever it is asked."""
    return lambda queries, **_: [(text,)] * len(queries)


def test_expected_scores_are_those_of_its_own_logits(judge: RewardModel, monkeypatch: pytest.MonkeyPatch) -> None:
    example = make_example("image_score", split="train", seed=0, index=3)
    reply = direct_answer(example)
    monkeypatch.setattr(judge.responder, "ask", spoken(judge, reply))
    (score,) = judge.score_many([example], think=False)
    assert score.failure is None
    assert score.scores == {name: value for name, (value,) in example.meta["scores"].items()}
    assert set(score.expected) == set(score.scores)
    chat = render(example, think=False)
    turn = {"role": "assistant", "content": [{"type": "text", "text": reply}]}
    whole = judge.logits(messages=[*chat.messages, turn], images=[example.candidates[0]])
    encoded = judge.responder.encode(chat, name="x")
    start = len(encoded.tokens_T)
    _, numbers = numbers_of(judge.processor.tokenizer, reply, {"Style": (reply.rindex(":") + 2, reply.rindex("<"))})
    rows = np.stack([whole[start - 1 + place] for place in numbers[0].places])
    vocabulary = Vocabulary(judge.processor.tokenizer, judge.processor.config.decoder.vocab_size)
    wanted = expected_number(rows, numbers[0].texts, (1, 5), vocabulary)
    assert score.expected["Style"] == pytest.approx(wanted, abs=1e-4)
    assert all(1 <= value <= 5 for value in score.expected.values())


def test_a_reply_that_cannot_be_read_has_no_number(judge: RewardModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge.responder, "ask", spoken(judge, "<answer>4</answer>"))
    score = judge.score(caption="a red circle", image=np.zeros((32, 32, 3), np.uint8), think=False)
    assert (dict(score.scores), dict(score.expected)) == ({}, {})
    assert math.isnan(score.mean)
    assert score.failure is not None
    assert "needed one for each of Alignment, Coherence, Style" in score.failure


def test_what_cannot_be_scored_alone_is_refused(judge: RewardModel) -> None:
    pair = make_example("image_gen", split="train", seed=0, index=0)
    with pytest.raises(BadInputError, match="task image_gen does not score one candidate; give image_score"):
        judge.score_many([pair])
    with pytest.raises(BadInputError, match="score got image, video with caption='x'"):
        judge.score(caption="x", image="a.png", video="a.mp4")
    with pytest.raises(BadInputError, match="score got no candidate"):
        judge.score(caption="x")
    with pytest.raises(BadInputError, match="candidate of task video_und cannot be scored by itself"):
        singles_of(make_example("video_und", split="train", seed=0, index=0))


def test_a_pair_is_judged_by_the_means_of_its_candidates_scores() -> None:
    pair = make_example("image_gen", split="train", seed=0, index=0)
    first, second = singles_of(pair)
    assert (first.task, first.id, first.candidates) == ("image_score", f"{pair.id}/1", pair.candidates[:1])
    assert isinstance(second, Example)
    assert isinstance(second.candidates[0], Media)
    low, high = (Score({"a": 3.0}, {"a": value}, "", "", None) for value in (2.5, 3.5))
    assert verdict_of_scores(low, high).winner == 2
    assert verdict_of_scores(high, low).margin == pytest.approx(1.0)
    assert verdict_of_scores(low, low).winner == "tie"
    failed = Score({}, {}, "", "", "no <answer>")
    assert (verdict_of_scores(low, failed).winner, verdict_of_scores(failed, low).failure) == (None, "no <answer>")

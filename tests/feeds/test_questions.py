"""What a GRPO step asks: twins side by side, pools that remember, shapes that hold whatever is drawn."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.stages.story import SHORT, pairs
from urt_jax.checkpoints.model_folder import LoadedModel, load_model
from urt_jax.config import GrpoConfig, LengthConfig
from urt_jax.data.collate import length_of, need_of
from urt_jax.data.curriculum import Curriculum
from urt_jax.data.examples import Example
from urt_jax.data.settings import PoolData
from urt_jax.data.sources import write_examples
from urt_jax.errors import BadInputError
from urt_jax.feeds import questions as questions_module
from urt_jax.feeds.encoder import Encoder
from urt_jax.feeds.questions import Question, QuestionFeed
from urt_jax.rewards.weights import RewardWeights
from urt_jax.tasks import PAPER_TASKS

POOLED = Curriculum(retire_after=1, rescore_every=4)
TWINS = RewardWeights(swap_consistency=0.5)


@pytest.fixture(scope="module")
def judge(coin_judge: Path) -> LoadedModel:
    return load_model(str(coin_judge))


def feed(judge: LoadedModel, **settings: object) -> QuestionFeed:
    config = replace(
        GrpoConfig(data=PoolData(count=10), questions_per_step=4, lengths=LengthConfig(**SHORT)), **settings
    )
    return QuestionFeed(config, Encoder(judge.processor, max_prompt_tokens=160, max_new_tokens=16))


def told(questions: list[Question]) -> list[tuple[str, object]]:
    return [(question.stream, question.example.label) for question in questions]


@pytest.mark.parametrize("curriculum", [Curriculum(), POOLED], ids=["passes", "pool"])
def test_twins_are_one_pair_in_both_orders_with_streams_of_their_own(
    judge: LoadedModel, curriculum: Curriculum
) -> None:
    questions = feed(judge, rewards=TWINS, curriculum=curriculum)
    for step in range(3):
        shown = questions.draw(step)
        assert len(shown) == 4
        for one, other in zip(shown[::2], shown[1::2]):
            assert (one.item, one.example.id) == (other.item, other.example.id)
            assert other.stream == f"{one.stream}#swapped"
            assert (one.example.candidates, one.example.label) == (
                other.example.candidates[::-1],
                3 - other.example.label,
            )
    seen = [question.item for step in range(5) for question in questions.draw(step)[::2]]
    assert curriculum.active or sorted(seen) == list(range(10))


def test_without_the_reward_no_order_is_paired(judge: LoadedModel) -> None:
    shown = feed(judge).draw(0)
    assert len({question.example.id for question in shown}) == 4
    assert [question.stream for question in shown] == [question.example.id for question in shown]


def test_a_record_with_one_order_only_cannot_be_a_twin(judge: LoadedModel, tmp_path: Path) -> None:
    own = [replace(pair, task="image_und", candidates=("a", "b"), text="a or b?") for pair in pairs(4)]
    write_examples(tmp_path / "own.jsonl", own)
    with pytest.raises(BadInputError, match="its own prompt text already holds the answers in one order"):
        feed(judge, data=PoolData(path=str(tmp_path / "own.jsonl")), rewards=TWINS).draw(0)


def test_a_pool_that_goes_on_from_a_checkpoint_asks_the_same(judge: LoadedModel) -> None:
    whole, stopped, resumed = (feed(judge, curriculum=POOLED) for _ in range(3))
    asked = []
    for step in range(7):
        shown = whole.draw(step)
        asked.append(told(shown))
        right = {question.item: float((question.item + step) % 3 == 0) for question in shown}
        whole.note(step, right)
        if step < 4:
            assert told(stopped.draw(step)) == asked[step]
            stopped.note(step, right)
    resumed.restore(json.loads(json.dumps(stopped.saved())))
    for step in range(4, 7):
        shown = resumed.draw(step)
        assert told(shown) == asked[step]
        resumed.note(step, {question.item: float((question.item + step) % 3 == 0) for question in shown})
    assert resumed.figures() == whole.figures()
    assert 0 < whole.figures()["curriculum/left"] < 10


def test_shapes_hold_every_step_there_could_be(judge: LoadedModel) -> None:
    """Also a step of the largest questions only, and one put together from several rollouts."""
    questions = feed(judge, curriculum=POOLED, data=PoolData(count=10, tasks=dict.fromkeys(PAPER_TASKS, 1.0)))
    buckets = questions.plan_buckets()
    assert buckets.count <= 8
    every = {
        q.item: length_of(questions.chats([q], step)[0])
        for step in range(40)
        for q in questions.draw(step, taken=range(step % 7))
    }
    assert set(every) == set(range(10))
    largest = sorted(every.values(), key=lambda length: (length.frames, length.tokens))[-4:]
    buckets.fit(need_of(largest, rows=4))


def test_a_worker_encodes_ahead_and_what_is_asked_stays_the_same(judge: LoadedModel) -> None:
    """The next step is begun before its pool knows what was answered; where that changes it, it is encoded anew."""
    plain = feed(judge, curriculum=POOLED)
    encoder = Encoder(judge.processor, max_prompt_tokens=160, max_new_tokens=16, workers=1)
    with closing(QuestionFeed(plain._config, encoder)) as ahead:
        guessed = []
        for step in range(4):
            shown, same = plain.draw(step), ahead.draw(step)
            assert told(same) == told(shown)
            for one, other in zip(plain.chats(shown, step), ahead.chats(same, step)):
                assert jax.tree.all(jax.tree.map(np.array_equal, one, other))
            ahead.begin(step + 1)
            right = {question.item: float((question.item + step) % 3 == 0) for question in shown}
            plain.note(step, right)
            ahead.note(step, right)
            wanted = {(step + 1, question.item, question.stream) for question in plain.draw(step + 1)}
            guessed.append(len(wanted & ahead._begun.keys()))
        assert sum(guessed) > 0
        assert min(guessed) < 4, "an answer changed what is asked"


def test_a_long_run_is_planned_from_its_first_steps(judge: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions_module, "PROBED_RECORDS", 8)
    asked = feed(judge, steps=1000, data=PoolData(tasks=dict.fromkeys(PAPER_TASKS, 1.0)))
    encoded: list[Example] = []
    begin = asked._encoder.begin_prompt
    monkeypatch.setattr(
        asked._encoder, "begin_prompt", lambda example, **how: encoded.append(example) or begin(example, **how)
    )
    buckets = asked.plan_buckets()
    assert len(encoded) == 8
    assert buckets.count <= 8
    for step in range(40):
        buckets.fit(need_of([length_of(chat) for chat in asked.chats(asked.draw(step), step)], rows=4))


def test_a_pool_starts_with_the_shares_that_the_reject_stage_wrote(judge: LoadedModel, tmp_path: Path) -> None:
    """Two of six were right too often: they are asked only where the others run out."""
    counts = [[0, 4], [1, 4], [3, 4], [4, 4], [2, 4], [1, 4]]
    hard = [replace(pair, meta={**pair.meta, "correct_of": c}) for pair, c in zip(pairs(6), counts)]
    write_examples(tmp_path / "hard.jsonl", hard)
    data = PoolData(path=str(tmp_path / "hard.jsonl"))
    questions = feed(judge, data=data, curriculum=Curriculum(highest=0.5))
    assert questions.figures() == {"curriculum/active": 4.0, "curriculum/left": 2.0}
    assert {question.item for question in questions.draw(0)} == {0, 1, 4, 5}


def test_a_refill_draws_other_questions_while_enough_are_left(judge: LoadedModel) -> None:
    questions = feed(judge, dynamic_sampling=2)
    first = [question.item for question in questions.draw(0)]
    assert questions.can_refill(first)
    second = [question.item for question in questions.draw(0, first)]
    assert not set(first) & set(second)
    assert not questions.can_refill([*first, *second]), "two of ten are left, a rollout asks four"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            PoolData(),
            "config.data.count: 'scenes' is endless, but a curriculum draws from a bounded pool; give a count",
        ),
        (PoolData(count=3), "scenes has 3 labelled records, a step draws 4 different ones from the pool; lower"),
    ],
)
def test_a_pool_without_bounds_or_enough_records_is_refused(judge: LoadedModel, data: PoolData, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        feed(judge, data=data, curriculum=POOLED)

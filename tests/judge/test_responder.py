"""One way to ask a judge: batches, what was done already, settings of a query's own, and how memory bounds a call."""

from pathlib import Path
from typing import Any

import pytest

from urt_jax import RewardModel
from urt_jax.data.examples import Query
from urt_jax.data.prompts import render
from urt_jax.generation.sampling import DecodeSettings, Sampling
from urt_jax.judge import responder
from urt_jax.judge.responder import Responder
from urt_jax.scenes import make_example

TOKENS = 6
HOT = Sampling(1.5)
Batches = list[list[tuple[str, ...]]]


@pytest.fixture(scope="module")
def judge(tiny_judge: Path) -> RewardModel:
    return RewardModel.load(str(tiny_judge))


@pytest.fixture(scope="module")
def queries() -> list[Query]:
    examples = [make_example("image_gen", split="heldout", seed=0, index=index) for index in range(5)]
    return [Query(example.id, render(example)) for example in examples]


@pytest.fixture(scope="module")
def asked(judge: RewardModel) -> Responder:
    return judge.responder


def stream(asked: Responder, queries: list[Query], **changes: Any) -> Batches:
    settings: dict[str, Any] = {"responses": 2, "sampling": HOT, "max_new_tokens": TOKENS, "seed": 3, "batch": 2}
    return list(asked.stream(queries, **settings | changes))


@pytest.fixture(scope="module")
def whole(asked: Responder, queries: list[Query]) -> Batches:
    return stream(asked, queries)


def test_batches_come_in_order_and_the_last_has_what_is_left(
    whole: Batches, asked: Responder, queries: list[Query]
) -> None:
    assert [len(batch) for batch in whole] == [2, 2, 1]
    assert all(len(texts) == 2 for batch in whole for texts in batch)
    flat = [texts for batch in whole for texts in batch]
    told: list[tuple[int, int]] = []
    settings: dict[str, Any] = {"sampling": HOT, "max_new_tokens": TOKENS, "seed": 3, "batch_size": 4}
    assert asked.ask(queries, responses=2, progress=lambda *done: told.append(done), **settings) == flat
    assert told == [(2, 5), (4, 5), (5, 5)]
    firsts = [(first,) for first, _ in flat]
    assert asked.ask(queries, responses=1, **settings) == firsts


def test_what_was_sampled_before_is_encoded_and_left_out(
    whole: Batches, asked: Responder, queries: list[Query]
) -> None:
    seen: list[None] = []
    assert stream(asked, queries, skip=2, encoded=lambda: seen.append(None)) == whole[2:]
    assert len(seen) == len(queries)
    assert stream(asked, queries, skip=3) == []


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_in_portions_that_memory_holds_the_same_is_left_out(
    skip: int,
    whole: Batches,
    asked: Responder,
    queries: list[Query],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(responder, "HELD_BYTES", 1)
    assert stream(asked, queries, skip=skip) == whole[skip:]


def test_every_query_may_have_settings_of_its_own(asked: Responder, queries: list[Query]) -> None:
    sampling = [HOT, Sampling(0.0), HOT, HOT, Sampling(2.0)]
    lengths, seeds = [TOKENS, 3, TOKENS, 2, 4], [0, 1, 2, 3, 4]
    batches = stream(asked, queries, sampling=sampling, max_new_tokens=lengths, seed=seeds)
    mixed = [texts for batch in batches for texts in batch]
    for query, texts, *own in zip(queries, mixed, sampling, lengths, seeds):
        alone = asked.ask([query], responses=2, sampling=own[0], max_new_tokens=own[1], seed=own[2])
        assert alone == [texts]
    assert mixed[1][0] == mixed[1][1], "the second is greedy"


def test_fewer_rows_at_a_time_write_the_same(judge: RewardModel, whole: Batches, queries: list[Query]) -> None:
    few = Responder(
        judge.loaded, dtype="auto", attention="auto", max_prompt_tokens=None, workers=0, decoding=DecodeSettings(1)
    )
    assert stream(few, queries) == whole


def test_nothing_asked_is_nothing_answered(asked: Responder) -> None:
    assert stream(asked, []) == []

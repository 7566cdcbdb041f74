"""Rejection sampling: the filter by hand, then the stage as a story with a judge that is right half of the time."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.stages.coin_judge import WRITTEN
from tests.stages.story import (
    OPTIMIZER,
    SHORT,
    arguments,
    assert_called_again,
    assert_complete,
    assert_same_weights,
    assert_trained,
    kill_once,
    pairs,
    run_in_process,
    write_config,
)
from urt_jax.config import ModelSettings, RejectConfig
from urt_jax.data.examples import Example
from urt_jax.data.loader import Source
from urt_jax.data.settings import PoolData
from urt_jax.data.sources import read_examples, write_examples
from urt_jax.errors import BadInputError
from urt_jax.generation.sampler import Sampler
from urt_jax.judge import responder
from urt_jax.main import main
from urt_jax.stages import reject

FIRST, SECOND = WRITTEN
SCORES = "1. Aesthetics: Image 1 (9/10) - a; Image 2 (7/10) - b"
SUMS = f"<think>\n{SCORES}\nTotal score:\nImage 1: {{}}\nImage 2: 7=7\n</think>\n"
BETTER = "<answer>Image 1 is better</answer>"


def pair(name: str, label: int, task: str = "image_gen") -> Example:
    return Example(id=name, task=task, label=label, candidates=("a", "b"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "learnt"),
    [
        (FIRST, True),  # without scores there is nothing to contradict
        (SECOND, False),
        (FIRST + " indeed", False),  # not the strict form
        (BETTER, False),
        (SUMS.format("9=9") + BETTER, True),
        (SUMS.format("8=8") + BETTER, False),  # the total is not the sum
        (SUMS.format("9=9") + SECOND[SECOND.index("<answer>") :], False),
    ],
)
def test_a_reasoning_is_learnt_when_form_answer_and_sums_are_right(text: str, learnt: bool) -> None:
    assert reject.is_correct(text, "Image 1 is better") is learnt


def test_what_is_learnt_is_asked_in_the_wording_it_was_sampled_in(
    tmp_path: Path, coin_judge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[Source] = []
    monkeypatch.setattr(reject, "sample_pool", lambda config, loaded, pool, path: [[FIRST, SECOND]] * len(pool))
    monkeypatch.setattr(reject, "train_on", lambda config, folder, loaded, sources, **settings: learnt.extend(sources))
    data = PoolData(count=8, template="v2")
    reject.run(RejectConfig(workdir=str(tmp_path), model=ModelSettings(path=str(coin_judge)), data=data))
    assert [source.template for source in learnt] == ["v2"]


def test_scores_that_contradict_the_answer_are_not_learnt_though_the_answer_is_right() -> None:
    contradiction = SUMS.format("9=9") + SECOND[SECOND.index("<answer>") :]
    assert not reject.is_correct(contradiction, "Image 2 is better")


def test_the_pool_is_sorted_by_how_often_a_pair_was_right() -> None:
    pool = [pair("always", 1), pair("sometimes", 2), pair("never", 2)]
    found = reject.sort_pool(pool, [[FIRST, FIRST], [FIRST, SECOND], [FIRST, "junk"]], seed=0)
    assert found.counts == {"image_gen": Counter({"always right": 1, "sometimes right": 1, "never right": 1})}
    assert [(e.id, e.meta["correct_of"]) for e in found.hard] == [("sometimes", [1, 2]), ("never", [0, 2])]
    assert all(example.response is None for example in found.hard)
    assert [(e.id, e.response) for e in found.accepted] == [("always", FIRST), ("sometimes", SECOND)]
    assert found.accepted[0].meta["provenance"] == {"stage": "reject", "seed": 0, "correct": 2, "samples": 2}


def test_of_several_correct_reasonings_each_distinct_one_is_equally_likely() -> None:
    other = FIRST.replace("ok", "fine")
    pool, texts = [pair(str(n), 1 + n % 2) for n in range(200)], []
    for example in pool:
        label = f"Image {example.label}"
        texts.append([text.replace("Image 1", label) for text in (FIRST, FIRST, FIRST, other)])
    found = reject.sort_pool(pool, texts, seed=0)
    assert len(found.accepted) == 200
    assert 70 <= sum("fine" in (example.response or "") for example in found.accepted) <= 130
    assert found == reject.sort_pool(pool, texts, seed=0)


def test_answers_are_balanced_within_each_task_and_keep_their_order() -> None:
    records = [pair(f"i{n}", 1 if n < 5 else 2) for n in range(7)]
    records += [pair(f"v{n}", 2, "video_gen") for n in range(3)]
    kept = reject.balanced(records, np.random.default_rng(0))
    assert Counter((e.task, e.label) for e in kept) == {
        ("image_gen", 1): 2,
        ("image_gen", 2): 2,
        ("video_gen", 2): 3,  # one answer alone cannot be balanced: all or nothing would be left
    }
    assert [e.id for e in kept] == [e.id for e in records if e in kept]
    assert reject.balanced([], np.random.default_rng(0)) == []


def settings(coin_judge: Path, **changes: object) -> dict[str, object]:
    return {
        "data": {"count": 10, "seed": 2},
        "model": {"path": str(coin_judge)},
        "samples_per_item": 2,
        "batch_questions": 4,
        "steps": 4,
        "batch_size": 8,
        "save_every": 2,
        "optimizer": OPTIMIZER,
        "lengths": SHORT,
        **changes,
    }


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, coin_judge: Path) -> Path:
    return write_config(tmp_path_factory.mktemp("reject") / "reject.py", "reject", **settings(coin_judge))


@pytest.fixture(scope="module")
def samplers() -> list[Sampler]:
    """Return the samplers of the run in ``finished``."""
    return []


@pytest.fixture(scope="module")
def finished(config: Path, samplers: list[Sampler]) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(responder, "Sampler", lambda *a, **k: samplers.append(Sampler(*a, **k)) or samplers[-1])
        return run_in_process(config, config.parent / "whole")


def test_a_run_sorts_its_pool_and_learns(finished: Path, coin_judge: Path) -> None:
    assert_complete(finished, steps=4, figures={"loss", "grad_norm", "learning_rate"})
    assert_trained(finished, coin_judge)
    batches = [json.loads(line) for line in (finished / "records" / "samples.jsonl").read_text().splitlines()]
    assert [len(batch) for batch in batches] == [4, 4, 2]
    texts = [row["texts"] for batch in batches for row in batch]
    assert {len(samples) for samples in texts} == {2}
    assert sum(text in WRITTEN for samples in texts for text in samples) >= 18
    result = json.loads((finished / "result.json").read_text())
    counts = result["counts"]["image_gen"]
    assert sum(counts.values()) == 10
    accepted = read_examples(finished / "records" / "accepted.jsonl", require_label=True)
    hard = read_examples(finished / "records" / "hard.jsonl", require_label=True)
    assert (len(accepted), len(hard)) == (result["accepted"], result["hard"])
    assert len(hard) == 10 - counts.get("always right", 0)
    assert all(reject.is_correct(e.response or "", str(e.solution)) for e in accepted)
    assert Counter(e.label for e in accepted)[1] == len(accepted) / 2


def test_a_run_takes_few_programs(finished: Path, samplers: list[Sampler]) -> None:
    assert len(samplers) == 1
    assert 1 <= len(samplers[0].shapes) <= 8
    assert max(samplers[0].programs().values()) == len(samplers[0].shapes)


def test_called_again_it_prints_its_table_and_keeps_to_its_config(
    config: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_called_again(config, finished, capsys, changed="--config.samples_per_item=3")


def test_a_pool_never_judged_right_teaches_nothing_and_says_so(
    tmp_path: Path, coin_judge: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reject, "is_correct", lambda text, solution, **_: False)
    pool = [
        *pairs(4),
        *(replace(example, id=f"tie {example.id}", label="tie", meta={}) for example in pairs(2, seed=5)),
    ]
    write_examples(tmp_path / "pool.jsonl", pool)
    config = write_config(
        tmp_path / "c.py", "reject", **settings(coin_judge, data={"path": str(tmp_path / "pool.jsonl")})
    )
    assert main(arguments(config, tmp_path / "run")) == 2
    message = "none of 4 questions was answered correctly in 2 samples, so there are no records to train on"
    told = capsys.readouterr()
    assert message in told.err
    assert "skipped 2 of 6 records of" in told.out
    assert "2 x tie; the first: record tie " in told.out
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert len(read_examples(tmp_path / "run" / "records" / "hard.jsonl")) == 4


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"id": "a", "texts": ["x", "y"]}, {"id": "c", "texts": ["x", "y"]}], "pair 'c', the pool has b"),
        ([{"id": "a", "texts": ["x"]}], "1 texts of a pair, 2 are sampled"),
        ([{"id": name, "texts": ["x", "y"]} for name in "aba"], "more than the 2 pairs of the pool"),
        ([["x", "y"]], "needed an object"),
        ([{"id": "a", "texts": [1, 2]}], "needed a text"),
    ],
)
def test_samples_of_other_pairs_are_refused(rows: list[Any], told: str) -> None:
    pool = [replace(example, id=name) for name, example in zip("ab", pairs(2))]
    path = Path("samples.jsonl")
    with pytest.raises(BadInputError, match=rf"samples.jsonl.*{told}"):
        reject._read_samples(path, [[row] for row in rows], pool, 2)
    sound = [[{"id": "a", "texts": ["x", "y"]}], [{"id": "b", "texts": ["z", "w"]}]]
    assert reject._read_samples(path, sound, pool, 2) == [["x", "y"], ["z", "w"]]


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["sampling", "training"])
def test_killed_in_either_half_it_ends_with_the_same_bits(config: Path, finished: Path, moment: str) -> None:
    killed = config.parent / f"killed-{moment}"
    samples = killed / "records" / "samples.jsonl"
    ready = {
        "sampling": lambda: samples.exists() and b"\n" in samples.read_bytes(),
        "training": lambda: (killed / "checkpoints" / "2").exists(),
    }
    kill_once(config, killed, ready[moment])
    if moment == "sampling":
        with samples.open("a") as file:  # what a kill in the middle of a write leaves
            file.write('[{"id": "x", "texts": ["<think>')
    run_in_process(config, killed, "--config.workers=2")
    assert samples.read_bytes() == (finished / "records" / "samples.jsonl").read_bytes()
    assert_same_weights(killed, finished)

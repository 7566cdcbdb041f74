"""What a stage leaves out of a source is told, stored and bounded; a source that counts from 0 is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.stages.story import arguments, pairs, write_config
from urt_jax.data.settings import HeldOutData, MixtureData, PoolData
from urt_jax.data.skipped import MAX_SKIPPED, Skipped
from urt_jax.data.sources import write_examples
from urt_jax.errors import BadInputError
from urt_jax.feeds.records import labelled_pool, question_pool, question_source, training_source
from urt_jax.main import main

SHORT = {"max_prompt_tokens": 100, "max_new_tokens": 32}


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Return a file of 40 records to judge and to learn: 38 sound ones, two of them ties, and two broken ones."""
    path = tmp_path / "pool.jsonl"
    made = [replace(pair, response="<answer>Image 1 is better</answer>", meta={}) for pair in pairs(38)]
    write_examples(path, [*(replace(pair, label="tie") for pair in made[:2]), *made[2:]])
    path.write_text(path.read_text() + '{"broken\n' + json.dumps({"caption": "x", "images": ["a", "b"]}) + "\n")
    return path


READERS: dict[str, Callable[..., Skipped | None]] = {
    "evaluate": lambda **given: labelled_pool(HeldOutData(**given), seed=0).skipped,
    "reject and distill": lambda **given: labelled_pool(PoolData(**given), seed=0, decided=True).skipped,
    "a pool of grpo": lambda **given: question_pool(PoolData(**given), seed=0).skipped,
    "grpo": lambda **given: question_source(PoolData(**given), seed=0).skipped,
    "sft": lambda **given: training_source(MixtureData(**given), seed=0).skipped,
}


@pytest.mark.parametrize("reader", READERS)
def test_every_stage_counts_what_it_leaves_out_by_reason(pool: Path, reader: str) -> None:
    skipped = READERS[reader](path=str(pool))
    assert skipped is not None
    ties = {} if reader in ("evaluate", "sft") else {"tie": 2}
    assert dict(skipped.counts) == {"broken line": 1, "missing file": 1} | ties
    assert skipped.records == 40
    assert "pool.jsonl line 39: not JSON" in skipped.messages["broken line"]
    assert skipped.told().startswith(f"skipped {2 + sum(ties.values())} of 40 records of {pool}:")


@pytest.mark.parametrize("reader", READERS)
def test_more_than_the_allowed_share_is_refused_with_the_counts(pool: Path, reader: str) -> None:
    with pytest.raises(BadInputError) as caught:
        READERS[reader](path=str(pool), max_skipped_share=0.04)
    for told in (
        "2 of 40 records cannot be used",
        "1 x missing file; the first",
        "1 x broken line",
        "data.max_skipped_share",
    ):
        assert told in str(caught.value)
    assert MAX_SKIPPED == 2 / 40, "the limit itself is allowed"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("zero", [{"label": 0}, {"solution": "Image 0 is better"}])
def test_a_label_0_among_many_refuses_the_source_in_every_stage(pool: Path, reader: str, zero: dict[str, Any]) -> None:
    lines = [json.loads(line) for line in pool.read_text().splitlines()[:38]]
    lines[20] = {key: value for key, value in lines[20].items() if key not in ("label", "solution")} | zero
    pool.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(BadInputError, match=r"line 21 .*data\.first_label=0"):
        READERS[reader](path=str(pool))


def test_a_reply_that_is_missing_is_a_skip_too(pool: Path) -> None:
    unanswered = [json.dumps({"problem": "x"})] * 2
    pool.write_text("".join(line + "\n" for line in [*pool.read_text().splitlines()[:38], *unanswered]))
    skipped = training_source(MixtureData(path=str(pool)), seed=0).skipped
    assert skipped is not None
    assert dict(skipped.counts) == {"no response": 2}


def test_ties_alone_are_no_pool_to_ask(tmp_path: Path) -> None:
    write_examples(tmp_path / "ties.jsonl", [replace(pair, label="tie", meta={}) for pair in pairs(3)])
    with pytest.raises(BadInputError, match="holds no record with a better side: skipped 3 of 3"):
        question_pool(PoolData(path=str(tmp_path / "ties.jsonl")), seed=0)


@pytest.mark.parametrize("stage", ["evaluate", "sft"])
def test_skips_are_printed_and_stored(
    pool: Path, coin_judge: Path, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    run = pool.parent / "run"
    settings: dict[str, Any] = {"lengths": SHORT, "data": {"path": str(pool)}}
    if stage == "evaluate":
        settings |= {"models": {"coin": str(coin_judge)}, "modes": ("greedy",)}
    else:
        settings |= {"model": {"path": str(coin_judge)}, "steps": 1, "optimizer": {"warmup_steps": 0}, "batch_size": 8}
    assert main(arguments(write_config(pool.parent / "c.py", stage, **settings), run)) == 0
    result = json.loads((run / "result.json").read_text())
    told = "1 x missing file; the first: " + str(pool) + " line 40"
    assert told in result["table"]
    assert capsys.readouterr().out.count(told) == 2, "as soon as it is read, and in the table"
    (stored,) = result["skipped"]
    assert (stored["source"], stored["records"]) == (str(pool), 40)
    assert {name: reason["count"] for name, reason in stored["reasons"].items()} == {
        "broken line": 1,
        "missing file": 1,
    }


def test_pairs_labelled_0_and_1_are_refused_before_anything_is_judged(
    pool: Path, coin_judge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in pool.read_text().splitlines()[2:18]]
    keys = ("id", "caption", "images")
    pairs = [{**{key: row[key] for key in keys}, "label": number % 2} for number, row in enumerate(rows)]
    pool.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    settings = {"lengths": SHORT, "models": {"coin": str(coin_judge)}, "modes": ("greedy",)}
    config = write_config(pool.parent / "c.py", "evaluate", data={"path": str(pool)}, **settings)
    assert main(arguments(config, pool.parent / "run")) == 2
    assert "line 1 " in (told := capsys.readouterr().err)
    assert "set data.first_label=0" in told
    assert not list((pool.parent / "run" / "records").glob("*"))
    config = write_config(pool.parent / "d.py", "evaluate", data={"path": str(pool), "first_label": 0}, **settings)
    assert main(arguments(config, pool.parent / "said")) == 0
    assert json.loads((pool.parent / "said" / "result.json").read_text())["skipped"] == []

"""``data.exclude``: a pool is read without what stands in a benchmark, and says how many that were."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.test_leaks import pair, picture
from urt_jax.data.settings import HeldOutSource, MixtureData, PoolData
from urt_jax.data.skipped import LEAKED, TWIN
from urt_jax.data.sources import write_examples
from urt_jax.errors import BadInputError
from urt_jax.feeds.records import labelled_pool, training_source


@pytest.fixture
def pool(tmp_path: Path) -> PoolData:
    mine = picture()
    write_examples(tmp_path / "bench.jsonl", [pair("b", "a cat", mine)])
    records = [pair("1", "a dog"), pair("2", "A CAT."), pair("3", "a bird", mine), pair("4", "a fish")]
    write_examples(tmp_path / "pool.jsonl", records)
    return PoolData(path=str(tmp_path / "pool.jsonl"), exclude=(str(tmp_path / "bench.jsonl"),))


def test_they_are_left_out_and_counted(pool: PoolData) -> None:
    found = labelled_pool(pool, seed=0)
    assert [example.id for example in found.examples] == ["1", "4"]
    assert found.skipped.counts == {LEAKED: 2}, "and does not count against the share that may be skipped"
    assert f"record 2 has its prompt in {pool.exclude[0]}" in found.skipped.told()
    assert len(labelled_pool(PoolData(path=pool.path), seed=0).examples) == 4


def test_held_out_records_are_not_cleared_of_themselves(pool: PoolData) -> None:
    held_out = HeldOutSource(path=pool.exclude[0]).read_as(pool)
    assert len(labelled_pool(held_out, seed=0).examples) == 1


def test_a_benchmark_without_records_is_an_error(pool: PoolData, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(BadInputError, match=r"data\.exclude: .*empty\.jsonl holds no record"):
        labelled_pool(PoolData(path=pool.path, exclude=(str(tmp_path / "empty.jsonl"),)), seed=0)
    with pytest.raises(BadInputError, match="holds no record with a label"):
        labelled_pool(PoolData(path=pool.exclude[0], exclude=pool.exclude), seed=0)
    with pytest.raises(BadInputError, match="holds no record with a response to learn"):
        training_source(MixtureData(path=pool.path, exclude=pool.exclude), seed=0)


def test_a_name_that_is_not_there_is_told_before_anything_runs(pool: PoolData) -> None:
    ((key, told),) = PoolData(path=pool.path, exclude=("gone.jsonl",)).file_problems()
    assert key == "exclude"
    assert told.startswith("there is no 'gone.jsonl'; give 'scenes', 'drills', or hf:org/name")


def test_the_two_orders_of_a_pair_are_one_pair(tmp_path: Path) -> None:
    first, second = (pair(name, prompt) for name, prompt in (("1", "a dog"), ("2", "a bird")))
    other = replace(first.swapped(), id="1-rev")
    write_examples(tmp_path / "pool.jsonl", [first, second, other, replace(second, id="2-again")])
    found = labelled_pool(PoolData(path=str(tmp_path / "pool.jsonl")), seed=0)
    assert [example.id for example in found.examples] == ["1", "2", "2-again"]
    assert found.skipped.counts == {TWIN: 1}
    assert "record 1-rev has the candidates of record 1 in the other order" in found.skipped.told()

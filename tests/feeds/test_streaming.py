"""Large sources are streamed: a place gives one record, whatever was read before; figures of a pool of 100,000 rows."""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from urt_jax.data.examples import Example
from urt_jax.data.settings import MixtureData, PoolData
from urt_jax.data.sources.files import Record, RecordError
from urt_jax.data.sources.rows import Rows
from urt_jax.errors import BadInputError
from urt_jax.feeds.records import question_source, training_source
from urt_jax.feeds.streaming import Streamed


class Numbers(Rows):
    """Rows that are their own numbers, in blocks."""

    def __init__(self, *blocks: int) -> None:
        self.blocks = blocks

    def at(self, number: int) -> Record:
        return Record({"n": number}, f"row {number}", str(number), Path())


def plain(record: Record, place: int) -> Example:
    assert isinstance(record.fields, dict)
    return Example(record.default_id)


def stream(*blocks: int, convert: Callable[[Record, int], Example] = plain, seed: int = 0) -> Streamed:
    return Streamed(Numbers(*blocks), convert, seed=seed, name="pool", most_skipped=0.05)


def test_each_epoch_has_every_row_once_in_another_order() -> None:
    found = stream(5, 3, 7, 1)
    epochs = [[found.row(16 * epoch + n) for n in range(16)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(16)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert [stream(5, 3, 7, 1, seed=1).row(n) for n in range(16)] != epochs[0]


def test_the_rows_of_a_block_come_together() -> None:
    found = stream(5, 3, 7, 1)
    ends = np.cumsum([5, 3, 7, 1])
    blocks = [int(np.searchsorted(ends, found.row(n), side="right")) for n in range(16)]
    changes = sum(a != b for a, b in itertools.pairwise(blocks))
    assert changes == 3


def test_a_place_gives_the_same_record_whatever_was_read_before() -> None:
    whole = [stream(5, 3, 7, 1).get(n).id for n in range(40)]
    resumed = stream(5, 3, 7, 1)
    assert [resumed.get(n).id for n in range(23, 40)] == whole[23:]


def refuse(*bad: int) -> Callable[[Record, int], Example]:
    def convert(record: Record, place: int) -> Example:
        if int(record.default_id) in bad:
            raise RecordError(f"{record.where}: odd", reason="odd")
        return plain(record, place)

    return convert


def test_a_bad_row_is_replaced_by_a_neighbour_and_counted_once() -> None:
    found = stream(50, 50, convert=refuse(3, 60))
    good = [found.get(n).id for n in range(300)]
    assert not {"3", "60"} & set(good)
    assert found.skipped.counts == {"odd": 2}
    assert found.skipped.records == 100
    assert "2 x odd; the first: row" in found.skipped.told()
    other = stream(50, 50, convert=refuse(3, 60))
    assert [other.get(n).id for n in range(150, 300)] == good[150:]


def test_too_many_bad_rows_stop_the_run() -> None:
    found = stream(150, 150, convert=refuse(*range(0, 300, 2)))
    with pytest.raises(BadInputError, match=r"of the first \d+ records cannot be used, data\.max_skipped_share allows"):
        [found.get(n) for n in range(300)]
    with pytest.raises(BadInputError, match="holds no record: the file is empty"):
        stream(0)


def write_pool(path: Path, rows: int, *, group: int, size: int) -> None:
    """Write a parquet file of pairs with ``size`` bytes in each picture cell."""
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    kinds = {"caption": pa.string(), "image_0": cell, "image_1": cell, "label": pa.int64()}
    schema = pa.schema(list(kinds.items()))
    rng = np.random.default_rng(0)
    with pq.ParquetWriter(path, schema) as file:
        for start in range(0, rows, group):
            many = min(group, rows - start)
            cells = [[{"bytes": rng.bytes(size), "path": "x.png"} for _ in range(many)] for _ in range(2)]
            told = [f"caption {start + n}" for n in range(many)]
            columns = [told, *cells, [1 + n % 2 for n in range(many)]]
            file.write_table(pa.table(dict(zip(schema.names, columns)), schema=schema))


def own(fields: pa.Table) -> dict[str, object]:
    """Read the rows of ``write_pool``."""
    images = [fields["image_0"], fields["image_1"]]
    return {"caption": fields["caption"], "images": images, "label": fields["label"]}


def own_with_response(fields: pa.Table) -> dict[str, object]:
    turns = [{"from": "human", "value": "<image><image>which?"}, {"from": "gpt", "value": "first"}]
    return {"conversations": turns, "images": [fields["image_0"], fields["image_1"]]}


def test_sft_and_grpo_take_a_table(tmp_path: Path) -> None:
    write_pool(tmp_path / "pool.parquet", 40, group=8, size=9)
    path = str(tmp_path / "pool.parquet")
    asked = question_source(PoolData(path=path, layout=f"{__name__}:own", swap=False), seed=3)
    names = [asked.get(n).prompt for n in range(80)]
    assert sorted(names[:40]) == sorted(names[40:]) == sorted(f"caption {n}" for n in range(40))
    again = question_source(PoolData(path=path, layout=f"{__name__}:own", swap=False), seed=3)
    assert [again.get(n).prompt for n in range(50, 80)] == names[50:]
    learnt = training_source(MixtureData(path=path, layout=f"{__name__}:own_with_response"), seed=0)
    assert {learnt.get(n).response for n in range(40)} == {"first"}
    unanswered = training_source(MixtureData(path=path, layout=f"{__name__}:own"), seed=0)
    with pytest.raises(BadInputError, match="no response to learn"):
        unanswered.get(0)


@pytest.mark.slow
def test_a_pool_of_100_000_rows(tmp_path: Path) -> None:
    """Its first batch comes within 5 s, 2,000 undecoded records a second, in less than 300 MB; without test hooks."""
    write_pool(tmp_path / "pool.parquet", 100_000, group=1000, size=2000)
    command = [sys.executable, "-m", "tests.feeds.stream_figures", str(tmp_path / "pool.parquet")]
    told = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2]).stdout
    print(told)
    figures = json.loads(told)
    assert figures["seconds to the first batch"] < 5
    assert figures["records a second"] > 2000
    assert figures["MB grown"] < 300
    assert figures["bytes of a picture"] == [2000]

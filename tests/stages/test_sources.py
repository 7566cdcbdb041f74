"""Every stage takes its records from a table and from the hub, with the same figures as from files."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.test_kinds import FakeDataset
from tests.stages.story import OPTIMIZER, SHORT, metric_lines, pairs, run_in_process, write_config
from urt_jax.data.sources import write_examples

GENTLE = {**OPTIMIZER, "learning_rate": 1e-5}
TIMES = ("timing", "time", "per_s")
STAGES: dict[str, dict[str, Any]] = {
    "sft": {"steps": 2, "batch_size": 4},
    "reject": {"samples_per_item": 2, "batch_questions": 4, "steps": 2, "batch_size": 4},
    "grpo": {"steps": 2, "questions_per_step": 4, "responses_per_question": 4, "kl_coef": 0.0},
    "evaluate": {"modes": ("greedy",), "batch_size": 8, "report_samples": 0, "lengths": SHORT},
}


def tables(records: Path, folder: Path) -> tuple[str, Path]:
    """Write the records of a file with their pictures as parquet and as an arrow stream."""
    rows = [json.loads(line) for line in records.read_text().splitlines()]
    for row in rows:
        row["images"] = [{"bytes": (records.parent / name).read_bytes(), "path": name} for name in row["images"]]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, folder / f"{records.stem}.parquet")
    with pa.ipc.new_stream(folder / f"{records.stem}.arrow", table.schema) as file:
        file.write_table(table)
    return str(folder / f"{records.stem}.parquet"), folder / f"{records.stem}.arrow"


def figures(run: Path, stage: str) -> Any:
    """Return what a run found, without times."""
    if stage == "evaluate":
        return json.loads((run / "result.json").read_text())["summaries"]
    lines = metric_lines(run)
    return [{name: value for name, value in line.items() if not any(word in name for word in TIMES)} for line in lines]


@pytest.mark.parametrize(
    "stage", [pytest.param(name, marks=pytest.mark.slow if name in ("grpo", "reject") else ()) for name in STAGES]
)
def test_the_same_figures_as_from_files(
    stage: str, tmp_path: Path, coin_judge: Path, reasonings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    records = reasonings
    if stage != "sft":
        records = tmp_path / "pairs.jsonl"
        write_examples(records, pairs(8))
    parquet, arrow = tables(records, tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: FakeDataset(arrow))
    settings = {"optimizer": GENTLE, "lengths": {**SHORT, "max_new_tokens": 112 if stage == "sft" else 16}}
    settings |= {"model": {"path": str(coin_judge)}}
    if stage == "grpo":
        settings["eval_data"] = {"path": str(records)}
    if stage == "evaluate":
        settings = {"models": {"coin": str(coin_judge)}}
    found = []
    for name, path in (("files", str(records)), ("table", parquet), ("hub", "hf:org/name/train")):
        data: Any = [{"path": path}] if stage == "sft" else {"path": path}
        config = write_config(tmp_path / f"{name}.py", stage, data=data, **settings | STAGES[stage])
        found.append(figures(run_in_process(config, tmp_path / name), stage))
    assert found[0]
    assert found[1] == found[0]
    assert found[2] == found[0]

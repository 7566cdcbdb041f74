"""The stage that looks at a source: its table, its page, what it leaves out."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from urt_jax.config import DataConfig
from urt_jax.data.settings import TrainingData
from urt_jax.errors import BadInputError
from urt_jax.evals.source_figures import Looked, source_rows
from urt_jax.scenes import make_example
from urt_jax.stages import data


def test_the_built_in_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = {"image_gen": 1.0, "image_und": 1.0, "image_edit": 1.0, "image_score": 1.0}
    config = DataConfig(workdir=str(tmp_path), data=TrainingData(count=16, tasks=tasks), look=6, report_samples=5)
    data.run(config)
    told = capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    rows = {row["task"]: row for row in result["rows"]}
    assert list(rows) == [*tasks, "all"]
    assert {name: row["records"] for name, row in rows.items()} == {**dict.fromkeys(tasks, 4), "all": 16}
    assert rows["image_gen"]["first better"] == "50.0 %"
    assert rows["image_score"]["first better"] == "–"
    assert rows["all"]["labelled"] == 16
    assert (rows["all"]["looked at"], rows["image_gen"]["media"], rows["image_gen"]["smallest"]) == (6, 8, "56 x 56")
    assert 20 < rows["image_gen"]["longest prompt"] < 80
    assert result["table"].rstrip() in told
    page = (tmp_path / "report.html").read_text()
    assert page.count("<article") == 5
    assert "data:image/png;base64," in page


def test_figures_by_hand() -> None:
    first, second = (make_example("image_gen", split="train", seed=0, index=index) for index in (0, 1))
    looked = {first.id: Looked((("a", 4, 9), ("a", 8, 8)), 7), second.id: Looked((("b", 2, 3),), 9)}
    (row,) = source_rows([first, second], looked)
    assert row["prompts repeated"] == 0
    assert (row["media"], row["media repeated"], row["longest prompt"]) == (3, 1, 9)
    assert (row["smallest"], row["largest"]) == ("3 x 2", "8 x 8")
    assert source_rows([first, second, first], {})[0]["prompts repeated"] == 1


def test_records_that_cannot_be_used_are_counted_and_a_source_without_any_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    good = {"caption": "a <b> dot", "images": ["a.png", "a.png"], "label": "tie"}
    (tmp_path / "pool.jsonl").write_text(json.dumps(good) + "\n" + json.dumps({"images": ["a.png"]}))
    data.run(DataConfig(workdir=str(tmp_path / "run"), data=TrainingData(path=str(tmp_path / "pool.jsonl"))))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    (row,) = result["rows"]
    assert (row["records"], row["ties"], row["media repeated"]) == (1, 1, 1)
    assert result["skipped"][0]["reasons"]["unknown schema"]["count"] == 1
    assert "a &lt;b&gt; dot" in (tmp_path / "run" / "report.html").read_text()
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(BadInputError, match=r"none\.jsonl holds no record that can be used"):
        data.run(DataConfig(workdir=str(tmp_path / "x"), data=TrainingData(path=str(tmp_path / "none.jsonl"))))

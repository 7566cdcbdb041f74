"""The whole recipe as a story, and a stopped pipeline that goes on where it was."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.stages.story import assert_called_again, run_in_process, small_recipe, write_config
from urt_jax.checkpoints.model_folder import load_model
from urt_jax.config import LearnerSettings, PipelineConfig, SftConfig
from urt_jax.data.sources import read_examples
from urt_jax.stages import distill, evaluate, grpo, pipeline, reject, sft

FOLDERS = ("1-distill", "2-sft", "3-reject", "4-grpo", "5-evaluate")
MODELS = ("base", "cold start", "rejection sampling", "GRPO")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, coin_judge: Path) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    return write_config(folder / "pipeline.py", "pipeline", **small_recipe(coin_judge))


@pytest.fixture(scope="module")
def finished(config: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "BASELINE_PAIRS", 40)
        return run_in_process(config, config.parent / "whole")


def test_every_stage_starts_from_what_the_one_before_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline names the models of its stages, whatever their own settings say."""
    started: list[Any] = []
    monkeypatch.setattr(pipeline, "_run", started.append)
    monkeypatch.setattr(pipeline, "evaluate", lambda config, curves: started.append(config) or "table")
    held = LearnerSettings(path="other/judge@v2.0")
    pipeline.run(PipelineConfig(workdir=str(tmp_path), base="lab/judge@v1.0", sft=SftConfig(model=held)))
    assert started[1].model.path == "lab/judge@v1.0"
    assert started[-1].models["base"] == "lab/judge@v1.0"


def test_each_stage_hands_over_files_to_the_next(finished: Path, coin_judge: Path) -> None:
    assert sorted(path.name for path in finished.iterdir() if path.is_dir()) == sorted(FOLDERS)
    settings = {name: json.loads((finished / name / "config.json").read_text()) for name in FOLDERS}
    assert [settings[name]["model"]["path"] for name in FOLDERS[1:4]] == [
        str(coin_judge),
        str(finished / "2-sft"),
        str(finished / "3-reject"),
    ]
    assert settings["2-sft"]["data"][0]["path"] == str(finished / "1-distill" / "records" / "cold_start.jsonl")
    assert settings["4-grpo"]["data"]["path"] == str(finished / "3-reject" / "records" / "hard.jsonl")
    assert len(read_examples(finished / "1-distill" / "records" / "cold_start.jsonl", require_label=True)) == 8
    assert read_examples(finished / "3-reject" / "records" / "hard.jsonl", require_label=True)
    for name in FOLDERS[1:4]:
        load_model(str(finished / name))
    samples = (finished / "4-grpo" / "samples" / "step-000001.jsonl").read_text().splitlines()
    asked = {json.loads(line)["id"] for line in samples}
    assert asked <= {example.id for example in read_examples(finished / "3-reject" / "records" / "hard.jsonl")}


def test_it_ends_in_the_table_of_all_models_and_a_report_with_their_curves(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert result["table"] == json.loads((finished / "5-evaluate" / "result.json").read_text())["table"]
    assert Path(result["report"]).is_file()
    assert all(name in result["table"] for name in MODELS)
    page = Path(result["report"]).read_text()
    captions = re.findall(r"<figcaption><span>([^<]*)</span>", page)
    assert captions.count("loss") == 3, "one learning curve a training stage"
    assert "reward" in captions


def test_called_again_it_prints_its_table_and_keeps_to_its_config(
    config: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_called_again(config, finished, capsys, changed="--config.grpo.steps=3")


def test_a_stopped_pipeline_goes_on_where_it_was(
    config: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What stands when it was killed between its last stage and its own result."""
    table = json.loads((finished / "result.json").read_text())["table"]
    (finished / "result.json").unlink()

    def again(*given: Any, **more: Any) -> None:
        raise AssertionError("a finished stage ran again")

    for stage in (distill, sft, reject, grpo, evaluate):
        monkeypatch.setattr(stage, "run", again)
    run_in_process(config, finished)
    printed = capsys.readouterr().out
    assert all(f"== {name[2:]} ({finished / name})" in printed for name in FOLDERS[:4])
    assert json.loads((finished / "result.json").read_text())["table"] == table

"""The study over seeds as a story: every seed's pipeline, one joint table with paired gains."""

import json
from pathlib import Path

import pytest

from tests.stages.story import assert_called_again, run_in_process, small_recipe, write_config
from urt_jax.evals.pairwise import read_judgements
from urt_jax.stages import evaluate
from urt_jax.stages.pipeline import MODELS
from urt_jax.stages.study import of_main_task

SEEDS = (0, 1)


@pytest.mark.slow
def test_all_seeds_are_judged_on_the_same_pairs(
    tmp_path: Path, coin_judge: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate, "BASELINE_PAIRS", 40)
    recipe = small_recipe(coin_judge)
    recipe["evaluate"]["data"]["tasks"] = {"image_gen": 1.0, "image_und": 1.0}
    config = write_config(tmp_path / "study.py", "study", seeds=SEEDS, **recipe)
    folder = run_in_process(config, tmp_path / "run")
    result = json.loads((folder / "result.json").read_text())
    assert "2 seeds, image_gen" in result["table"]
    assert "GRPO minus rejection sampling, image_gen, paired" in result["table"]
    for model in MODELS:
        summary = result["summaries"][model]["greedy"]
        assert summary["judgements"] == len(SEEDS) * 4 * 2
        assert set(summary["by_task"]) == {"image_gen", "image_und"}
    paths = [folder / f"seed-{seed}" / "5-evaluate" / "records" / "GRPO-greedy.jsonl" for seed in SEEDS]
    judged = [read_judgements(path) for path in paths]
    assert [item.id for item in judged[0]] == [item.id for item in judged[1]]
    assert {item.task for item in of_main_task(judged[0])} == {"image_gen"}
    others = [item for item in judged[0] if item.task != "image_gen"]
    assert of_main_task(others) == others
    assert_called_again(config, folder, capsys, changed="--config.grpo.steps=3")

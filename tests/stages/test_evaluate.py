"""Evaluation as a story: every judgement on disk, one table, one report, nothing judged twice."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.stages.coin_judge import WRITTEN
from tests.stages.story import SHORT, arguments, assert_called_again, run_in_process, write_config
from urt_jax.evals.pairwise import read_judgements
from urt_jax.generation.sampler import Sampler
from urt_jax.judge.reward_model import RewardModel
from urt_jax.main import main
from urt_jax.stages import evaluate

PAIRS, MODES = 8, ("greedy", "sampled", "direct")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, coin_judge: Path) -> Path:
    return write_config(
        tmp_path_factory.mktemp("evaluate") / "evaluate.py",
        "evaluate",
        models={"base": str(coin_judge), "cold start": str(coin_judge)},
        data={"count": PAIRS, "seed": 1},
        batch_size=8,
        lengths=SHORT,
        report_samples=2,
    )


@pytest.fixture(scope="module")
def samplers() -> list[Sampler]:
    """Return the samplers of the run in ``finished``."""
    return []


@pytest.fixture(scope="module")
def finished(config: Path, samplers: list[Sampler]) -> Path:
    made = RewardModel.__init__

    def noted(self: RewardModel, *given: Any, **more: Any) -> None:
        made(self, *given, **more)
        samplers.append(self.responder._sampler)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "BASELINE_PAIRS", 40)
        patch.setattr(RewardModel, "__init__", noted)
        return run_in_process(config, config.parent / "whole")


def test_every_pair_is_judged_in_both_orders_in_every_mode(finished: Path) -> None:
    files = {path.name for path in (finished / "records").iterdir()}
    assert files == {f"{name}-{mode}.jsonl" for name in ("base", "cold_start") for mode in MODES}
    for name in files:
        judgements = read_judgements(finished / "records" / name)
        assert [(j.id, j.order) for j in judgements].count((judgements[0].id, "swapped")) == 1
        assert len({(j.id, j.order) for j in judgements}) == len(judgements) == 2 * PAIRS
    greedy = read_judgements(finished / "records" / "base-greedy.jsonl")
    assert {j.verdict.text for j in greedy} <= set(WRITTEN)
    assert all(j.correct == (j.verdict.winner == j.label) for j in greedy)


def test_one_model_judges_alike_under_two_names(finished: Path) -> None:
    for mode in MODES:
        first, second = (read_judgements(finished / "records" / f"{n}-{mode}.jsonl") for n in ("base", "cold_start"))
        assert first == second


def test_the_table_and_the_report_name_models_modes_and_baselines(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert {name: set(modes) for name, modes in result["summaries"].items()} == {
        "base": set(MODES),
        "cold start": set(MODES),
    }
    assert result["baselines"]
    assert all(0 <= row["image_gen"] <= 1 for row in result["baselines"].values())
    table, page = result["table"], (finished / "report.html").read_text()
    for word in ("8 held-out pairs", "base", "cold start", *MODES, *result["baselines"], "report.html"):
        assert word in table
    assert page.count("data:image/png;base64,") >= 4, "two pairs of pictures stand in the file itself"
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_a_model_takes_few_programs(finished: Path, samplers: list[Sampler]) -> None:
    assert len(samplers) == 2
    for sampler in samplers:
        assert len({shape for shape, *_ in sampler.shapes}) <= 8
        assert max(sampler.programs().values()) == len(sampler.shapes) <= 8


def test_called_again_it_prints_its_table_and_keeps_to_its_config(
    config: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_called_again(config, finished, capsys, changed="--config.orders=given")


def test_judgements_of_a_stopped_run_are_not_judged_again(
    config: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = json.loads((finished / "result.json").read_text())["table"]
    (finished / "result.json").unlink()
    (finished / "report.html").unlink()

    def respond(*given: Any, **more: Any) -> list[str]:
        raise AssertionError("judged again")

    monkeypatch.setattr(RewardModel, "respond", respond)
    monkeypatch.setattr(evaluate, "BASELINE_PAIRS", 40)
    run_in_process(config, finished)
    assert json.loads((finished / "result.json").read_text())["table"] == table
    assert (finished / "report.html").is_file()


def test_two_names_that_would_share_a_file_are_refused(
    coin_judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second model would be given the first one's judgements."""
    models = {"cold start": str(coin_judge), "cold_start": str(coin_judge)}
    config = write_config(tmp_path / "c.py", "evaluate", models=models, data={"count": 2}, lengths=SHORT)
    assert main(arguments(config, tmp_path / "run")) == 2
    assert "models 'cold start' and 'cold_start' would share a file" in capsys.readouterr().err


def test_a_misspelt_last_model_is_told_before_the_first_judges(
    coin_judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = {"good": str(coin_judge), "bad": str(tmp_path / "nowhere")}
    config = write_config(tmp_path / "c.py", "evaluate", models=models, data={"count": 2}, lengths=SHORT)
    assert main(arguments(config, tmp_path / "run")) == 2
    assert "nowhere': neither a shipped model" in capsys.readouterr().err
    assert not (tmp_path / "run" / "records").exists()

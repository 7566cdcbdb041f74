"""The ablation as a story: every setting and seed from one start, one table, each compared with the first."""

import json
from pathlib import Path

import pytest

from tests.stages.story import SHORT, assert_called_again, run_in_process, weights, write_config
from urt_jax.evals.pairwise import read_judgements
from urt_jax.stages import ablation

SEEDS = (0, 1)
SETTINGS: dict[str, dict[str, dict[str, float]]] = {"plain": {}, "slow steps": {"optimizer": {"learning_rate": 1e-4}}}


@pytest.mark.slow
def test_settings_are_judged_on_the_same_pairs_and_compared_with_the_first(
    tmp_path: Path, coin_judge: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = {
        "model": {"path": str(coin_judge)},
        "eval_data": {"count": 4},
        "steps": 2,
        "questions_per_step": 4,
        "responses_per_question": 4,
        "optimizer": {"learning_rate": 1e-3, "warmup_steps": 1},
        "lengths": SHORT,
    }
    settings = tuple({"name": name, "changes": changes} for name, changes in SETTINGS.items())
    config = write_config(tmp_path / "ablation.py", "ablation", grpo=shared, settings=settings, seeds=SEEDS)
    started: list[str] = []
    train = ablation.grpo.run
    monkeypatch.setattr(ablation.grpo, "run", lambda single: (started.append(single.workdir), train(single)))

    folder = run_in_process(config, tmp_path / "run")
    single = {(label, seed): folder / label.replace(" ", "_") / f"seed-{seed}" for label in SETTINGS for seed in SEEDS}
    # Settings of a seed next to each other, so that a stopped ablation can be compared as far as it came.
    assert started == [str(single[label, seed]) for seed in SEEDS for label in SETTINGS]
    result = json.loads((folder / "result.json").read_text())
    assert result["table"].startswith("2 seeds, 4 held-out pairs in both orders")
    assert "greedy, minus plain" in result["table"]
    assert "sampled, minus plain" in result["table"]
    assert list(result["summaries"]["greedy"]) == ["start", "plain", "slow steps"]
    for summary in result["summaries"]["sampled"].values():
        assert (summary["judgements"], summary["accuracy"]["n"]) == (len(SEEDS) * 4 * 2, len(SEEDS) * 4 * 2)
    judged = {run: read_judgements(at / "records" / "before-sampled.jsonl") for run, at in single.items()}
    assert judged["plain", 0] == judged["slow steps", 0]
    assert [item.id for item in judged["plain", 0]] == [item.id for item in judged["plain", 1]]
    different = weights(single["plain", 0] / "model"), weights(single["slow steps", 0] / "model")
    assert any((different[0][name] != different[1][name]).any() for name in different[0])

    assert_called_again(config, folder, capsys, changed="--config.grpo.kl_coef=0.1")
    (folder / "result.json").unlink()
    (single["slow steps", 1] / "result.json").unlink()
    del started[:]
    run_in_process(config, folder)
    assert started == [str(single["slow steps", 1])]
    assert json.loads((folder / "result.json").read_text()) == result

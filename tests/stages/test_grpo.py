"""GRPO as a story, with a judge whose groups are mixed: half of its answers are right."""

import dataclasses
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.stages.story import (
    OPTIMIZER,
    SHORT,
    arguments,
    assert_called_again,
    assert_complete,
    assert_same_weights,
    assert_trained,
    checkpoint_steps,
    kill_once,
    metric_lines,
    run_in_process,
    write_config,
)
from urt_jax.checkpoints.model_folder import load_model
from urt_jax.config import (
    GrpoConfig,
    LengthConfig,
    LoraConfig,
    ModelSettings,
    RolloutSampling,
)
from urt_jax.data.settings import PoolData
from urt_jax.feeds.rollouts import RolloutMaker
from urt_jax.main import main
from urt_jax.stages import grpo
from urt_jax.training.settings import OptimizerSettings
from urt_jax.types import VisionFeatures, VisionInput

STEPS = 4
FIGURES = {
    *("loss", "grad_norm", "learning_rate", "reward", "reward_std", "frac_reward_zero_std", "kl", "entropy"),
    *("rewards/format/mean", "rewards/accuracy/mean", "completions/mean_length", "completions/clipped_ratio"),
    *("sampling/sampling_logp_difference/mean", "num_tokens", "parse_failure", "all_right", "all_wrong"),
    *("tokens/prompts", "tokens/responses", "timing_s/prompts", "timing_s/rollout", "timing_s/rewards"),
    *("timing_s/update", "step_time", "completions/min_terminated_length", "completions/max_terminated_length"),
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, coin_judge: Path) -> Path:
    """Return a run with two updates a rollout and a reference: every program of the stage is compiled."""
    return write_config(
        tmp_path_factory.mktemp("grpo") / "grpo.py",
        "grpo",
        data={"count": 8, "seed": 2},
        eval_data={"count": 4},
        model={"path": str(coin_judge)},
        steps=STEPS,
        questions_per_step=4,
        responses_per_question=4,
        updates_per_rollout=2,
        micro_batches=2,
        kl_coef=0.04,
        optimizer={**OPTIMIZER, "schedule": "constant"},
        lengths=SHORT,
        save_every=1,
        sample_every=2,
    )


@pytest.fixture(scope="module")
def trainers() -> list[grpo.GrpoTrainer]:
    """Return the trainer of the run in ``finished``."""
    return []


@pytest.fixture(scope="module")
def finished(config: Path, trainers: list[grpo.GrpoTrainer]) -> Path:
    made = grpo.GrpoTrainer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo, "GrpoTrainer", lambda *a: trainers.append(made(*a)) or trainers[-1])
        return run_in_process(config, config.parent / "whole")


def test_a_run_leaves_everything_and_teaches_the_language_model(finished: Path, coin_judge: Path) -> None:
    assert_complete(finished, steps=STEPS, figures=FIGURES)
    assert_trained(finished, coin_judge)
    lines = metric_lines(finished)
    assert lines[0]["rewards/format/mean"] == 1.0
    assert 0.0 < lines[0]["rewards/accuracy/mean"] < 1.0
    assert lines[0]["reward"] == pytest.approx(1.0 + lines[0]["rewards/accuracy/mean"])
    assert max(line["sampling/sampling_logp_difference/mean"] for line in lines) < 1e-4
    assert lines[-1]["kl"] > 0
    steps = [line["tokens/prompts"] + line["tokens/responses"] for line in lines]
    assert [line["num_tokens"] for line in lines] == np.cumsum(steps).tolist()
    result = json.loads((finished / "result.json").read_text())
    assert {"before GRPO", "after GRPO"} <= set(result["table"].replace("  ", "\n").replace("\n ", "\n").split("\n"))
    assert result["before"].keys() == result["after"].keys() == {"greedy", "sampled"}
    for name in ("before-greedy", "before-sampled", "after-greedy", "after-sampled"):
        assert len((finished / "records" / f"{name}.jsonl").read_text().splitlines()) == 8  # 4 pairs, both orders


def test_samples_are_written_at_the_first_step_and_on_schedule(finished: Path) -> None:
    files = sorted((finished / "samples").iterdir())
    assert [path.name for path in files] == ["step-000001.jsonl", "step-000002.jsonl", "step-000004.jsonl"]
    samples = [json.loads(line) for line in files[0].read_text().splitlines()]
    assert len(samples) == 4
    for sample in samples:
        assert len(sample["responses"]) == 4
        for response in sample["responses"]:
            right = response["text"].endswith(f"<answer>{sample['solution']}</answer>")
            assert response["rewards"] == {"format": 1.0, "accuracy": float(right), "consistency": 0.0}
            assert response["reward"] == 1.0 + float(right)


def test_a_run_takes_few_programs(finished: Path, trainers: list[grpo.GrpoTrainer]) -> None:
    (trainer,) = trainers
    assert 1 <= len(trainer.sampler.shapes) <= trainer.rollouts.buckets.count <= 8
    sizes = {
        name: getattr(program, "_cache_size")()  # noqa: B009
        for name, program in (("first", trainer.first), ("later", trainer.later))
    }
    sizes |= trainer.sampler.programs()
    assert sizes == dict.fromkeys(sizes, len(trainer.sampler.shapes))
    # Current policy and reference may lie differently on the devices.
    assert getattr(trainer.score, "_cache_size")() <= 2 * len(trainer.sampler.shapes)  # noqa: B009


def test_called_again_it_prints_its_table_and_keeps_to_its_config(
    config: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_called_again(config, finished, capsys, changed="--config.kl_coef=0.0")


def test_preempted_between_rollouts_of_several_updates_it_ends_with_the_same_bits(
    config: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Steps are rollouts: two updates each must not make a resumed run skip half of them."""
    advance = grpo.GrpoTrainer.advance

    def noticed(trainer: grpo.GrpoTrainer, state: Any, step: int) -> Any:
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return advance(trainer, state, step)

    stopped = config.parent / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(grpo.GrpoTrainer, "advance", noticed)
        assert main(arguments(config, stopped)) == 75
    assert f"saved after step 2 of {STEPS}" in capsys.readouterr().err
    assert checkpoint_steps(stopped)[-1] == 2
    respond = grpo.RewardModel.respond
    judged: list[int] = []

    def counted(model: Any, queries: Any, **settings: Any) -> list[tuple[str, ...]]:
        judged.append(len(queries))
        return respond(model, queries, **settings)

    monkeypatch.setattr(grpo.RewardModel, "respond", counted)
    run_in_process(config, stopped, "--config.workers=1")
    assert judged == [8, 8], "what was judged before training is read back, not judged again"
    assert [line["step"] for line in metric_lines(stopped)] == list(range(1, STEPS + 1))
    assert_same_weights(stopped, finished)


@pytest.mark.slow
def test_killed_after_a_checkpoint_it_ends_with_the_same_bits(config: Path, finished: Path) -> None:
    killed = config.parent / "killed"
    kill_once(config, killed, lambda: bool(checkpoint_steps(killed)))
    run_in_process(config, killed)
    assert_same_weights(killed, finished)


def test_a_sampler_that_drifts_from_the_trainer_stops_the_run(coin_judge: Path, tmp_path: Path) -> None:
    trainer = grpo.GrpoTrainer(hand_config(coin_judge), tmp_path, load_model(str(coin_judge)))
    name = "sampling/sampling_logp_difference/mean"
    trainer._check_agreement(4, {name: 0.04, "skipped_updates": 0})
    for difference in (0.06, float("nan")):
        with pytest.raises(
            grpo.DisagreementError, match=r"step 5: .*differ by .*, agreement_band is 0\.05.*check dtype"
        ):
            trainer._check_agreement(4, {name: difference, "skipped_updates": 0})


def hot_trainer(coin_judge: Path, folder: Path) -> grpo.GrpoTrainer:
    """Return a trainer at a temperature at which the judge writes nearly anything."""
    config = dataclasses.replace(hand_config(coin_judge), sampling=RolloutSampling(temperature=4.0))
    return grpo.GrpoTrainer(config, folder, load_model(str(coin_judge)))


def test_the_gate_lets_a_sound_step_through(coin_judge: Path, tmp_path: Path) -> None:
    trainer = hot_trainer(coin_judge, tmp_path)
    _, figures, _ = trainer.advance(trainer.start, 0)
    assert float(figures["sampling/sampling_logp_difference/mean"]) < 1e-4


def test_the_gate_stops_a_sampler_of_another_temperature(
    coin_judge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = hot_trainer(coin_judge, tmp_path)
    given = trainer.rollouts._settings["sampling"]
    trainer.rollouts._settings["sampling"] = dataclasses.replace(given, temperature=0.5 * given.temperature)
    with pytest.raises(grpo.DisagreementError, match=r"step 1: .*agreement_band is 0\.05"):
        trainer.advance(trainer.start, 0)


def test_the_gate_stops_a_sampler_that_lets_a_vision_token_through(coin_judge: Path, tmp_path: Path) -> None:
    trainer = hot_trainer(coin_judge, tmp_path)
    image = trainer.processor.config.image_token_id
    vocabulary = trainer.sampler.stops.plain
    assert vocabulary.suppressed_V[image]
    let_through = vocabulary._replace(suppressed_V=vocabulary.suppressed_V.at[image].set(False))
    trainer.sampler.stops._made[((),)] = let_through, {(): 0}

    def steps() -> None:
        state = trainer.start
        for step in range(8):  # it comes up about once in the size of the vocabulary
            state, *_ = trainer.advance(state, step)

    with pytest.raises(grpo.DisagreementError, match=r"step \d: .*agreement_band is 0\.05"):
        steps()


def test_rates_follow_updates_and_questions_follow_the_step(coin_judge: Path, tmp_path: Path) -> None:
    trainer = grpo.GrpoTrainer(hand_config(coin_judge), tmp_path, load_model(str(coin_judge)))
    np.testing.assert_allclose(trainer.rates, [0.0, 1e-3, 1e-3], rtol=1e-6)  # at updates 0, 2 and 4 of 6
    questions = [[question.example.id for question in trainer.rollouts.feed.draw(step)] for step in range(3)]
    assert sorted(questions[0] + questions[1]) == sorted(set(questions[0] + questions[1])), "an epoch shows each once"
    assert questions == [[question.stream for question in trainer.rollouts.feed.draw(step)] for step in range(3)]


@pytest.mark.parametrize(
    ("changes", "encoded"),
    [
        ({}, True),
        ({"model": {"trainable": ("",)}}, False),
        ({"model": {"lora": LoraConfig(rank=2)}}, True),
        ({"dynamic_sampling": 2}, False),
    ],
    ids=str,
)
def test_a_tower_at_rest_encodes_for_the_sampler_alone(
    coin_judge: Path, tmp_path: Path, changes: dict[str, Any], encoded: bool
) -> None:
    config = hand_config(coin_judge)
    model = dataclasses.replace(config.model, **changes.pop("model", {}))
    config = dataclasses.replace(config, model=model, **changes)
    trainer = grpo.GrpoTrainer(config, tmp_path, load_model(str(coin_judge)))
    made = trainer.rollouts.make(trainer.start.params, 0)
    batch = trainer._batch(made, np.ones(len(made.rollout.texts), np.float32), 0)
    assert isinstance(batch.rows.prompts.vision, VisionFeatures if encoded else VisionInput)


def hand_config(coin_judge: Path) -> GrpoConfig:
    return GrpoConfig(
        model=ModelSettings(path=str(coin_judge)),
        data=PoolData(count=8),
        steps=3,
        questions_per_step=4,
        updates_per_rollout=2,
        kl_coef=0.0,
        optimizer=OptimizerSettings(learning_rate=1e-3, warmup_steps=2, schedule="constant"),
        lengths=LengthConfig(**SHORT),
    )


OWN_REWARD = """
def decided(*, text, solution, example):
    return None if example.meta.get("swapped") else 0.25 * text.endswith(solution + "</answer>")
"""
PARTS = {"format", "accuracy", "consistency", "swap_consistency", "overlong", "decided"}


@pytest.fixture(scope="module")
def twin_config(tmp_path_factory: pytest.TempPathFactory, coin_judge: Path) -> Iterator[Path]:
    """Return a run with twins, a curriculum, refills and a reward of the user's own."""
    folder = tmp_path_factory.mktemp("twins")
    (folder / "grpo_own_rewards.py").write_text(OWN_REWARD)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield write_config(
            folder / "grpo.py",
            "grpo",
            data={"count": 10, "seed": 2},
            eval_data={"count": 2},
            model={"path": str(coin_judge)},
            steps=6,
            questions_per_step=4,
            responses_per_question=2,
            kl_coef=0.0,
            rewards={
                **{"swap_consistency": 0.5, "overlong": 1.0, "overlong_cache": 4},
                "user": ({"function": "grpo_own_rewards:decided", "weight": 1.0},),
            },
            curriculum={"lowest": 0.3, "retire_after": 1, "rescore_every": 4},
            dynamic_sampling=1,
            optimizer={**OPTIMIZER, "schedule": "constant"},
            lengths=SHORT,
            save_every=1,
            sample_every=4,  # and at the last step
        )


@pytest.fixture(scope="module")
def twins(twin_config: Path) -> Path:
    return run_in_process(twin_config, twin_config.parent / "whole")


def test_a_run_with_twins_and_a_curriculum(twins: Path) -> None:
    lines = metric_lines(twins)
    assert [line["step"] for line in lines] == list(range(1, 7))
    assert {f"rewards/{name}/mean" for name in PARTS} <= set(lines[0])
    assert all(0.0 <= line["rewards/swap_consistency/mean"] <= 1.0 for line in lines)
    assert {line["extra_rollouts"] for line in lines} <= {0.0, 1.0}
    assert any(line["curriculum/left"] > 0 for line in lines)
    assert all(line["curriculum/left"] + line["curriculum/active"] == 10 for line in lines)
    assert all(line["rewards/overlong/mean"] == 0.0 for line in lines if line["completions/max_length"] <= 12)
    samples = [json.loads(line) for line in (twins / "samples" / "step-000001.jsonl").read_text().splitlines()]
    parts = [response["rewards"] for sample in samples for response in sample["responses"]]
    assert {name for rewards in parts for name in rewards} == PARTS
    assert None in [rewards["decided"] for rewards in parts]


def test_the_report_shows_the_last_sampled_questions_as_they_were_asked(twins: Path) -> None:
    page = (twins / "report.html").read_text()
    samples = [json.loads(line) for line in (twins / "samples" / "step-000006.jsonl").read_text().splitlines()]
    shown = page[page.index("<h2>Completions</h2>") :]
    assert shown.count("<article") == 4
    assert shown.count("<img") == 8
    for article, sample in zip(shown.split("<article")[1:], samples):
        assert sample["id"] in article
        better = article[article.index('class="candidate better"') :]
        assert f"{sample['solution'].removesuffix(' is better')} (better)" in better
        assert article.count("<pre>") == len(sample["responses"]) == 2
    for name in PARTS:
        assert f"<th>{name.replace('_', ' ')}</th>" in shown
    assert "rewards/swap_consistency/mean" in page, "its curve"


def test_twins_and_a_curriculum_go_on_with_the_same_bits(
    twin_config: Path, twins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped when items have left: a pool that began anew would ask other questions."""
    make = RolloutMaker.make

    def noticed(maker: RolloutMaker, params: Any, step: int) -> Any:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return make(maker, params, step)

    stopped = twin_config.parent / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(RolloutMaker, "make", noticed)
        assert main(arguments(twin_config, stopped)) == 75
    run_in_process(twin_config, stopped)
    assert_same_weights(stopped, twins)

    def untimed(line: dict[str, float]) -> dict[str, float]:
        return {name: value for name, value in line.items() if "time" not in name and "timing" not in name}

    assert [untimed(line) for line in metric_lines(stopped)] == [untimed(line) for line in metric_lines(twins)]


def test_a_reward_that_is_not_there_is_told_before_anything_is_judged(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write_config(tmp_path / "own.py", "grpo", rewards={"user": ({"function": "no_such_rewards:f"},)})
    assert main(arguments(settings, tmp_path / "run")) == 2
    assert "config.rewards.user: reward 'no_such_rewards:f': there is no module" in capsys.readouterr().err
    assert not (tmp_path / "run" / "records").exists()


def test_the_update_gets_the_loss_and_the_longest_response_of_the_settings(
    coin_judge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(hand_config(coin_judge), loss="dr_grpo", clip_high=0.28)
    given: list[Any] = []

    def compiled(model: Any, optimizer: Any, state: Any, mesh: Any, loss: Any, **settings: Any) -> None:
        given.append((loss.loss, loss.clip_high, settings["first_update"], settings["max_tokens"]))

    monkeypatch.setattr(grpo, "compile_grpo_step", compiled)
    grpo.GrpoTrainer(config, tmp_path, grpo.open_model(config.model, config.pixels, seed=0))
    longest = SHORT["max_new_tokens"]
    assert given == [("dr_grpo", 0.28, True, longest), ("dr_grpo", 0.28, False, longest)]

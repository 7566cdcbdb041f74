"""Stages with adapters as stories: the adapter and the merged model are left, and the base is what it was."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.stages.story import (
    LENGTHS,
    OPTIMIZER,
    SHORT,
    arguments,
    assert_complete,
    assert_same_weights,
    checkpoint_steps,
    kill_once,
    metric_lines,
    run_in_process,
    weights,
    write_config,
)
from urt_jax import RewardModel
from urt_jax.checkpoints.model_folder import load_model
from urt_jax.config import GrpoConfig, LengthConfig, LoraConfig, ModelSettings
from urt_jax.data.settings import PoolData
from urt_jax.main import main
from urt_jax.models.lora import without_adapters
from urt_jax.sharding.placement import place_state
from urt_jax.stages import grpo

STEPS = 6
FAST = {**OPTIMIZER, "learning_rate": 1e-2}


def sft_settings(judge: Path, reasonings: Path, **lora: Any) -> dict[str, Any]:
    return {
        "data": {"path": str(reasonings)},
        "model": {"path": str(judge), "lora": {"rank": 4, "alpha": 8.0, **lora}},
        **{"steps": STEPS, "batch_size": 8, "optimizer": FAST, "lengths": LENGTHS, "save_every": 2},
    }


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, coin_judge: Path, reasonings: Path) -> Path:
    return write_config(tmp_path_factory.mktemp("lora") / "sft.py", "sft", **sft_settings(coin_judge, reasonings))


@pytest.fixture(scope="module")
def finished(config: Path) -> Path:
    return run_in_process(config, config.parent / "whole")


def assert_adapter(folder: Path, start: Path, *, rank: int) -> None:
    """Check that the run left an adapter of ``start`` which, merged, is its model, and that it moved nothing else."""
    settings = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert (settings["r"], settings["base_model_name_or_path"]) == (rank, str(start))
    before, after = weights(start), weights(folder / "model")
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {name for name in before if name.endswith("_proj.weight") and "visual" not in name}
    merged, whole = load_model(str(folder / "adapter")), load_model(str(folder))
    assert merged.folder == start
    assert jax.tree.structure(merged.params) == jax.tree.structure(whole.params)
    for one, other in zip(jax.tree.leaves(merged.params), jax.tree.leaves(whole.params)):
        np.testing.assert_array_equal(one, other)


def test_sft_leaves_an_adapter_and_the_model_it_makes(finished: Path, coin_judge: Path) -> None:
    assert_complete(finished, steps=STEPS, figures={"loss", "grad_norm"})
    assert_adapter(finished, coin_judge, rank=4)
    lines = metric_lines(finished)
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.05
    messages = [{"role": "user", "content": "which is better"}]
    whole, adapter = (RewardModel.load(str(folder)) for folder in (finished, finished / "adapter"))
    np.testing.assert_allclose(whole.logits(messages=messages), adapter.logits(messages=messages), atol=1e-5)


def test_its_checkpoints_hold_adapters_alone(finished: Path) -> None:
    held = {path.name for path in (finished / "checkpoints" / str(STEPS) / "state").rglob("*lora*")}
    told = json.dumps(sorted(held)) + (finished / "checkpoints" / str(STEPS) / "state" / "_METADATA").read_text()
    assert "lora_a" in told
    assert "kernel" not in told


def test_killed_after_a_checkpoint_it_ends_with_the_same_bits(config: Path, finished: Path) -> None:
    killed = config.parent / "killed"
    kill_once(config, killed, lambda: bool(checkpoint_steps(killed)))
    run_in_process(config, killed)
    assert_same_weights(killed, finished)
    assert (killed / "adapter" / "adapter_model.safetensors").read_bytes() == (
        finished / "adapter" / "adapter_model.safetensors"
    ).read_bytes()


def test_adapters_on_an_adapter_and_targets_that_are_none_are_refused(
    finished: Path, reasonings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on_adapter = write_config(tmp_path / "a.py", "sft", **sft_settings(finished / "adapter", reasonings))
    assert main(arguments(on_adapter, tmp_path / "a")) == 2
    assert "is an adapter, and lora.rank 4 would train new ones on it; give a whole model, such as " in (
        told := capsys.readouterr().err
    )
    assert str(finished / "model") in told
    misspelt = write_config(tmp_path / "b.py", "sft", **sft_settings(finished, reasonings, targets=("q_proj",)))
    assert main(arguments(misspelt, tmp_path / "b")) == 2
    assert (
        "lora targets ['q_proj'] match no projection; the projections are: decoder/layers/" in capsys.readouterr().err
    )


def grpo_settings(judge: Path) -> dict[str, Any]:
    return {
        "data": {"count": 8, "seed": 2},
        "eval_data": {"count": 2},
        "model": {"path": str(judge), "lora": {"rank": 2}},
        **{"steps": 3, "questions_per_step": 4, "responses_per_question": 4, "kl_coef": 0.04},
        **{"optimizer": {**FAST, "warmup_steps": 0}, "lengths": SHORT, "save_every": 2},
    }


@pytest.mark.slow
def test_reject_leaves_an_adapter(coin_judge: Path, tmp_path: Path) -> None:
    config = write_config(
        tmp_path / "reject.py",
        "reject",
        data={"count": 8, "seed": 2},
        model={"path": str(coin_judge), "lora": {"rank": 2}},
        **{"samples_per_item": 2, "batch_questions": 4, "steps": 3, "batch_size": 8},
        **{"optimizer": FAST, "lengths": SHORT},
    )
    folder = run_in_process(config, tmp_path / "run")
    assert_complete(folder, steps=3, figures={"loss"})
    assert_adapter(folder, coin_judge, rank=2)


@pytest.mark.slow
def test_grpo_leaves_an_adapter_and_measures_from_its_base(coin_judge: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "grpo.py", "grpo", **grpo_settings(coin_judge))
    folder = run_in_process(config, tmp_path / "run")
    assert_complete(folder, steps=3, figures={"loss", "kl", "reward"})
    assert_adapter(folder, coin_judge, rank=2)
    lines = metric_lines(folder)
    assert lines[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert lines[-1]["kl"] > 1e-4
    assert max(line["sampling/sampling_logp_difference/mean"] for line in lines) < 1e-4


def test_the_reference_of_grpo_is_the_base_and_no_second_copy_of_it(coin_judge: Path, tmp_path: Path) -> None:
    settings = GrpoConfig(
        model=ModelSettings(path=str(coin_judge), lora=LoraConfig(rank=2)),
        data=PoolData(count=8),
        steps=2,
        questions_per_step=4,
        kl_coef=0.1,
        lengths=LengthConfig(**SHORT),
    )
    trainer = grpo.GrpoTrainer(settings, tmp_path, load_model(str(coin_judge)))
    assert trainer.reference is None
    moved = trainer.start._replace(trainable=jax.tree.map(lambda leaf: leaf + 1.0, trainer.start.trainable))
    reference = trainer.reference_params(moved)
    base = load_model(str(coin_judge)).params
    assert jax.tree.structure(reference) == jax.tree.structure(place_state(trainer.mesh, base))
    for one, other in zip(jax.tree.leaves(reference), jax.tree.leaves(base)):
        np.testing.assert_array_equal(one, other)
    kept = {id(leaf) for leaf in jax.tree.leaves(moved.frozen)}
    assert all(id(leaf) in kept for leaf in jax.tree.leaves(reference))
    assert jax.tree.structure(without_adapters(moved.params)) == jax.tree.structure(base)

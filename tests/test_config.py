"""Settings: defaults hold, every problem is reported at once, messages name what to do."""

import dataclasses
import json
import typing
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from urt_jax.config import (
    STAGES,
    GrpoConfig,
    PipelineConfig,
    SftConfig,
    as_json,
    resolve,
    with_defaults,
)
from urt_jax.data.settings import MixtureData
from urt_jax.errors import BadInputError
from urt_jax.losses.advantages import SCALES
from urt_jax.losses.grpo import OBJECTIVES
from urt_jax.losses.kl import KL_KINDS


def problems_of(**values: object) -> str:
    with pytest.raises(BadInputError) as caught:
        resolve(ConfigDict(values))
    return str(caught.value)


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_defaults_of_every_stage_are_sound(stage: str) -> None:
    resolved = resolve(ConfigDict({"stage": stage}))
    assert type(resolved) is STAGES[stage]
    assert resolved.workdir == f"runs/{stage}"
    assert resolve(with_defaults(ConfigDict({"stage": stage}))) == resolved


def test_values_reach_the_record() -> None:
    config = ConfigDict({"stage": "grpo", "steps": 7, "optimizer": {"learning_rate": 1, "warmup_steps": 2}})
    resolved = resolve(config)
    assert isinstance(resolved, GrpoConfig)
    assert resolved.steps == 7
    assert resolved.optimizer.learning_rate == 1.0
    assert type(resolved.optimizer.learning_rate) is float
    assert resolved.optimizer.b2 == GrpoConfig().optimizer.b2


def test_all_problems_are_reported_at_once() -> None:
    text = problems_of(
        stage="grpo",
        stepz=5,
        seed="one",
        optimizer={"learning_rate": -1.0, "schedule": "cosin"},
        loss="gpro",
        responses_per_question=1,
    )
    assert text.startswith("6 problems in the config of stage 'grpo':")
    assert "config.stepz: 'stepz' is unknown; did you mean 'steps'? known: workdir, seed, steps, save_every" in text
    assert "config.seed: got 'one' (str), needs a whole number" in text
    assert "config.optimizer.learning_rate: got -1.0, must be above 0" in text
    assert "config.optimizer.schedule: 'cosin' is unknown; did you mean 'cosine'? known: cosine, linear" in text
    assert "config.loss: 'gpro' is unknown; did you mean 'grpo'?" in text
    assert "config.responses_per_question: got 1, must be at least 2" in text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": True}, "config.steps: got True (bool), needs a whole number"),
        ({"steps": 2.0}, "config.steps: got 2.0 (float), needs a whole number"),
        ({"optimizer": {"clip_norm": float("nan")}}, "config.optimizer.clip_norm: got nan (float), needs a number"),
        ({"optimizer": 3}, "config.optimizer: got 3 (int), needs a group of knobs"),
        ({"model": {"trainable": "decoder"}}, "config.model.trainable: got 'decoder' (str), needs a tuple"),
        ({"model": {"trainable": ()}}, "config.model.trainable: is empty, needs at least one entry"),
        ({"model": {"lora": {"rank": -1}}}, "config.model.lora.rank: got -1, must be at least 0"),
        ({"model": {"lora": {"targets": ()}}}, "config.model.lora.targets: is empty, needs at least one entry"),
        ({"data": {"max_frames": 0}}, "config.data[0].max_frames: got 0, must be at least 1"),
        ({"data": {"fps": 0.0}}, "config.data[0].fps: got 0.0, must be above 0"),
        ({"data": {"fps": 5000.0}}, "config.data[0].fps: got 5000.0, must be at most 1000"),
        ({"model": {"path": None}}, "config.model.path: got None (NoneType), needs a text"),
    ],
)
def test_wrong_values(values: dict[str, object], message: str) -> None:
    assert message in problems_of(stage="sft", **values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stage": "sft", "steps": 5}, "config.optimizer.warmup_steps: 10 is not below steps 5"),
        ({"stage": "sft", "mesh": {"data": 3}}, "config.batch_size: 32 rows cannot be split over data x fsdp = 3 x 1"),
        ({"stage": "sft", "mesh": {"fsdp": -1}}, "config.mesh.data: only one axis can be -1"),
        ({"stage": "sft", "mesh": {"data": 0}}, "config.mesh.data: 0 is not a number of devices"),
        (
            {"stage": "sft", "mesh": {"sequence": 3}},
            "config.mesh.sequence: 3 does not divide rows, which are",
        ),
        ({"stage": "sft", "mesh": {"sequence": -1}}, "config.mesh.sequence: -1 does not divide rows"),
        (
            {"stage": "grpo", "mesh": {"sequence": 8}, "lengths": {"max_new_tokens": 100}},
            "config.lengths.max_new_tokens: 100 tokens cannot be split over sequence = 8 devices; give a multiple of 8",
        ),
        (
            {"stage": "grpo", "mesh": {"sequence": 2}, "model": {"attention": "splash"}},
            "config.lengths.max_new_tokens: 160 tokens cannot be split over sequence = 2 devices; give a mul",
        ),
        (
            {"stage": "sft", "mesh": {"sequence": 2}, "model": {"attention": "cudnn"}},
            "config.model.attention: 'cudnn' cannot split rows over sequence = 2 devices; give 'xla'",
        ),
        ({"stage": "sft", "pixels": {"min_pixels": 9, "max_pixels": 4}}, "config.pixels.min_pixels: 9 is above"),
        (
            {"stage": "sft", "data": {"tasks": {"image_gen": 0.0}}},
            "data[0].tasks: no task has a positive weight",
        ),
        (
            {"stage": "sft", "data": {"tasks": {"image_gne": 1.0}}},
            "data[0].tasks: 'image_gne' is unknown; did you",
        ),
        (
            {"stage": "sft", "data": {"tasks": {"image_gen": -1.0}}},
            "data[0].tasks.image_gen: got -1.0, must be",
        ),
        (
            {"stage": "sft", "model": {"lora": {"rank": 4}, "trainable": (".*",)}},
            "config.model.trainable: is ('.*',), but with lora.rank 4 only adapters are trained; leave it at its",
        ),
        ({"stage": "sft", "model": {"lora": {"rank": 4}, "init": "random"}}, "config.model.init: is 'random', but"),
        ({"stage": "grpo", "sampling": {"top_p": 0.9}}, "config.sampling.top_p: 'top_p' is unknown"),
        ({"stage": "reject", "sampling": {"stop": ["a", ""]}}, "config.sampling.stop: an empty text would end every"),
        ({"stage": "grpo", "sampling": {"temperature": 0.0}}, "config.sampling.temperature: 0 is greedy"),
        (
            {"stage": "grpo", "delta": 1.2},
            "config.delta: 1.2 is not above 1 + clip_high = 1.2, so it would clip",
        ),
        (
            {"stage": "grpo", "loss": "cispo", "delta": 2.0},
            "config.delta: 2.0 is not read by loss 'cispo', only by",
        ),
        (
            {"stage": "grpo", "loss": "sapo", "clip_high": 0.28},
            "config.clip_high: 0.28 is not read by loss 'sapo'",
        ),
        (
            {"stage": "grpo", "cispo_cap": 4.0},
            "config.cispo_cap: 4.0 is not read by loss 'grpo', only by cispo; leave",
        ),
        (
            {"stage": "grpo", "kl_kind": "none"},
            "config.kl_coef: is 0.04, but kl_kind is 'none'; give kl_coef 0",
        ),
        (
            {"stage": "grpo", "kl_kind": "k2", "kl_bias_correction": True},
            "config.kl_bias_correction: corrects k1 and k3, but kl_kind is 'k2' and kl_coef 0.04",
        ),
        ({"stage": "grpo", "importance_cap": 1.0}, "config.importance_cap: got 1.0, must be above 1"),
        ({"stage": "grpo", "entropy_coef": -0.1}, "config.entropy_coef: got -0.1, must be at least 0"),
        ({"stage": "grpo", "rewards": {"format": 0.0, "accuracy": 0.0}}, "config.rewards.format: every reward has"),
        (
            {"stage": "grpo", "questions_per_step": 3, "rewards": {"swap_consistency": 1.0}},
            "config.questions_per_step: 3 is odd, but rewards.swap_consistency shows every pair in both orders",
        ),
        (
            {"stage": "grpo", "data": {"swap": False}, "rewards": {"swap_consistency": 1.0}},
            "config.data.swap: is False, but rewards.swap_consistency shows every pair in both orders",
        ),
        (
            {"stage": "grpo", "rewards": {"overlong": 1.0, "overlong_cache": 161}},
            "config.rewards.overlong_cache: 161 is above the longest response, 160 tokens",
        ),
        (
            {"stage": "grpo", "rewards": {"user": {"function": "brevity"}}},
            "config.rewards.user[0].function: 'brevity' names no function; give module:function",
        ),
        (
            {"stage": "grpo", "rewards": {"user": ({"function": "a:f"}, {"function": "b.c:f"})}},
            "config.rewards.user[1].function: the name 'f' is taken by another reward",
        ),
        (
            {"stage": "grpo", "rewards": {"user": ({"function": "a:accuracy"},)}},
            "config.rewards.user[0].function: the name 'accuracy' is taken by another reward",
        ),
        ({"stage": "grpo", "curriculum": {"lowest": 0.9, "highest": 0.1}}, "config.curriculum.lowest: 0.9 is above"),
        ({"stage": "grpo", "curriculum": {"rescore_every": 5}}, "config.curriculum.rescore_every: is set, but no"),
        ({"stage": "reject", "sampling": {"temperature": 0.0}}, "config.sampling.temperature: 0 is greedy: all 4"),
        ({"stage": "evaluate", "data": {"count": None}}, "config.data.count: 'scenes' is endless"),
        ({"stage": "evaluate", "models": {}}, "config.models: is empty"),
        ({"stage": "evaluate", "models": {"a": 3}}, "config.models.a: got 3 (int), needs a text"),
        ({"stage": "evaluate", "modes": ("greedy", "sample")}, "config.modes[1]: 'sample' is unknown; did you mean"),
        ({"stage": "distill", "teacher": {"base_url": "api.x"}}, "config.teacher.base_url: 'api.x' is neither"),
        (
            {"stage": "distill", "data": {"path": __file__}},
            "config.teacher.base_url: the built-in teacher answers only",
        ),
        ({"stage": "base", "shape": {"heads": 3}}, "config.shape.kv_heads: 2 does not divide heads 3"),
        ({"stage": "base", "shape": {"width": 100}}, "config.shape.width: 100 is not a multiple of 4 x 4 heads"),
        ({"stage": "pipeline", "sft": {"seed": 1}}, "config.sft.seed: is set by the enclosing stage"),
        ({"stage": "pipeline", "sft": {"stage": "grpo"}}, "config.sft.stage: is 'grpo'; this group holds"),
        ({"stage": "pipeline", "grpo": {"sampling": {"min_p": 0.1}}}, "config.grpo.sampling.min_p: 'min_p' is unknown"),
    ],
)
def test_clashes_between_knobs(values: dict[str, object], message: str) -> None:
    assert message in problems_of(**values)


def test_unknown_stage_names_the_nearest() -> None:
    assert "config.stage: 'grop' is unknown; did you mean 'grpo'? known: base, distill" in problems_of(stage="grop")
    assert "config.stage: None is unknown; known: base" in problems_of(steps=1)


def test_missing_files_are_reported_together(tmp_path: Path) -> None:
    data = {"path": str(tmp_path / "a.jsonl"), "media_root": str(tmp_path / "m"), "template": str(tmp_path / "t.txt")}
    text = problems_of(stage="grpo", data=data)
    assert text.startswith("3 problems")
    assert f"config.data.path: there is no '{tmp_path / 'a.jsonl'}'; give 'scenes', 'drills', or hf:org/name" in text
    assert f"config.data.template: prompt template '{tmp_path / 't.txt'}': neither a shipped family (v1, v2)" in text


def test_a_misspelt_template_is_told_before_a_pipeline_starts() -> None:
    text = problems_of(stage="pipeline", sft={"data": {"template": "v3"}}, grpo={"data": {"template": "v2"}})
    assert text.startswith("1 problem ")
    assert "config.sft.data.template: prompt template 'v3': neither a shipped family" in text


def test_a_pipeline_wires_files_itself_so_they_need_not_exist_yet() -> None:
    resolved = resolve(ConfigDict({"stage": "pipeline", "sft": {"data": {"path": "later.jsonl"}}}))
    assert resolved.sft.data[0].path == "later.jsonl"


def test_several_sources_are_bound_one_by_one() -> None:
    config = ConfigDict({"stage": "sft"})
    config.data = (ConfigDict({"count": 5}), ConfigDict({"weight": 2.0, "seed": 3}))
    resolved = resolve(with_defaults(config))
    assert isinstance(resolved, SftConfig)
    assert resolved.data == (MixtureData(count=5), MixtureData(weight=2.0, seed=3))


def test_a_stage_inside_a_pipeline_keeps_its_own_defaults() -> None:
    filled = with_defaults(ConfigDict({"stage": "pipeline", "evaluate": {"batch_size": 8}}))
    assert filled["evaluate"]["data"]["count"] == 512
    assert filled["evaluate"]["batch_size"] == 8
    assert "seed" not in filled["evaluate"]
    assert "workdir" not in filled["grpo"]


def test_pipeline_stages_get_numbered_folders_and_the_seed() -> None:
    resolved = resolve(ConfigDict({"stage": "pipeline", "workdir": "w", "seed": 3}))
    assert isinstance(resolved, PipelineConfig)
    assert [part.workdir for part in resolved.stages()] == [
        "w/1-distill", "w/2-sft", "w/3-reject", "w/4-grpo", "w/5-evaluate",
    ]  # fmt: skip
    assert {part.seed for part in resolved.stages()} == {3}


def test_unknown_keys_survive_the_defaults_and_are_reported() -> None:
    filled = with_defaults(ConfigDict({"stage": "sft", "optimizer": {"lr": 1.0}}))
    with pytest.raises(BadInputError, match=r"config.optimizer.lr: 'lr' is unknown"):
        resolve(filled)


def test_a_run_has_the_reward_parts_that_are_asked_for() -> None:
    user = ({"function": "package.module:clarity", "weight": 0.5}, {"function": "m:length", "weight": 0})
    rewards = resolve(
        with_defaults(ConfigDict({"stage": "grpo", "rewards": {"overlong": 2, "brevity": 1, "user": user}}))
    ).rewards
    assert rewards.parts() == {
        **{"format": 1.0, "accuracy": 1.0, "consistency": 0.0, "overlong": 2.0},
        **{"brevity": 1.0, "clarity": 0.5, "length": 0.0},
    }
    assert GrpoConfig().rewards.parts() == {"format": 1.0, "accuracy": 1.0, "consistency": 0.0}


def test_choices_of_the_loss_are_those_the_losses_know() -> None:
    hints = typing.get_type_hints(GrpoConfig)
    assert set(typing.get_args(hints["loss"])) == set(OBJECTIVES)
    assert set(typing.get_args(hints["kl_kind"])) == set(KL_KINDS)
    assert typing.get_args(typing.get_type_hints(GrpoConfig)["advantage_scale"]) == SCALES


def test_as_json_is_plain_and_complete() -> None:
    values = as_json(SftConfig())
    assert json.loads(json.dumps(values)) == values
    assert values["stage"] == "sft"
    assert values.keys() - {"stage"} == {item.name for item in dataclasses.fields(SftConfig)}

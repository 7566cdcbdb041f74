"""Knobs on the command line: whole mappings, tuples and groups, the order they are given in, and unknown names."""

from pathlib import Path
from typing import Any

import pytest

from urt_jax.config.overrides import MAX_DEPTH, MAX_LITERAL
from urt_jax.data.settings import MixtureData
from urt_jax.errors import BadInputError
from urt_jax.main import read_arguments
from urt_jax.rewards.weights import RewardFunction

CONFIGS = Path(__file__).parents[1] / "configs"
TWO_SOURCES = "--config.data=[{'path': 'scenes', 'count': 5}, {'path': 'drills', 'weight': 2}]"


def read(name: str, *arguments: str) -> Any:
    return read_arguments([f"--config={CONFIGS / name}.py", "--workdir=w", *arguments])


def refused(name: str, *arguments: str) -> str:
    with pytest.raises(BadInputError) as caught:
        read(name, *arguments)
    assert len(str(caught.value)) < 1500
    return str(caught.value)


def test_a_mapping_takes_the_place_of_the_one_that_is_there() -> None:
    models = read("evaluate", "--config.models={'Qwen2.5': 'org/name@main', 'other': 'runs/sft'}").models
    assert models == {"Qwen2.5": "org/name@main", "other": "runs/sft"}
    assert read("evaluate", "--config.models.cold start=x").models == {"base": "urt-tiny", "cold start": "x"}
    later = read("evaluate", "--config.models={'a.b': 'x', 'c': 'y'}", "--config.models.a.b=z").models
    assert later == {"a.b": "z", "c": "y"}


@pytest.mark.parametrize("text", ["('greedy', 'direct')", "['greedy', 'direct']", "'greedy', 'direct'"])
def test_a_tuple_is_a_python_literal(text: str) -> None:
    assert read("evaluate", f"--config.modes={text}").modes == ("greedy", "direct")


def test_a_tuple_of_one_is_that_one() -> None:
    assert read("evaluate", "--config.modes=greedy").modes == ("greedy",)
    assert read("study", "--config.seeds=4").seeds == (4,)
    assert read("sft", TWO_SOURCES, "--config.model.trainable=^decoder/(a|b)\\d$").model.trainable == (
        "^decoder/(a|b)\\d$",
    )


def test_a_tuple_of_records_is_replaced_whole_and_its_records_are_knobs_then() -> None:
    assert read("sft", TWO_SOURCES).data == (MixtureData(count=5), MixtureData(path="drills", weight=2.0))
    assert read("sft", TWO_SOURCES, "--config.data[1].count=7").data[1].count == 7
    alone = read("sft", "--config.data={'count': 3}", "--config.data.seed=8")
    assert alone.data == (MixtureData(count=3, seed=8),)
    assert read("sft", TWO_SOURCES, "--config.data[0]={'seed': 4}").data[0] == MixtureData(count=5, seed=4)
    user = read("grpo", "--config.rewards.user=[{'function': 'm:f', 'weight': 2}]").rewards.user
    assert user == (RewardFunction("m:f", 2.0),)


def test_settings_of_an_ablation_are_given_whole_or_one_by_one() -> None:
    changes = "{'kl_coef': 0, 'data': {'count': 9}}"
    rows = f"--config.settings=[{{'name': 'plain'}}, {{'name': 'b', 'changes': {changes}}}]"
    config = read("ablation", rows, "--config.settings[1].changes.data.count=8", "--config.grpo.steps=50")
    assert [setting.name for setting in config.settings] == ["plain", "b"]
    run = config.runs()["b"][0]
    assert (run.kl_coef, run.data.count, run.steps) == (0.0, 8, 50)


def test_a_group_changes_the_knobs_it_names() -> None:
    plain = read("grpo")
    changed = read("grpo", "--config.model={'remat': 'full', 'lora': {'rank': 4}}", "--config.model.lora.alpha=8")
    assert (changed.model.remat, changed.model.lora.rank, changed.model.lora.alpha) == ("full", 4, 8.0)
    assert changed.model.path == plain.model.path
    assert changed.model.lora.targets == plain.model.lora.targets
    both = read("grpo", "--config.optimizer.clip_norm=0.5", "--config.optimizer={'b2': 0.6}").optimizer
    assert (both.clip_norm, both.b2, both.warmup_steps) == (0.5, 0.6, plain.optimizer.warmup_steps)
    inner = read("pipeline", "--config.evaluate={'models': {'a': 'b'}}").evaluate
    assert inner.models == {"a": "b"}


def test_a_default_record_is_not_changed_by_an_override() -> None:
    read("pipeline", "--config.evaluate.models.base=x", "--config.grpo.optimizer={'b2': 0.1}")
    again = read("pipeline")
    assert again.evaluate.models["base"] == "urt-tiny"
    assert again.grpo.optimizer.b2 == 0.98


def test_none_and_truth_are_written_as_words() -> None:
    config = read("grpo", "--config.data.count=None", "--config.micro_batches=None", "--config.data.swap=false")
    assert (config.data.count, config.micro_batches, config.data.swap) == (None, None, False)
    assert "needs true or false" in refused("grpo", "--config.data.swap=perhaps")
    assert read("grpo", "--config.data.swap=True", "--config.steps=7", "--config.steps=9").steps == 9


@pytest.mark.parametrize(
    "arguments",
    [
        ("--config.data[1].count=7", TWO_SOURCES),
        ("--config.data={'count': 3}", "--config.data.count=4", "--config.data={'count': 5}"),
        ("--config.sampling.stop=a", "--config.sampling.stop=b"),
        ("--config.models.base=a", "--config.models={'b': 'c'}"),
    ],
)
def test_what_would_be_replaced_unseen_is_refused(arguments: tuple[str, ...]) -> None:
    name = "evaluate" if "models" in arguments[0] else "reject" if "sampling" in arguments[0] else "sft"
    assert "which it would replace; give the whole value once" in refused(name, *arguments)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "--config.models=x",
            "is not a Python literal (names and calls are not allowed); write \"{'<name>': '<value>', ...}\"",
        ),
        ("--config.models={'a'", "is not a Python literal ('{' was never closed)"),
        ("--config.models={'a': 3}", "config.models.a: got 3 (int), needs a text"),
        ("--config.models=3", "config.models: got 3 (int), needs a dict"),
        ("--config.models={}", "config.models: is empty"),
        ("--config.models={[]: 1}", "is not a Python literal"),
        ("--config.models=" + "[" * 13 + "]" * 13, f"has more than {MAX_DEPTH} levels of nested brackets"),
        ("--config.models=" + "-" * 40_000 + "1", "is not a Python literal"),
        ("--config.models=" + "{'a': '" + "x" * 60_000 + "'}", f"at most {MAX_LITERAL:,} are allowed"),
        ("--config.models={'" + "k" * 9000 + "': 1}", "got 1 (int), needs a text"),
        ("--config.data={'" + "k" * 9000 + "': 1}", "is unknown; known: path,"),
        ("--config.modes=('greedy', 'direkt')", "config.modes[1]: 'direkt' is unknown; did you mean 'direct'?"),
        ("--config.modes=greedy direct", "is not a Python literal (invalid syntax); write \"('a', 'b')\""),
        ("--config.data={'coutn': 3}", "config.data.coutn: 'coutn' is unknown; did you mean 'count'?"),
        ("--config.data=3", "config.data: got 3 (int), needs a group of knobs"),
        ("--config.mesh.data=perhaps", "config.mesh.data: got 'perhaps' (str), needs a whole number"),
        ("--config.stage=sft", "config.stage is set by the config file; give --config the file of another"),
    ],
    ids=lambda text: text[:30],
)
def test_a_value_that_does_not_fit_is_told(argument: str, message: str) -> None:
    assert message in refused("evaluate", argument)


@pytest.mark.parametrize(
    ("name", "knob", "meant"),
    [
        ("sft", "config.learning_rate", "'config.optimizer.learning_rate'? "),
        ("sft", "config.optimiser.learning_rte", "'config.optimizer.learning_rate'? "),
        ("sft", "config.stpes", "'config.steps'? "),
        ("sft", "config.data.weight", "'config.data[0].weight' or 'config.data[1].weight'? "),
        ("sft", "config.data[7].weight", "'config.data[0].weight' or 'config.data[1].weight'? "),
        ("sft", "config.steps.many", "'config.steps'? "),
        ("pipeline", "config.steps", "'config.sft.steps' or 'config.grpo.steps' or 'config.reject.steps'? "),
        ("grpo", "learning_rate", "'--config.optimizer.learning_rate'? known: --config, --workdir, "),
        ("grpo", "wrokdir", "'--workdir'? known: --config, --workdir, "),
    ],
)
def test_an_unknown_knob_is_looked_for_in_every_group(name: str, knob: str, meant: str) -> None:
    assert f"'{knob}' is unknown; did you mean {meant}" in refused(name, f"--{knob}=3")


def test_an_unknown_knob_lists_the_knobs_and_groups_of_its_level() -> None:
    told = refused("sft", "--config.zzzz=3")
    assert "known: config.workdir, config.seed, config.steps, " in told
    assert told.endswith("config.model.*, config.optimizer.*, config.pixels.*, config.lengths.*, config.mesh.*, "
                         "config.data[0].*, config.data[1].*")  # fmt: skip
    assert "config.optimizer.b2" not in told
    assert "config.data[0].tasks: 'zzzz' is unknown; known: image_gen, video_gen," in refused(
        "sft", "--config.data[0].tasks.zzzz=3"
    )


def test_an_entry_of_a_mapping_can_be_new() -> None:
    config = read("evaluate", "--config.models.mine=some/folder", "--config.data.tasks.video_gen=2")
    assert config.models["mine"] == "some/folder"
    assert config.data.tasks["video_gen"] == 2.0

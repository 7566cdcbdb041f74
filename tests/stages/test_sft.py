"""Supervised fine-tuning as a story: a complete run folder, few shapes, and runs that end the same after any stop."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.stages.coin_judge import WRITTEN
from tests.stages.story import (
    LENGTHS,
    OPTIMIZER,
    REPOSITORY,
    arguments,
    assert_called_again,
    assert_complete,
    assert_same_weights,
    assert_trained,
    cache_settings,
    checkpoint_steps,
    kill_once,
    metric_lines,
    run_in_process,
    write_config,
)
from urt_jax.checkpoints.model_folder import load_model
from urt_jax.config import LearnerSettings, PixelsConfig, RowLengths, SftConfig
from urt_jax.data.loader import Source
from urt_jax.data.settings import MixtureData
from urt_jax.errors import BadInputError
from urt_jax.feeds.batches import SftFeed
from urt_jax.feeds.encoder import Encoder
from urt_jax.feeds.records import training_source
from urt_jax.main import main
from urt_jax.scenes import make_drill
from urt_jax.stages import policy, sft
from urt_jax.tasks import PAPER_TASKS
from urt_jax.training.state import TrainState

STEPS = 12


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, coin_judge: Path, reasonings: Path) -> Path:
    return write_config(
        tmp_path_factory.mktemp("sft") / "sft.py",
        "sft",
        data={"path": str(reasonings)},
        model={"path": str(coin_judge)},
        steps=STEPS,
        batch_size=8,
        micro_batches=2,
        optimizer=OPTIMIZER,
        lengths=LENGTHS,
        save_every=2,
    )


@pytest.fixture(scope="module")
def programs() -> list[Any]:
    """Return the compiled steps of the run in ``finished``."""
    return []


@pytest.fixture(scope="module")
def finished(config: Path, programs: list[Any]) -> Path:
    compile_step = sft.compile_sft_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sft, "compile_sft_step", lambda *a, **k: programs.append(compile_step(*a, **k)) or programs[-1])
        return run_in_process(config, config.parent / "whole")


def test_a_run_leaves_everything_and_teaches_the_language_model(finished: Path, coin_judge: Path) -> None:
    assert_complete(
        finished, steps=STEPS, figures={"loss", "grad_norm", "learning_rate", "step_time", "timing_s/input"}
    )
    assert checkpoint_steps(finished) == [STEPS - 2, STEPS]
    assert_trained(finished, coin_judge)
    lines = metric_lines(finished)
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.2
    assert lines[-1]["learning_rate"] < lines[1]["learning_rate"] == max(line["learning_rate"] for line in lines)


def test_records_of_one_length_take_one_program(finished: Path, programs: list[Any]) -> None:
    """A step compiled twice for one shape would double the wait before the first figures."""
    assert [program._cache_size() for program in programs] == [1]


def test_called_again_it_prints_its_table_and_keeps_to_its_config(
    config: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_called_again(config, finished, capsys, changed="--config.batch_size=4")


def test_killed_after_a_checkpoint_it_ends_with_the_same_bits(config: Path, finished: Path) -> None:
    killed = config.parent / "killed"
    kill_once(config, killed, lambda: bool(checkpoint_steps(killed)))
    assert 2 <= checkpoint_steps(killed)[-1] < STEPS
    run_in_process(config, killed)
    assert_same_weights(killed, finished)
    assert [(x["step"], x["loss"]) for x in metric_lines(killed)] == [
        (x["step"], x["loss"]) for x in metric_lines(finished)
    ]


def test_preempted_it_saves_says_so_and_ends_with_the_same_bits(
    config: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compile_step = sft.compile_sft_step

    def noticed_at_step_3(*settings: Any, **more: Any) -> Callable[..., Any]:
        step = compile_step(*settings, **more)

        def advance(state: TrainState, batch: Any) -> Any:
            if int(state.step) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(state, batch)

        return advance

    stopped = config.parent / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(sft, "compile_sft_step", noticed_at_step_3)
        assert main(arguments(config, stopped, "--config.workers=1")) == 75
    assert "preempted: saved after step 3 of 12" in capsys.readouterr().err
    assert checkpoint_steps(stopped) == [2, 3]
    run_in_process(config, stopped, "--config.workers=2")  # whoever decodes, the batches are the same
    assert_same_weights(stopped, finished)


@pytest.mark.slow
def test_a_notice_to_the_whole_process_group_still_saves_and_takes_the_workers_along(
    config: Path, finished: Path
) -> None:
    """As ``timeout``, a terminal and some schedulers send it; a worker that heard it would break the step before."""
    stopped = config.parent / "group"
    command = [sys.executable, "-m", "urt_jax.main", *arguments(config, stopped, "--config.workers=2")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)} | cache_settings()
    with subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True) as run:
        deadline = time.monotonic() + 300
        while not checkpoint_steps(stopped):
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.killpg(run.pid, signal.SIGTERM)
        assert run.stderr is not None
        told = run.stderr.read()
    assert run.returncode == 75, told
    with pytest.raises(ProcessLookupError):
        os.killpg(run.pid, 0)
    run_in_process(config, stopped)
    assert_same_weights(stopped, finished)


ALL_TASKS = dict.fromkeys(PAPER_TASKS, 1.0)


@pytest.mark.parametrize("steps", [6, 300])
def test_mixed_records_take_at_most_eight_shapes(coin_judge: Path, reasonings: Path, steps: int) -> None:
    """300 steps are planned from a sample of the records, with headroom."""
    config = SftConfig(steps=steps, lengths=RowLengths(max_prompt_tokens=160, max_new_tokens=112), batch_size=8, seed=1)
    sources = [
        training_source(MixtureData(tasks=ALL_TASKS, count=48), seed=1),
        training_source(MixtureData(path="drills", count=48), seed=1),
        training_source(MixtureData(path=str(reasonings)), seed=1),
    ]
    feed = SftFeed(config, load_model(str(coin_judge)), sources, batch_size=8, row_step=8)
    batches = [feed.prepare(step).batch for step in range(min(steps, 40))]
    shapes = {(batch.tokens_BT.shape, batch.vision.patches_IPC.shape) for batch in batches}
    assert len(shapes) <= feed.buckets.count <= 8
    assert {len(batch.tokens_BT) % 8 for batch in batches} == {0}


def test_records_of_two_sources_with_one_id_keep_their_own_pictures(coin_judge: Path) -> None:
    """Two data sets may both call a record "train:1"; what one was encoded to must not stand for the other."""
    source = training_source(MixtureData(count=2, seed=5), seed=0)
    other = training_source(MixtureData(count=2, seed=6), seed=0)
    named = [Source(1.0, lambda place, get=stream.get: replace(get(place), id="train:1")) for stream in (source, other)]
    config = SftConfig(steps=12, lengths=RowLengths(max_prompt_tokens=160, max_new_tokens=112), batch_size=8)
    loaded = load_model(str(coin_judge))
    feeds = [
        SftFeed(config, loaded, [Source(1.0, lambda place, get=stream.get: get(0))], batch_size=1, row_step=1)
        for stream in named
    ]
    alone = [feed.prepare(0).batch.vision.patches_IPC.sum() for feed in feeds]
    assert alone[0] != alone[1]
    firsts = [Source(1.0, lambda place, get=stream.get: get(0)) for stream in named]
    mixed = SftFeed(config, loaded, firsts, batch_size=1, row_step=1)
    assert {mixed.prepare(step).batch.vision.patches_IPC.sum() for step in range(12)} == set(alone)


@pytest.mark.parametrize(("init", "opener"), [("load", "load_model"), ("random", "random_model")])
def test_a_stage_starts_from_the_model_it_names(
    init: Any, opener: str, coin_judge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    loaded = load_model(str(coin_judge))

    def opened(name: str, **settings: Any) -> Any:
        asked.append(name)
        return loaded

    monkeypatch.setattr(policy, opener, opened)
    assert policy.open_model(LearnerSettings(path="lab/judge@v1.0", init=init), PixelsConfig(), seed=0) is loaded
    assert asked == ["lab/judge@v1.0"]


def test_every_source_is_asked_in_its_own_wording(coin_judge: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("look well at {caption}, look twice, and then say which of them it is")
    config = SftConfig(steps=12, lengths=RowLengths(max_prompt_tokens=160, max_new_tokens=112), batch_size=8)
    loaded = load_model(str(coin_judge))

    def prompts(*templates: str) -> set[int]:
        sources = [training_source(MixtureData(count=1, template=template), seed=0) for template in templates]
        sources = [
            source._replace(get=lambda place, get=source.get: replace(get(0), response=WRITTEN[0]))
            for source in sources
        ]
        feed = SftFeed(config, loaded, sources, batch_size=1, row_step=1)
        return {int(feed.prepare(step).batch.targets.place_BZJ[0, 0, 0]) for step in range(12)}

    short, long = prompts("v1"), prompts(str(tmp_path / "long.txt"))
    assert len(short) == len(long) == 1
    assert short != long
    assert prompts("v1", str(tmp_path / "long.txt")) == short | long


def test_an_input_response_of_another_length_is_refused(coin_judge: Path) -> None:
    drill = make_drill("describe", split="train", seed=0, index=0, misread=0.5)
    encoder = Encoder(load_model(str(coin_judge)).processor, max_prompt_tokens=160, max_new_tokens=112)
    record = encoder.trained(drill, template="v1")
    assert len(record.input_response) == len(record.response)
    longer = replace(drill, input_response=f"{drill.input_response} red")
    with pytest.raises(
        BadInputError, match=r"record drill-describe-train-0-0: its input_response has \d+ tokens, its response"
    ):
        encoder.trained(longer, template="v1")

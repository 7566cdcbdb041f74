"""Several processes do what one does, end together, and never wait for one that is gone."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.processes.together import FAST_COMPILE, WORKER, free_port, run_to_end, run_together, wait_until
from tests.stages.story import OPTIMIZER, SHORT, write_config
from urt_jax.main import EXIT_BAD_INPUT
from urt_jax.runs.processes import LEAVING, LOST_S

ROUNDING = 5e-6  # of a parameter after a few steps: Adam divides by the root of squared gradients, rounding and all
# Where products are split and so round otherwise: an entropy term, since what all responses of a group write has
# advantages that cancel, to a gradient that is rounding alone; and small steps, which Adam makes of such gradients too.
STEADY: dict[str, Any] = {"entropy_coef": 0.1, "optimizer": {"learning_rate": 1e-4, "warmup_steps": 1}}
LONG = 100_000  # steps that nobody waits for


def sft_config(path: Path, judge: Path, records: Path, **settings: object) -> Path:
    given = {
        "data": [{"path": str(records)}], "model": {"path": str(judge)}, "steps": 3, "batch_size": 6, "save_every": 2,
        "optimizer": OPTIMIZER, "lengths": {"max_prompt_tokens": 160, "max_new_tokens": 112},
    }  # fmt: skip
    return write_config(path, "sft", **{**given, **settings})


def grpo_config(path: Path, judge: Path, **settings: object) -> Path:
    given = {
        "model": {"path": str(judge)}, "data": {"count": 12}, "steps": 2, "questions_per_step": 4,
        "responses_per_question": 4, "sample_every": 1, "dynamic_sampling": 1, "kl_coef": 0.0,
        "optimizer": OPTIMIZER, "lengths": SHORT,
    }  # fmt: skip
    return write_config(path, "grpo", **{**given, **settings})


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=0, atol=ROUNDING, err_msg=name)


def trained(
    folder: Path, count: int, judge: Path, records: Path, *, entropy_coef: float = 0.0, **settings: object
) -> Path:
    """Train by SFT and by GRPO in so many processes; return their folder."""
    folder.mkdir(exist_ok=True)
    configs = (
        sft_config(folder / "sft.py", judge, records, **settings),
        grpo_config(folder / "grpo.py", judge, entropy_coef=entropy_coef, **settings),
    )
    run_to_end(count, list(map(str, configs)), folder, command=WORKER, flags=FAST_COMPILE)
    return folder


@pytest.fixture(scope="module")
def one(coin_judge: Path, reasonings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of what one process trains."""
    return trained(tmp_path_factory.mktemp("one"), 1, coin_judge, reasonings)


def assert_as_one(several: Path, one: Path) -> None:
    """Check weights, samples and figures against those of one process."""
    assert_same_weights(several / "sft", one / "sft")
    assert_same_weights(several / "grpo", one / "grpo")
    for step in (1, 2):
        samples = f"grpo/samples/step-00000{step}.jsonl"
        assert (several / samples).read_text() == (one / samples).read_text()
    found, wanted = (
        [json.loads(line) for line in (folder / "grpo" / "metrics.jsonl").read_text().splitlines()]
        for folder in (several, one)
    )
    assert [line.keys() for line in found] == [line.keys() for line in wanted]
    for name in ("num_tokens", "reward", "extra_rollouts", "completions/mean_length"):
        assert [line[name] for line in found] == [line[name] for line in wanted]


def test_two_processes_train_what_one_trains(one: Path, coin_judge: Path, reasonings: Path, tmp_path: Path) -> None:
    assert_as_one(trained(tmp_path, 2, coin_judge, reasonings), one)


@pytest.mark.slow
def test_an_update_of_half_the_groups_is_that_of_one_process(coin_judge: Path, tmp_path: Path) -> None:
    """Of two responses half the groups come out equal, and steps train those that did not."""
    settings = {"responses_per_question": 2, "dynamic_sampling": 0, "steps": 3}
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        run_to_end(count, [str(grpo_config(folder / "grpo.py", coin_judge, **settings))], folder, command=WORKER)
    lines = [json.loads(line) for line in (tmp_path / "2" / "grpo" / "metrics.jsonl").read_text().splitlines()]
    assert {line["frac_reward_zero_std"] >= 0.5 for line in lines} == {True, False}, "whole and half steps"
    assert_same_weights(tmp_path / "1" / "grpo", tmp_path / "2" / "grpo")


@pytest.fixture(scope="module")
def one_steady(coin_judge: Path, reasonings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("steady"), 1, coin_judge, reasonings, **STEADY)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "mesh"),
    [(2, {"data": 1, "fsdp": 2}), (2, {"tensor": 2}), (2, {"sequence": 2}), (4, {"fsdp": 2, "tensor": 2})],
)
def test_processes_that_split_the_weights_train_what_one_trains(
    one_steady: Path, coin_judge: Path, reasonings: Path, tmp_path: Path, count: int, mesh: dict[str, int]
) -> None:
    assert_as_one(trained(tmp_path, count, coin_judge, reasonings, mesh=mesh, **STEADY), one_steady)


def interrupted(folder: Path, judge: Path, records: Path, number: int, blow: signal.Signals) -> tuple[list[int], float]:
    """Send a signal to one of two processes in the middle of an SFT run; return their codes and the seconds it took."""
    config = sft_config(folder / "long.py", judge, records, steps=LONG, save_every=LONG)
    sent = 0.0

    def strike(processes: list[subprocess.Popen[bytes]]) -> None:
        nonlocal sent
        metrics = folder / "run" / "metrics.jsonl"
        wait_until(lambda: metrics.is_file() and metrics.read_text().count("\n") > 2, processes)
        processes[number].send_signal(blow)
        sent = time.monotonic()
        if blow == signal.SIGSTOP:
            processes[1 - number].wait(3 * LOST_S)
            processes[number].kill()

    arguments = [f"--config={config}", f"--workdir={folder / 'run'}"]
    ended = run_together(2, arguments, folder, flags=FAST_COMPILE, meanwhile=strike)
    return [one.code for one in ended], time.monotonic() - sent


@pytest.mark.parametrize("number", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_notice_to_either_process_has_both_save_the_same_step(
    coin_judge: Path,
    reasonings: Path,
    tmp_path: Path,
    number: int,
) -> None:
    codes, _ = interrupted(tmp_path, coin_judge, reasonings, number, signal.SIGTERM)
    assert codes == [LEAVING, LEAVING]
    (step,) = (path for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdecimal())
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == int(step.name)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "grpo"])
@pytest.mark.parametrize("counts", [(1, 2, 1), (2, 3)])
def test_a_run_that_was_told_to_leave_goes_on_in_as_many_processes_as_there_are(
    coin_judge: Path, reasonings: Path, tmp_path: Path, stage: str, counts: tuple[int, ...]
) -> None:
    """``counts`` processes one after the other, all but the last told to leave."""
    slow = {"learning_rate": 1e-5, "warmup_steps": 1}  # so many steps add up little rounding
    if stage == "sft":
        steps = 200
        config = sft_config(tmp_path / "sft.py", coin_judge, reasonings, steps=steps, save_every=steps, optimizer=slow)
    else:
        steps, judged = 16, {"count": 6}
        settings = {"questions_per_step": 6, "eval_data": judged, "optimizer": slow}
        config = grpo_config(tmp_path / "grpo.py", coin_judge, steps=steps, save_every=steps, **settings)
    arguments = [f"--config={config}", f"--workdir={tmp_path / 'run'}"]
    metrics = tmp_path / "run" / "metrics.jsonl"

    def logged() -> int:
        return metrics.read_text().count("\n") if metrics.is_file() else 0

    def notice(processes: list[subprocess.Popen[bytes]]) -> None:
        before = logged()
        wait_until(lambda: logged() > before + 2, processes)
        processes[-1].terminate()

    for count in counts[:-1]:
        ended = run_together(count, arguments, tmp_path, meanwhile=notice)
        assert [one.code for one in ended] == [LEAVING] * count, ended[0].told[-2000:]
    run_to_end(counts[-1], arguments, tmp_path)
    run_to_end(1, [arguments[0], f"--workdir={tmp_path / 'whole'}"], tmp_path)
    assert_same_weights(tmp_path / "run", tmp_path / "whole")
    assert [json.loads(line)["step"] for line in metrics.read_text().splitlines()] == list(range(1, steps + 1))
    for path in (tmp_path / "whole").glob("samples/*.jsonl"):
        assert path.read_text() == (tmp_path / "run" / "samples" / path.name).read_text()


@pytest.mark.slow
def test_one_that_compiles_for_longer_than_connections_wait_is_waited_for(tmp_path: Path) -> None:
    run_to_end(2, ["40"], tmp_path, command=(sys.executable, str(Path(__file__).with_name("late.py"))))


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_process_stops_the_other_in_time(
    coin_judge: Path,
    reasonings: Path,
    tmp_path: Path,
    number: int,
    blow: signal.Signals,
) -> None:
    codes, seconds = interrupted(tmp_path, coin_judge, reasonings, number, blow)
    assert codes[number] == -signal.SIGKILL
    assert codes[1 - number] not in (0, LEAVING)
    assert seconds < LOST_S + 15


@pytest.mark.slow
def test_a_failure_of_one_process_is_told_and_ends_both(tmp_path: Path, coin_judge: Path, reasonings: Path) -> None:
    config = sft_config(tmp_path / "odd.py", coin_judge, reasonings, batch_size=1)
    ended = run_together(2, [f"--config={config}", f"--workdir={tmp_path / 'run'}"], tmp_path)
    assert [one.code for one in ended] == [EXIT_BAD_INPUT, EXIT_BAD_INPUT]
    told = "batch_size 1 is fewer records than the 2 shares of processes"
    assert any(told in one.told for one in ended)
    assert ended[1].out == ""


@pytest.mark.slow
def test_slurm_says_how_the_processes_find_each_other(tmp_path: Path, coin_judge: Path, reasonings: Path) -> None:
    config = sft_config(tmp_path / "odd.py", coin_judge, reasonings, batch_size=1)
    slurm = {"SLURM_JOB_ID": str(free_port()), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2",
             "SLURM_STEP_NUM_NODES": "1"}  # fmt: skip
    ended = run_together(2, [f"--config={config}", f"--workdir={tmp_path / 'run'}"], tmp_path, slurm=slurm)
    assert [one.code for one in ended] == [EXIT_BAD_INPUT, EXIT_BAD_INPUT]
    assert any("fewer records than the 2 shares" in one.told for one in ended)

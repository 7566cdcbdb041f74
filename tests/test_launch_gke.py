"""The JobSet of a TPU slice: what is submitted, and what its restart policy makes of exit codes."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.launch_stands import ROOT, Stands
from urt_jax.main import EXIT_PREEMPTED


@pytest.fixture
def stands(tmp_path: Path) -> Stands:
    made = Stands(tmp_path)
    for name in ("kubectl", "docker"):
        made.add(name, 'case "$*" in *"create -f -" | build*) cat > "$HOME/given" ;; esac')
    made.add("gcloud")
    made.env |= {"IMAGE": "region/judge", "CLUSTER": "pods", "LOCATION": "zone-a"}
    return made


def gke(stands: Stands, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return stands.run("bash", "launch/gke.sh", *arguments, **env)


def shown(stands: Stands, *arguments: str, **env: str) -> dict[str, Any]:
    done = gke(stands, "show", *arguments, **env)
    assert done.returncode == 0, done.stderr
    assert "${" not in done.stdout
    manifest = yaml.safe_load(done.stdout)
    assert isinstance(manifest, dict)
    return manifest


def job_of(manifest: dict[str, Any]) -> dict[str, Any]:
    (replicated,) = manifest["spec"]["replicatedJobs"]
    assert replicated["replicas"] == 1
    spec = replicated["template"]["spec"]
    assert isinstance(spec, dict)
    return spec


def test_a_slice_gets_a_pod_a_host(stands: Stands) -> None:
    job = job_of(shown(stands, "--config", "configs/grpo.py", TOPOLOGY="4x4x8", ACCELERATOR="tpu-v5p-slice"))
    assert (job["parallelism"], job["completions"], job["completionMode"]) == (32, 32, "Indexed")
    pod = job["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4x8"
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-accelerator"] == "tpu-v5p-slice"
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "urt_jax.main"]
    assert container["resources"]["limits"] == container["resources"]["requests"] == {"google.com/tpu": 4}
    assert container["volumeMounts"] == [{"name": "runs", "mountPath": f"{container['workingDir']}/runs"}]
    assert pod["volumes"] == [{"name": "runs", "persistentVolumeClaim": {"claimName": "urt-runs"}}]


def test_arguments_arrive_as_they_were_given(stands: Stands) -> None:
    given = ["--config", "configs/grpo.py", '--config.x="a & b"', "back\\slash", "${NAME}: #no comment"]
    (container,) = job_of(yaml.safe_load(gke(stands, "show", *given).stdout))["template"]["spec"]["containers"]
    assert container["args"] == ["--distributed=auto", *given]
    (container,) = job_of(shown(stands, "x", DISTRIBUTED="--several auto"))["template"]["spec"]["containers"]
    assert container["args"] == ["--several", "auto", "x"]


def test_a_saved_stage_restarts_without_end_and_an_error_a_few_times(stands: Stands) -> None:
    manifest = shown(stands, MAX_RESTARTS="5")
    policy, job = manifest["spec"]["failurePolicy"], job_of(manifest)
    (rule,) = policy["rules"]
    assert rule == {"action": "RestartJobSetAndIgnoreMaxRestarts", "onJobFailureReasons": ["PodFailurePolicy"]}
    assert policy["maxRestarts"] == 5
    # Kubernetes takes a pod failure policy only where a failed container is not started again by itself.
    assert (job["backoffLimit"], job["template"]["spec"]["restartPolicy"]) == (0, "Never")
    saved, removed = job["podFailurePolicy"]["rules"]
    (container,) = job["template"]["spec"]["containers"]
    codes = {"containerName": container["name"], "operator": "In", "values": [EXIT_PREEMPTED]}
    assert saved == {"action": "FailJob", "onExitCodes": codes}
    assert removed == {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


@pytest.mark.parametrize("spot", ["0", "1"])
def test_spot_nodes_are_asked_for_or_not(stands: Stands, spot: str) -> None:
    pod = job_of(shown(stands, SPOT=spot))["template"]["spec"]
    assert ("cloud.google.com/gke-spot" in pod["nodeSelector"]) == (spot == "1")
    assert len(pod["tolerations"]) == 1 + int(spot)
    assert gke(stands, "nodes", SPOT=spot).returncode == 0
    (call,) = stands.calls("gcloud")
    pool = "gcloud container node-pools create urt --cluster=pods --location=zone-a"
    size = "--machine-type=ct6e-standard-4t --tpu-topology=4x4 --num-nodes=4"
    assert call == f"{pool} {size}" + (" --spot" if spot == "1" else "")


def test_submit_gives_kubectl_what_show_prints(stands: Stands) -> None:
    assert gke(stands, "submit", "--config", "configs/grpo.py").returncode == 0
    assert stands.calls() == ["kubectl create -f -"]
    assert (stands.home / "given").read_text() == gke(stands, "show", "--config", "configs/grpo.py").stdout


def test_the_image_holds_what_a_stage_needs(stands: Stands) -> None:
    assert gke(stands, "image").returncode == 0
    assert stands.calls() == ["docker build --tag region/judge --file - .", "docker push region/judge"]
    dockerfile = (stands.home / "given").read_text()
    copied = [line.split()[1] for line in dockerfile.splitlines() if line.startswith("COPY ")]
    assert copied == ["requirements.txt", "configs", "urt_jax"]
    assert all((ROOT / name).exists() for name in copied)


def test_status_tail_and_delete(stands: Stands) -> None:
    for verb in ("status", "tail", "delete"):
        assert gke(stands, verb).returncode == 0
    label = "-l jobset.sigs.k8s.io/jobset-name=urt"
    assert stands.calls() == [
        f"kubectl get jobsets,pods {label}",
        f"kubectl logs --follow --prefix --max-log-requests=4 {label}",
        "kubectl delete jobset urt",
    ]


def test_what_is_missing_or_does_not_fit_is_told(stands: Stands) -> None:
    assert "error: IMAGE is not set; see the top of launch/gke.sh" in gke(stands, "submit", IMAGE="").stderr
    assert "error: CLUSTER is not set; see the top of launch/gke.sh" in gke(stands, "nodes", CLUSTER="").stderr
    done = gke(stands, "show", TOPOLOGY="2x3")
    assert done.returncode == 2
    assert "error: TOPOLOGY=2x3 has 6 chips, no multiple of CHIPS_PER_HOST=4" in done.stderr
    assert not stands.calls()


def test_a_dry_run_prints_and_runs_nothing(stands: Stands) -> None:
    printed = [gke(stands, verb, DRY_RUN="1").stdout for verb in ("image", "nodes", "submit", "status", "delete")]
    assert all(printed)
    assert printed[2].endswith("kubectl create -f -\n")
    assert "kind: JobSet" in printed[2]
    assert not stands.calls()

"""The benchmark as a story at its smallest size, and its table."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.stages.story import REPOSITORY, cache_settings, run_in_process, write_config
from urt_jax.main import main
from urt_jax.planning import bench_programs, bench_table
from urt_jax.planning.bench_table import Machine, bench_text, phase_rows, working_sets
from urt_jax.planning.input_table import input_text
from urt_jax.planning.roofline import floor_seconds, sft_work
from urt_jax.planning.verdict_case import FORMS, PARTS, verdict_text
from urt_jax.planning.workloads import workload

MACHINE = Machine("a machine", "cpu", 1e9, 4, 1e9, {})
READY = {"first": 5.0, "memory_before": 1e6, "parameters": 2e6}


def repetitions(*seconds: float) -> list[dict[str, float]]:
    return [{"wall": s, "cpu": 2 * s, "memory": 3e6} for s in seconds]


def run_bench(folder: Path, patch: pytest.MonkeyPatch, **settings: Any) -> Path:
    """Run the toy size with the tests' compile cache, on one device."""
    patch.delenv("XLA_FLAGS")
    patch.setattr(bench_programs, "OUR_ENVIRONMENT", {"PYTHONPATH": str(REPOSITORY)} | cache_settings())
    config = write_config(folder / "bench.py", "bench", sizes=("toy",), repetitions=2, **settings)
    return run_in_process(config, folder / "out")


def test_a_run_measures_every_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_bench(tmp_path, monkeypatch)
    told = json.loads((run / "bench.json").read_text())
    assert told["machine"]["platform"] == "cpu"
    assert {str(size) for size in working_sets(["toy"])} == set(told["machine"]["bandwidth_by_size"])
    assert list(told["measured"]["toy"]) == ["sampler", "sft", "grpo", "input"]
    for case in told["measured"]["toy"].values():
        assert list(case) == ["ours"]
        assert len(case["ours"]["repetitions"]) == 2
    encoded = told["measured"]["toy"].pop("input")["ours"]["repetitions"]
    assert all(seconds > 0 for repetition in encoded for seconds in repetition.values())
    for case in told["measured"]["toy"].values():
        assert all(r["wall"] > 0 and r["memory"] > 1e8 for r in case["ours"]["repetitions"])
    titles = [title for case in bench_table.TITLES.values() for title in case.values()]
    assert [row["phase"] for row in told["rows"] if "phase" in row] == titles
    assert [row["step"] for row in told["rows"] if "step" in row] == ["SFT step", "GRPO step"]
    table = json.loads((run / "result.json").read_text())["table"]
    assert "No peers were timed: config.peers.python is not set" in table
    assert capsys.readouterr().out == table + "\n"


@pytest.mark.slow
def test_a_shared_prompt_is_compared_with_whole_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The case itself checks that both have one loss."""
    run = run_bench(tmp_path, monkeypatch, cases=("prefix",))
    rows = json.loads((run / "bench.json").read_text())["rows"]
    assert [row["responses"] for row in rows] == [1, 2, 4, 8, 16]
    saved = [row["ordinary_flops"] - row["shared_flops"] for row in rows]
    prompt = saved[1] - saved[0]
    assert 0 < saved[0] < prompt, "of one response the shared form saves what its last layer leaves out of the prompt"
    assert saved == pytest.approx([saved[0] + (row["responses"] - 1) * prompt for row in rows])
    assert "gradient of 16 responses" in json.loads((run / "result.json").read_text())["table"]


def test_a_case_that_fails_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mesh of two devices fits no machine with one."""
    run = run_bench(tmp_path, monkeypatch, cases=("sft",), mesh={"data": 2})
    table = json.loads((run / "result.json").read_text())["table"]
    assert "toy sft, ours failed:" in table
    assert "a mesh of data=2" in table


def test_rows_are_medians_and_ratios_of_pairs() -> None:
    ours = {"ready": READY, "repetitions": repetitions(1.0, 4.0, 2.0)}
    theirs = {"ready": {}, "repetitions": repetitions(3.0, 4.0, 8.0)}
    (row,) = phase_rows("toy", "sft", {"ours": ours, "torch": theirs}, MACHINE)
    assert row["seconds"] == 2.0
    assert row["cpu"] == 4.0
    assert row["tokens_per_second"] == 2 * (24 + 6) / 2.0
    assert row["peers"] == {"torch": {"seconds": 4.0, "ratio": 3.0, "ratios": [3.0, 1.0, 4.0]}}
    work = sft_work(workload("toy"), itemsize=4)
    assert row["floor"] == floor_seconds(work, MACHINE.rates(0))
    assert row["of_floor"] == row["floor"] / 2.0
    assert row["of_matrix_rate"] == work.flops / 2.0 / 1e9


def test_the_table_shows_every_peer() -> None:
    phases = [{**r, "prefill": r["wall"] / 4, "decode": 3 * r["wall"] / 4} for r in repetitions(1.0, 2.0, 4.0)]
    slower = [{name: 2 * seconds for name, seconds in phase.items()} for phase in phases]
    sampler = {
        "ours": {"ready": READY, "repetitions": phases},
        "transformers": {"ready": {}, "repetitions": slower},
        "transformers compiled": {"failed": "g++ is missing"},
    }
    text, rows = bench_text(MACHINE, {"toy": {"sampler": sampler}}, peers="python")
    assert [row["phase"] for row in rows] == list(bench_table.TITLES["sampler"].values())
    lines = text.splitlines()
    assert lines[0] == "a machine"
    heading = "toy seconds CPU s tokens/s floor s % of floor % matrix % memory peer its s ratio"
    assert " ".join(lines[2].split()) == heading
    (rollout,) = [line.split() for line in lines if line.startswith("whole rollout")]
    assert rollout[:5] == ["whole", "rollout", "2", "4", "12"]
    assert rollout[-3:] == ["transformers", "4", "2.00x"]
    assert "sampler      2.00 M        3.0         3 MB       1 MB" in lines
    assert lines[-1] == "toy sampler, transformers compiled failed: g++ is missing"


def test_input_that_is_too_slow_says_how_many_workers_it_takes() -> None:
    """A record takes 100 ms, and 25 ms of a worker and of who takes it in: 8 a second are 1 core, 8.1 are 1.3."""
    repetition = {f"own/{count}/{clock}": 0.1 for count in (0, 1, 2) for clock in ("wall", "cpu")}
    repetition["own/2/cpu"] = 0.025
    repetitions = [repetition | {"own/1/wall": seconds} for seconds in (0.125, 0.1, 0.125)]
    measured = {"ready": {"pictures": {"own": 2}}, "repetitions": repetitions}
    steps = {"idle": 8.0, "busy": 8.1, "hungry": 100.0, "GRPO small": 0.07, "GRPO": 2.0}
    text, records = input_text("toy", measured, steps)
    workers = {"idle": 0, "busy": 2, "hungry": 16, "GRPO small": 0, "GRPO": 1}
    assert {row["step"]: row["workers"] for row in records if "step" in row} == workers
    assert records[0]["per_second/1"] == 8.0
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "own 10.0 8.0 10.0 20 100.0 25.0" in lines
    assert "toy idle measured here own 8.0 enough 0" in lines
    assert "toy hungry measured here own 100.0 0.10 of it 16" in lines
    assert "toy GRPO measured here own 2.0 20% longer 1" in lines


def test_an_accelerators_table_says_why_it_has_no_peers() -> None:
    probed = {
        "platform": "gpu",
        "devices": 2,
        "device": "H100",
        "cpu": "x",
        "cores": 8,
        "jax": "1",
        "dtype": "bfloat16",
    }
    probed |= {"flops": {"float32": 1e9, "bfloat16": 4e9}, "bandwidth": 2e9, "bandwidth_by_size": {"4194304": 3e9}}
    machine = Machine.of(probed)
    assert machine.flops == 8e9
    assert machine.itemsize == 2
    assert machine.rates(4194304).bandwidth == 6e9
    assert machine.rates(5).bandwidth == 4e9
    text, _ = bench_text(machine, {}, peers=None)
    assert text.endswith("The peers are timed on a CPU only.")
    assert text.startswith("2 x H100, x, 8 cores, jax 1, computing in bfloat16\n")


@pytest.mark.parametrize(
    ("peers", "message"),
    [
        ({"python": "/no/python"}, "config.peers.python: /no/python is not a program"),
        ({"python": "/bin/sh", "folder": "nowhere"}, "config.peers.folder: nowhere holds no hf_generate.py"),
    ],
)
def test_peers_that_are_not_there_are_told_before_anything_runs(
    in_folder: Path, capsys: pytest.CaptureFixture[str], peers: dict[str, str], message: str
) -> None:
    config = write_config(in_folder / "bench.py", "bench", sizes=("toy",), peers=peers)
    assert main([f"--config={config}", "--workdir=out"]) == 2
    assert message in capsys.readouterr().err


def test_peers_do_the_same_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each script checks the lengths of its prompts and responses itself."""
    python = os.environ.get("URT_PEERS_PYTHON")
    if not python:
        pytest.skip("URT_PEERS_PYTHON is not set: give the python of an environment made as configs/bench.py says")
    peers = {"python": python, "folder": str(REPOSITORY / "tests" / "peers"), "compiled": False}
    run = run_bench(tmp_path, monkeypatch, peers=peers)
    measured = json.loads((run / "bench.json").read_text())["measured"]["toy"]
    names = {"sampler": "transformers", "sft": "torch", "grpo": "TRL"}
    for case, name in names.items():
        assert "failed" not in measured[case][name], measured[case][name]
        assert len(measured[case][name]["repetitions"]) == 2
    table = json.loads((run / "result.json").read_text())["table"]
    assert all(name in table for name in names.values())


def test_first_verdicts_by_hand() -> None:
    """Medians of the parts, and of their sums: 1 + 2 + 3 and 2 + 2 + 5 in two repetitions."""
    first = {f"{form}/{part}": float(n) for form in FORMS for n, part in enumerate(PARTS, start=1)}
    second = {name: {1.0: 2.0, 2.0: 2.0, 3.0: 5.0}[value] for name, value in first.items()}
    measured = {"ready": {"cold": dict.fromkeys(FORMS, 20.0)}, "repetitions": [first, second]}
    text, rows = verdict_text(measured)
    assert [row["first verdict"] for row in rows] == list(FORMS)
    assert {name: rows[0][name] for name in (*PARTS, "in all", "nothing kept")} == {
        "import": 1.5, "load": 2.0, "verdict": 4.0, "in all": 7.5, "nothing kept": 20.0,
    }  # fmt: skip
    assert "7.50 s" in text


@pytest.mark.slow
def test_a_first_verdict_is_timed_in_processes_of_its_own(tmp_path: Path) -> None:
    config = write_config(tmp_path / "bench.py", "bench", sizes=("toy",), cases=("verdict",), repetitions=1)
    run = run_in_process(config, tmp_path / "out")
    rows = json.loads((run / "bench.json").read_text())["rows"]
    assert [row["first verdict"] for row in rows] == list(FORMS)
    assert all(row["in all"] > 0 and row["nothing kept"] > 0 for row in rows)

"""The plan as a story: by formula, with what compiling told, and with a compiler that is not there or dies."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests.stages.story import run_in_process, write_config
from urt_jax.main import main
from urt_jax.planning import plan_check
from urt_jax.planning.aot import Evidence
from urt_jax.planning.chips import GIB
from urt_jax.planning.paired import ProgramError
from urt_jax.planning.plan_check import Checked, predict
from urt_jax.stages import plan

SMALL = {"questions": 8, "responses": 2, "prompt_tokens": 256, "new_tokens": 64, "sft_rows": 8}
FITS, TOO_LARGE = "llava_onevision_0_5b@v6e:2x4", "qwen2_5_vl_72b@v6e:2x4"


def settings(folder: Path, **more: Any) -> Path:
    values = {"cases": (FITS,), "rows": SMALL, "compile": False, "cache": str(folder / "cache"), **more}
    return write_config(folder / "plan.py", "plan", **values)


def result(run: Path) -> tuple[str, dict[str, Any]]:
    told = json.loads((run / "plan.json").read_text())
    return json.loads((run / "result.json").read_text())["table"], told


def test_by_formula_alone(in_folder: Path) -> None:
    config = settings(in_folder, cases=(FITS, TOO_LARGE), price=2.0)
    table, told = result(run_in_process(config, in_folder / "out"))
    assert "By formula only." in table
    (line,) = [line for line in table.splitlines() if line.startswith("llava_onevision_0_5b v6e:2x4 (8)")][:1]
    assert " yes " in line
    first, second = told["cases"]
    assert len(first["layouts"]) == 2
    assert first["layouts"][0]["fits"]
    assert set(first["layouts"][0]["seconds"]) == {"prefill", "decode", "score", "grpo"}
    assert not second["layouts"][0]["fits"]
    assert "qwen2_5_vl_72b on v6e:2x4, mesh 1x4x2: grpo lacks" in table or "lacks" in table
    assert "GiB on every chip by formula" in table
    assert "1,000 steps" in table
    page = (in_folder / "out" / "report.html").read_text()
    assert page.count("<svg") == 3
    assert "llava_onevision_0_5b on v6e:2x4" in page
    assert "1 x 1" not in page


def test_what_was_compiled_is_asked_once_and_decides(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(spec: Path) -> Evidence:
        program = json.loads(spec.read_text())["program"]
        asked.append(program)
        over = 40 * GIB if program == "grpo" else GIB
        return Evidence(2.0, arguments=over, collectives=(("all-gather", 24, 3e9),))

    monkeypatch.setattr(plan, "ask_worker", answer)
    monkeypatch.setattr(plan, "check_compiler", lambda topology: None)
    config = settings(in_folder, compile=True, best=1)
    table, told = result(run_in_process(config, in_folder / "out"))
    assert asked == ["prefill", "decode", "score", "grpo"]
    assert "Compiled with jax" in table
    assert "evidence, not runs" in table
    assert not told["cases"][0]["layouts"][0]["fits"]
    assert "grpo lacks" in table
    assert "GiB on every chip as compiled." in table
    assert told["cases"][0]["layouts"][0]["compiled"]["prefill"]["collectives"] == [["all-gather", 24, 3e9]]
    run_in_process(config, in_folder / "again")
    assert len(asked) == 4
    run_in_process(settings(in_folder, compile=True, best=1, worst=True), in_folder / "worst")
    assert len(asked) == 4
    assert set(result(in_folder / "worst")[1]["cases"][0]["layouts"][0]["compiled"]) == {"grpo"}


@pytest.mark.parametrize("content", ["", "[]", '{"seconds": 1.0}', "\udcff"])
def test_a_damaged_answer_that_was_kept_is_told_with_what_to_do(
    in_folder: Path, content: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "ask_worker", lambda spec: Evidence(2.0))
    monkeypatch.setattr(plan, "check_compiler", lambda topology: None)
    config = settings(in_folder, compile=True, best=1, programs=("sft",))
    run_in_process(config, in_folder / "out")
    (kept,) = (in_folder / "cache").glob("*.json")
    kept.write_bytes(content.encode(errors="surrogateescape"))
    assert main([f"--config={config}", "--workdir=again"]) == 2
    told = capsys.readouterr().err
    assert str(kept) in told
    assert "delete it, and the program is compiled again" in told
    kept.unlink()
    run_in_process(config, in_folder / "again")


def test_a_compiler_that_dies_is_told_and_asked_again(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(spec: Path) -> Evidence:
        raise ProgramError(f"{spec.name} ended with exit code -9")

    monkeypatch.setattr(plan, "ask_worker", die)
    monkeypatch.setattr(plan, "check_compiler", lambda topology: None)
    config = settings(in_folder, compile=True, best=1, programs=("sft",))
    table, _ = result(run_in_process(config, in_folder / "out"))
    assert "sft did not compile" in table
    assert "ended with exit code -9" in table
    assert not list((in_folder / "cache").glob("*.json"))


def test_weak_scaling_says_where_it_breaks(in_folder: Path) -> None:
    table, told = result(run_in_process(settings(in_folder, scaling=True), in_folder / "out"))
    assert "Weak scaling of llava_onevision_0_5b" in table
    assert [row["slice"] for row in told["cases"][0]["scaling"]][-1] == "v6e:16x16 (256)"
    assert told["cases"][0]["scaling"][0]["efficiency"] == "100 %"
    assert "a chip receives hardly more bytes and keeps its rate. With 8 questions in all it breaks at v6e:" in table


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cases": ("qwen2_5_vl_7b",)}, "config.cases: 'qwen2_5_vl_7b': has no @; a case is MODEL@CHIP:SHAPE"),
        ({"cases": ("qwen2_5_vl_8b@v6e:2x4",)}, "model preset 'qwen2_5_vl_8b' is unknown"),
        ({"cases": ("qwen2_5_vl_7b@v6:2x4",)}, "chip 'v6' is unknown"),
        ({"kl": False}, "config.programs: has 'score', the reference policy's program, but kl is False"),
    ],
)
def test_bad_input(in_folder: Path, capsys: pytest.CaptureFixture[str], values: dict[str, Any], message: str) -> None:
    assert main([f"--config={settings(in_folder, **values)}", "--workdir=out"]) == 2
    assert message in capsys.readouterr().err


def test_the_check_compares_a_prediction_with_the_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = {"cpu": "x", "cores": 2, "devices": 1, "dtype": "float32", "flops": {"float32": 1e11}, "bandwidth": 1e10}
    monkeypatch.setattr(plan_check, "probe", lambda config, folder: machine)
    timed = {"ours": {"repetitions": [{"wall": 5.0}, {"wall": 10.0}, {"wall": 30.0}]}}
    monkeypatch.setattr(plan_check, "measure", lambda *asked, **more: timed)
    told = plan_check.check_here(tmp_path)
    assert (told.measured, told.machine) == (10.0, "x, 2 cores")
    assert told.predicted == predict(machine)
    faster = {**machine, "flops": {"float32": 1e15}, "bandwidth": 1e15}
    assert 0 < predict(faster) < 1e-3 * told.predicted  # nothing but rates
    assert str(Checked(8.0, 10.0, "x")).endswith("8.00 s; timed: 10.00 s (-20 %).")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attention", "sequence", "kernels"), [("auto", 1, ["tpu_custom_call"]), ("whole", 1, []), ("auto", 2, [])]
)
def test_a_real_compiler_says_what_fits(in_folder: Path, attention: str, sequence: int, kernels: list[str]) -> None:
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed: pip install 'urt-jax[plan]'")
    rows = {**SMALL, "new_tokens": 32}
    asked = {"rows": rows, "programs": ("decode", "grpo"), "kl": False, "attention": attention, "sequence": (sequence,)}
    config = settings(in_folder, compile=True, best=1, **asked)
    _, told = result(run_in_process(config, in_folder / "out"))
    (layout,) = told["cases"][0]["layouts"]
    assert layout["fits"]
    assert layout["mesh"]["sequence"] == sequence
    assert not any(evidence["failed"] for evidence in layout["compiled"].values())
    assert layout["compiled"]["grpo"]["collectives"]
    assert layout["compiled"]["grpo"]["kernels"] == kernels

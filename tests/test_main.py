"""The command line: overrides arrive typed, mistakes end in a clear line and exit code 2, finished runs say so."""

import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from urt_jax.config import EvaluateConfig, SftConfig
from urt_jax.data.settings import MixtureData
from urt_jax.errors import BadInputError
from urt_jax.main import _print_redacted, main, read_arguments
from urt_jax.runs.preemption import Preempted
from urt_jax.runs.run_folder import write_result

REPOSITORY = Path(__file__).parents[1]
CONFIG = """
from ml_collections import ConfigDict

def get_config(preset: str = "") -> ConfigDict:
    if preset not in ("", "large"):
        raise ValueError(f"unknown preset {preset!r}; known: large")
    config = ConfigDict({"stage": "sft", "steps": 40 if preset else 20, "optimizer": {"learning_rate": 1}})
    config.data = (ConfigDict({"count": 5}), ConfigDict({"count": 6}))
    return config
"""


@pytest.fixture
def config_file(in_folder: Path) -> str:
    (in_folder / "configs").mkdir()
    (in_folder / "configs" / "mine.py").write_text(CONFIG)
    return "configs/mine.py"


@pytest.fixture
def stage_run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], None]], None]:
    """Return a function that puts a fake in the place of ``stages.sft.run``."""

    def install(run: Callable[[Any], None]) -> None:
        module = types.ModuleType("urt_jax.stages.sft")
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "urt_jax.stages.sft", module)

    return install


PRESETS = ("base.py:seeing", "pipeline.py:quick", "ablation.py:best")
SHIPPED = [*sorted(path.name for path in (REPOSITORY / "configs").glob("*.py")), *PRESETS]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_is_sound(name: str) -> None:
    """All that may be missing is a file that an earlier stage writes."""
    problems: list[str] = []
    try:
        config = read_arguments([f"--config={REPOSITORY / 'configs' / name}", "--workdir=there"])
    except BadInputError as error:
        problems = str(error).splitlines()[1:] or [str(error)]
    assert problems or config.stage == name.partition(".py")[0]
    assert [problem for problem in problems if "there is no 'runs/" not in problem] == []


def test_the_file_its_preset_and_the_defaults(config_file: str) -> None:
    plain = read_arguments(["--config", config_file])
    assert isinstance(plain, SftConfig)
    assert (plain.steps, plain.workdir, plain.batch_size) == (20, "runs/mine", SftConfig().batch_size)
    large = read_arguments([f"--config={config_file}:large", "--workdir=there"])
    assert isinstance(large, SftConfig)
    assert (large.steps, large.workdir) == (40, "there")
    assert read_arguments([f"--config={config_file}:large"]).workdir == "runs/mine-large"


def test_overrides_arrive_typed_also_for_knobs_the_file_does_not_name(config_file: str) -> None:
    config = read_arguments(
        [
            f"--config={config_file}",
            "--config.steps=33",
            "--config.optimizer.learning_rate=1e-5",
            "--config.optimizer.clip_norm=2",
            "--config.pixels.max_pixels=3136",
            '--config.model.trainable=("^decoder/",)',
            "--config.data[1].count=7",
            "--config.data[0].weight=2",
            "--config.seed=4",
        ]
    )
    assert isinstance(config, SftConfig)
    assert (config.steps, config.seed, config.pixels.max_pixels) == (33, 4, 3136)
    assert (config.optimizer.learning_rate, config.optimizer.clip_norm) == (1e-5, 2.0)
    assert config.model.trainable == ("^decoder/",)
    assert config.data == (MixtureData(count=5, weight=2.0), MixtureData(count=7))


def test_a_single_source_is_overridden_without_an_index(in_folder: Path) -> None:
    text = (
        'from ml_collections import ConfigDict\n\ndef get_config(preset=""):\n    return ConfigDict({"stage": "%s"})\n'
    )
    for stage in ("sft", "evaluate"):
        (in_folder / f"{stage}.py").write_text(text % stage)
    sft = read_arguments(["--config=sft.py", "--config.data.path=" + __file__, "--config.data.count=9"])
    assert isinstance(sft, SftConfig)
    assert sft.data == (MixtureData(path=__file__, count=9),)
    evaluate = read_arguments(["--config=evaluate.py", '--config.modes=("greedy",)'])
    assert isinstance(evaluate, EvaluateConfig)
    assert evaluate.modes == ("greedy",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: --config\nusage: python -m urt_jax.main"),
        (
            ["--config=configs/mien.py"],
            "config file 'configs/mien.py' does not exist: 'configs/mien.py' is unknown; did you",
        ),
        (["--config=nowhere/a.py"], "config file 'nowhere/a.py' does not exist: 'nowhere' holds no config files"),
        (
            ["--config=FILE:larg"],
            "preset 'larg' of config file configs/mine.py cannot be used: ValueError: unknown pre",
        ),
        (["--config=FILE", "--config.stps=3"], "'config.stps' is unknown; did you mean 'config.steps'? known: "),
        (
            ["--config=FILE", "--config.optimizer.b3=3"],
            "unknown; did you mean 'config.optimizer.b2'? known: config.opti",
        ),
        (["--config=FILE", "--wrokdir=x"], "argument '--wrokdir=x': 'wrokdir' is unknown"),
        (["--config=FILE", "steps=3"], "argument 'steps=3' is not understood"),
        (["--config=FILE", "--config.steps"], "argument '--config.steps' has no value; write --config.steps=<value>"),
        (["--config=FILE", "--config.steps=many"], "config.steps: got 'many' (str), needs a whole number"),
        (["--config=FILE", "--config.steps=0"], "config.steps: got 0, must be at least 1"),
        (["--config=FILE", "--config.model.dtype=float16"], "'float16' is unknown; did you mean 'bfloat16'?"),
    ],
)
def test_mistakes_end_in_one_clear_message(
    config_file: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.replace("FILE", config_file) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(preset=''):\n    return {}\n", "get_config returned a dict, needs a ConfigDict"),
        ("import nothing_of_that_name\n", "cannot be used: ModuleNotFoundError: No module named"),
        ("x = 1\n", "cannot be used: AttributeError: module 'urt_config_broken' has no attribute 'get_config'"),
    ],
)
def test_config_files_that_are_none(in_folder: Path, text: str, message: str) -> None:
    (in_folder / "broken.py").write_text(text)
    with pytest.raises(BadInputError) as caught:
        read_arguments(["--config=broken.py"])
    assert message in str(caught.value)


def test_the_stage_runs_and_a_finished_run_prints_its_table(
    config_file: str, stage_run: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[SftConfig] = []

    def run(config: SftConfig) -> None:
        seen.append(config)
        write_result(config.workdir, "accuracy 87.3 [85.1, 89.4]")

    stage_run(run)
    assert main([f"--config={config_file}"]) == 0
    assert main([f"--config={config_file}"]) == 0
    assert [config.steps for config in seen] == [20]
    assert "accuracy 87.3 [85.1, 89.4]\nruns/mine is finished" in capsys.readouterr().out
    assert main([f"--config={config_file}", "--config.steps=21"]) == 2
    assert "runs/mine holds a run of another config:\n  steps: 20 there, 21 here" in capsys.readouterr().err


def test_exit_codes_of_a_stage(
    config_file: str, stage_run: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(error: Exception) -> Callable[[Any], None]:
        def run(config: Any) -> None:
            raise error

        return run

    stage_run(fail(BadInputError("record 3 has no label")))
    assert main([f"--config={config_file}"]) == 2
    assert capsys.readouterr().err == "error: record 3 has no label\n"
    stage_run(fail(Preempted("saved at step 7")))
    assert main([f"--config={config_file}"]) == 75
    assert "preempted: saved at step 7; call again" in capsys.readouterr().err
    stage_run(fail(RuntimeError("a fault of ours")))
    with pytest.raises(RuntimeError, match="a fault of ours"):
        main([f"--config={config_file}"])


def test_bad_input_is_answered_before_jax_is_imported(config_file: str) -> None:
    script = (
        "import sys; from urt_jax.main import main; "
        f"code = main(['--config={config_file}', '--config.steps=-1']); "
        "sys.exit(10 if 'jax' in sys.modules else code)"
    )
    repository = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": str(repository)}, capture_output=True)
    assert done.returncode == 2, done.stderr.decode()


def test_what_nobody_caught_is_printed_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise KeyError("https://me:pass-word@host refused sk-abcdefgh1")
    except KeyError as error:
        _print_redacted(KeyError, error, error.__traceback__)
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "KeyError: 'https://***@host refused sk-***'" in told


def test_an_error_is_told_without_secrets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.py"
    path.write_text("raise RuntimeError('no access to https://me:pass-word@host/v1?api_key=k3y')\n")
    assert main([f"--config={path}"]) == 2
    assert "no access to https://***@host/v1?api_key=***" in capsys.readouterr().err

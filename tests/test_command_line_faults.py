"""Arguments as they are mistyped, and the help that lists every knob."""

import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from urt_jax.config import STAGES, with_defaults
from urt_jax.config.binding import record_type
from urt_jax.config.describe import _meanings
from urt_jax.config.knobs import knobs
from urt_jax.errors import BadInputError
from urt_jax.main import help_on_config, main, read_arguments

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "argument",
    [
        "--config.steps=1e400",
        "--config.steps=" + "9" * 5000,
        "--config.steps=nan",
        "--config.optimizer.learning_rate=nan",
        "--config.optimizer.learning_rate=inf",
        "--config.model.trainable=((((",
        "--config.model.trainable=[1,",
        "--config.data.path=a\0b",
        "--config.data.path=\udcff",
        "--config." + "x" * 500 + "=1",
        "--config.steps",
        "--=",
        "steps=3",
        "--config.seed=--config.seed",
    ],
)
def test_a_knob_that_cannot_be_read_is_told(argument: str) -> None:
    with pytest.raises(BadInputError) as caught:
        read_arguments([f"--config={ROOT}/configs/grpo.py", argument])
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize(
    ("config", "content"),
    [
        ("x" * 300 + ".py", None),
        (".", None),
        ("a.py", "raise SystemExit(3)"),
        ("a.py", "import nothing_of_that_name"),
        ("a.py", "def get_config(preset=''): return 7"),
        ("a.py", "def get_config(preset=''): return 1 / 0"),
        ("a.py", "x = ("),
        ("a.py", "\0"),
        ("a.py", "def f(): f()\nf()"),
    ],
)
def test_a_config_file_that_cannot_be_used_is_told(
    config: str, content: str | None, in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (in_folder / config).write_text(content)
    assert main([f"--config={config}"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert "Traceback" not in told


@pytest.mark.parametrize("workdir", ["x" * 300, "file/below"])
def test_a_workdir_that_cannot_be_is_told(workdir: str, in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (in_folder / "file").write_text("x")
    assert main([f"--config={ROOT}/configs/grpo.py", f"--workdir={workdir}"]) == 2
    assert "cannot be a run folder" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_help_beside_a_config_lists_its_knobs(path: Path) -> None:
    told = help_on_config(["--config", str(path), "--help"])
    assert told is not None
    assert told.splitlines()[0].split(":")[0].removeprefix("stage ") in STAGES
    assert "\n  workdir = " in told
    assert help_on_config(["--config", str(path)]) is None
    assert help_on_config(["--help"]) is None


def test_help_has_values_and_meanings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"--config={ROOT}/configs/grpo.py", "--help"]) == 0
    told = capsys.readouterr().out
    assert "  optimizer.warmup_steps = 5                         steps over which the rate rises from 0\n" in told
    assert "  optimizer.clip_norm = 1.0                          largest global norm of the gradient\n" in told
    assert max(map(len, told.splitlines())) <= 120


def test_all_that_help_lists_can_be_set() -> None:
    told = help_on_config([f"--config={ROOT}/configs/grpo.py", "--help"])
    assert told is not None
    names = [line.split(" = ")[0].strip() for line in told.splitlines() if line.startswith("  ") and " = " in line[:70]]
    assert 70 < len(names) <= 95, "a knob needs a second user"
    config = read_arguments([f"--config={ROOT}/configs/grpo.py", "--config.optimizer.warmup_steps=7", "--workdir=w"])
    assert config.optimizer.warmup_steps == 7


def test_help_has_meanings_that_stand_above_a_knob() -> None:
    told = help_on_config([f"--config={ROOT}/configs/grpo.py", "--help"])
    assert told is not None
    assert "  model.attention = 'auto'                           Attention of whole rows in the decoder. " in told


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("c = ConfigDict({'stage': 'sft'}); c.c = c; return c", "RecursionError"),
        ("return ConfigDict({'stage': 'sft', 'steps': config_dict.required_placeholder(int)})", "RequiredValueError"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})", "Odd: <exception str() failed>"),
    ],
)
def test_a_config_file_that_gives_no_plain_config_is_told(body: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"from ml_collections import ConfigDict, config_dict\ndef get_config(preset=''):\n    {body}\n")
    with pytest.raises(BadInputError, match=re.escape(told)):
        read_arguments([f"--config={path}"])


def test_a_given_workdir_counts_whatever_the_file_says(tmp_path: Path) -> None:
    path, config = tmp_path / "mine.py", "ConfigDict({'stage': 'sft', 'workdir': 5})"
    path.write_text(f"from ml_collections import ConfigDict\ndef get_config(preset=''):\n    return {config}\n")
    assert read_arguments([f"--config={path}", "--workdir=w"]).workdir == "w"
    with pytest.raises(BadInputError, match=r"config\.workdir"):
        read_arguments([f"--config={path}"])


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_every_knob_has_a_meaning_in_the_help(stage: str) -> None:
    bare = [
        knob.name
        for knob in knobs(with_defaults(ConfigDict({"stage": stage})))
        if knob.declared
        and record_type(knob.hint) is not knob.hint
        and not _meanings(knob.declared[0])[knob.declared[1]]
    ]
    assert bare == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("evaluate", "row label -> model, as in model.path; as \"{'<name>': '<value>', ...}\""),
        ("evaluate", "some of greedy, sampled, direct, scores; as \"('a', 'b')\""),
        ("study", 'seeds = (0, 1, 2) one pipeline per seed; as "(1, 2)"'),
        ("sft", "data = the 2 below one source, or a mixture by weight; as \"({'<knob>': <value>, ...}, ...)\""),
        (
            "grpo",
            "optimizer.schedule = 'linear' The learning rate after the warm-up: it falls to 0 (cosine, linear) or "
            "stays constant; one of cosine, linear",
        ),
        ("grpo", "data.count = 2048 first records used"),
    ],
)
def test_help_tells_how_a_knob_is_written(name: str, line: str) -> None:
    told = help_on_config([f"--config={ROOT}/configs/{name}.py", "--help"])
    assert told is not None
    assert line in " ".join(told.split())

"""Every bash and python block of the pages runs, or says above it why no test runs it; its configs are sound."""

import os
import shutil
import site
import subprocess
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.pages import PAGES, ROOT, Block, block_problems, blocks_of, command_problems, commands_of, knob_names


@dataclass(frozen=True)
class Change:
    """What a test runs in the place of some words of a block, and why."""

    shown: str
    run: str
    reason: str


@dataclass(frozen=True)
class Run:
    """How a test runs a block: in minutes or quickly, as it stands or with changes; ``leaves`` are files it writes."""

    changes: tuple[Change, ...] = ()
    slow: bool = False
    leaves: tuple[str, ...] = ()


PICTURES = """from urt_jax import RewardModel
import numpy as np
from urt_jax.scenes.render import draw_picture
words = ["red", "circle", "left of", "blue", "square"]
image_1 = draw_picture(np.random.default_rng(0), "relation", words)
image_2 = draw_picture(np.random.default_rng(1), "relation", ["green", *words[1:]], faults=["noisy"])
"""
JUDGED = "assert verdict.winner == 1 and verdict.reasoning and verdict.scores, verdict\nverdict.winner,"

RUN: dict[tuple[str, str], Run] = {  # by page and opening of the block
    ("README.md", "bash launch/demo.sh"): Run(
        (
            Change("demo.sh", "demo.sh --config configs/pipeline.py:quick", "the recipe takes 12 minutes"),
            Change("test.sh", "test.sh -q tests/test_errors.py", "all tests would run this one again"),
        ),
        slow=True,
        leaves=("runs/pipeline-quick/result.json", "runs/pipeline-quick/5-evaluate/report.html"),
    ),
    ("README.md", "from urt_jax import RewardModel"): Run(
        (
            Change("from urt_jax import RewardModel\n", PICTURES, "the two pictures are the reader's"),
            Change("verdict.winner,", JUDGED, "a value alone on a line tells a test nothing"),
        )
    ),
    (
        "docs/families.md",
        "python -m urt_jax.main --config configs/export.py --config.model=FOLDER --config.dtype=bfloat16",
    ): Run((Change("FOLDER", "urt-tiny", "the folder is the reader's"),), leaves=("runs/export/result.json",)),
    ("docs/planning.md", "pip install 'urt-jax[plan]'"): Run(
        (
            Change("pip install 'urt-jax[plan]'", "", "what it installs is for compiling, which takes minutes"),
            Change("plan.py:paper", "plan.py:paper --config.compile=False", "as above"),
            Change("CASE", "qwen2_5_vl_3b@v6e:2x4", "a line of the table below it"),
        ),
        leaves=("runs/plan-paper/result.json",),
    ),
}


def unmarked(name: str) -> list[Block]:
    """Return the blocks of RUN on a page."""
    text = next(page for page in PAGES if page.name == Path(name).name).read_text(encoding="utf-8")
    return [block for block in blocks_of(name, text) if (name, block.opening) in RUN]


BLOCKS = [block for page in PAGES for block in unmarked(page.relative_to(ROOT).as_posix())]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_run_or_say_why_not_and_their_configs_are_sound(page: Path) -> None:
    name = page.relative_to(ROOT).as_posix()
    assert block_problems(name, page.read_text(encoding="utf-8"), frozenset(RUN)) == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_commands_in_a_config_file_are_sound(path: Path) -> None:
    commands = list(commands_of("\n".join(told(path))))
    assert commands, f"{path.name} shows no command"
    assert [problem for words in commands for problem in command_problems(words)] == []


def told(path: Path) -> list[str]:
    """Return the indented lines of a file's docstring: its commands."""
    docstring = path.read_text(encoding="utf-8").split('"""')[1]
    return [line for line in docstring.splitlines() if line.startswith("    python -m urt_jax.main")]


def test_every_entry_of_run_is_a_block_and_changes_what_it_holds() -> None:
    assert {(block.page, block.opening) for block in BLOCKS} == set(RUN)
    for block in BLOCKS:
        for change in RUN[block.page, block.opening].changes:
            assert change.shown in block.text, f"{block.where} no longer holds {change.shown!r}"
            assert change.reason


def a_page(above: str = "", language: str = "bash", body: str = "echo 1") -> str:
    return f"Text.\n\n{above}\n```{language}\n{body}\n```\n"


@pytest.mark.parametrize(
    ("page", "wrong"),
    [
        (a_page(), "is run by no test: add it to RUN"),
        (a_page(language="python"), "is run by no test"),
        (a_page("<!-- not run: -->"), "gives no reason"),
        (a_page("<!-- a remark -->"), "is run by no test"),
        (a_page("<!-- not run: it is known -->", body="echo 2"), "is run by a test, so it needs no comment"),
        (a_page(language="sh"), "language 'sh' is none of"),
        (a_page(language=""), "language '' is none of"),
        (
            a_page("<!-- not run: x -->", body="python -m urt_jax.main --config configs/gone.py"),
            "gone.py' does not exist",
        ),
        (a_page("<!-- not run: x -->", body="x --config configs/grpo.py:gone"), "unknown preset 'gone'"),
        (a_page("<!-- not run: x -->", body="x --config ./configs/gone.py"), "gone.py' does not exist"),
        (a_page("<!-- not run: x -->", body="x --config=configs/grpo.py --config.stepz=3"), "config.stepz"),
        (a_page("<!-- not run: x -->", body="x --config configs/grpo.py --config.stepz 3"), "config.stepz"),
        (a_page("<!-- not run: x -->", body="x --config configs/grpo.py --config.steps 3"), "has no value"),
        (a_page("<!-- not run: x -->", body="x --config configs/grpo.py \\\n  --config.steps=many"), "config.steps"),
        (
            a_page("<!-- not run: x -->", body="bash launch/demo.sh --config.stepz=3"),
            "no stage has a knob config.stepz",
        ),
        (a_page(language="text", body="x --config configs/gone.py"), "gone.py' does not exist"),
    ],
)
def test_a_block_that_nobody_looked_at_is_found(page: str, wrong: str) -> None:
    problems = block_problems("page.md", page, frozenset({("page.md", "echo 2")}))
    assert any(wrong in problem for problem in problems), problems
    assert all(problem.startswith("page.md:4: ") for problem in problems)


def test_a_sound_page_has_no_problems() -> None:
    page = a_page("<!-- not run: it needs a pod -->", body="x --config configs/sft.py --config.batch_size=8 # ok")
    assert block_problems("page.md", page + a_page(body="echo 2"), frozenset({("page.md", "echo 2")})) == []
    assert "config.optimizer.learning_rate" in knob_names()
    with pytest.raises(ValueError, match=r"page\.md:1: the block has no end"):
        blocks_of("page.md", "```bash\necho 1")


def make_checkout(folder: Path) -> Path:
    """Copy the checkout with a finished environment in it, which sees the packages of this one."""
    for name in ("urt_jax", "configs", "launch", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    venv.create(folder / ".venv", with_pip=False, symlinks=True)
    (packages,) = folder.glob(".venv/lib/python*/site-packages")
    (packages / "tested.pth").write_text("\n".join(site.getsitepackages()))
    stamp = "cat requirements.txt pyproject.toml | cksum > .venv/complete"
    subprocess.run(["bash", "-c", stamp], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=block.where, marks=[pytest.mark.slow] * RUN[block.page, block.opening].slow)
        for block in BLOCKS
    ],
)
def test_a_block_runs_as_it_stands(block: Block, tmp_path: Path) -> None:
    how, checkout = RUN[block.page, block.opening], make_checkout(tmp_path / "checkout")
    text = block.text
    for change in how.changes:
        text = text.replace(change.shown, change.run, 1)
    cache = os.environ.get("URT_TEST_CACHE") or f"{tempfile.gettempdir()}/urt-jax-test-cache-{os.getuid()}"
    env = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "PYTHONPATH", "VENV")}
    env |= {"PATH": f"{checkout / '.venv' / 'bin'}:{os.environ['PATH']}", "JAX_PLATFORMS": "cpu"}
    env |= {"JAX_COMPILATION_CACHE_DIR": cache, "PIP_NO_INDEX": "1"}
    command = ["bash", "-euo", "pipefail", "-c", text] if block.language == "bash" else ["python", "-c", text]
    done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    for path in how.leaves:
        assert (checkout / path).is_file(), f"{path} is not there\n{done.stdout}"

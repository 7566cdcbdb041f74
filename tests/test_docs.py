"""What the pages show is true: records are read, links lead somewhere, what they name is there."""

import importlib
import json
import re
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

from tests.pages import AT_THE_TOP, PAGES, ROOT, blocks_of, command_problems, commands_of, knob_names, spans_of
from tests.test_import_table import LEVEL, PACKAGE
from urt_jax.config import STAGES
from urt_jax.data.sources import read_examples
from urt_jax.losses.grpo import OBJECTIVES

RECORDS = re.findall(r"```json\n(.*?)\n```", (ROOT / "docs" / "data.md").read_text(encoding="utf-8"), re.DOTALL)
HERE = [page for page in PAGES if page.name != "CHANGELOG.md"]  # that one names what is gone, too
ROOTS = (ROOT, PACKAGE, ROOT / "docs")  # where a path of a page starts
LEFT_BY_RUNS = ("records/", "model/", "adapter/", "samples/", "skipped/", "tb/", "runs/")
# Of others: an inference script's name in another repository, and the folder that holds it.
ELSEWHERE = {"inference_llava", "inference_qwen", "UnifiedReward-Think/"}
FILE = re.compile(r"[\w./-]*\w\.(?:py|md|sh|ipynb|sbatch|toml|txt|json|jsonl|jinja|yaml|html|safetensors)(?::\w+)?")
DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+(?:=\S*)?")
ARXIV = re.compile(r"\b\d{4}\.\d{5}\b")


@pytest.mark.parametrize("record", RECORDS, ids=range(len(RECORDS)))
def test_every_record_of_the_page_is_read(record: str, tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png", "d.png", "source.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "pairs.jsonl").write_text(json.dumps(json.loads(record)) + "\n")
    (example,) = read_examples(tmp_path / "pairs.jsonl", require_label=True)
    assert example.task in ("image_gen", "image_und", "image_edit", "image_score", "open")
    assert example.judged


@cache
def sources() -> str:
    """Return all code and settings of the checkout but the tests of the pages, which repeat what they look for."""
    files = [path for name in ("urt_jax", "configs", "launch", "tests") for path in (ROOT / name).rglob("*.*")]
    kept = [path for path in files if path.suffix in (".py", ".sh", ".sbatch", ".ipynb", ".txt", ".yaml", ".css")]
    here = {Path(__file__), ROOT / "tests" / "test_page_blocks.py", ROOT / "tests" / "pages.py"}
    more = [ROOT / name for name in ("pyproject.toml", "requirements.txt", ".ci/run")]
    return "\n".join(path.read_text(encoding="utf-8") for path in [*(set(kept) - here), *more])


@cache
def file_names() -> frozenset[str]:
    """Return the names of the files below the folders of the checkout."""
    folders = (ROOT / name for name in ("urt_jax", "configs", "launch", "tests", "docs"))
    return frozenset(path.name for folder in folders for path in folder.rglob("*.*"))


def is_a_path(span: str) -> bool:
    """Return whether a span is a file or a folder that the checkout should hold."""
    first, slash, _ = span.partition("/")
    ours = first in {"urt_jax", "tests", "docs", "configs", "launch", ".ci", *LEVEL}
    return bool(slash) and ours and not span.startswith(LEFT_BY_RUNS) and not set(span) & set("<*{ ")


def is_there(span: str) -> bool:
    """Return whether a path is in the checkout, and after a colon (``file.py:NAME``) the name is in the file."""
    path, _, name = span.partition(":")
    found = [root / path for root in ROOTS if (root / path).exists()]
    named = not name or path.startswith("configs/")  # a preset: see test_page_blocks
    return bool(found) and (named or bool(re.search(rf"^{name}\b", found[0].read_text(encoding="utf-8"), re.MULTILINE)))


def is_an_object(dotted: str) -> bool:
    """Return whether ``room.module.name`` can be imported from the package."""
    parts = dotted.removeprefix("urt_jax.").split(".")
    for n in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(["urt_jax", *parts[:n]]))
        except ModuleNotFoundError:
            continue
        for part in parts[n:]:
            found = getattr(found, part, None)
        return found is not None
    return False


def is_known(span: str) -> bool:
    """Return whether a name is a knob, an object of the package, or a word of the code.

    Of a class with an attribute the code has both words.
    """
    name = span.partition("=")[0]
    if any(known.endswith(f".{name.removeprefix('config.')}") for known in knob_names()):
        return True
    first, *below = name.split(".")
    if below and first in {"urt_jax", *LEVEL}:
        return first != "config" and is_an_object(name)
    return all(re.search(rf"(?<!\w){word}(?!\w)", sources()) for word in (first, *below))


def name_problems(text: str) -> list[str]:
    """Return what a page names that is nowhere."""
    found = []
    for span in dict.fromkeys(spans_of(text)):
        if span in ELSEWHERE:
            continue
        if is_a_path(span):
            found += [] if is_there(span) else [f"there is no {span}"]
        elif FILE.fullmatch(span):
            known = "/" not in span and (span in file_names() or span.lstrip("./") in sources())
            found += [] if known or span.startswith(LEFT_BY_RUNS) or (ROOT / span).exists() else [f"no file {span}"]
        elif DOTTED.fullmatch(span) or re.fullmatch(r"[A-Za-z_]\w*", span):
            found += [] if is_known(span) else [f"nothing is called {span}"]
        else:
            found += [problem for words in commands_of(span) for problem in command_problems(words)]
    return found


@pytest.mark.parametrize("page", HERE, ids=lambda page: page.name)
def test_files_names_and_commands_of_a_page_are_there(page: Path) -> None:
    assert name_problems(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("span", "wrong"),
    [
        ("tests/losses/test_gone.py", "there is no tests/losses/test_gone.py"),
        ("families/gone.py", "there is no families/gone.py"),
        ("sharding/rules.py:GONE", "there is no sharding/rules.py:GONE"),
        ("test_gone.py", "no file test_gone.py"),
        ("config.optimizer.gone", "nothing is called config.optimizer.gone"),
        ("types.Gone", "nothing is called types.Gone"),
        ("training.rollout.gone", "nothing is called training.rollout.gone"),
        ("RolloutMaker._gone_at_all", "nothing is called RolloutMaker._gone_at_all"),
        ("a_name_that_is_nowhere" + "_else", "nothing is called a_name_that_is_nowhere_else"),
        ("--config.gone=3", "no stage has a knob config.gone"),
        ("x --config configs/sft.py:gone", "unknown preset 'gone'"),
    ],
)
def test_what_is_not_there_is_found(span: str, wrong: str) -> None:
    (problem,) = name_problems(f"Text with `{span}` in it.\n\n```bash\n`not.a.span`\n```\n")
    assert wrong in problem


def test_what_is_there_is_not_told() -> None:
    spans = ("tests/losses", "families/presets.py", "sharding/rules.py:MESH_AXES", "config.optimizer.b2", "data.fps=2")
    spans += ("types.Rollout", "RolloutMaker._ask", "--config.workers=N", "configs/plan.py:scaling --config.best=1")
    assert name_problems(" and ".join(f"`{span}`" for span in spans)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_config_files_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link
    for config in re.findall(r"configs/\w+\.py", text):
        assert (ROOT / config).is_file(), config


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_drawing_names_what_can_be_imported(page: Path) -> None:
    drawings = [
        block.text for block in blocks_of(page.name, page.read_text(encoding="utf-8")) if block.language == "text"
    ]
    assert page.name != "architecture.md" or drawings
    for name in re.findall(r"(?<![\w.])[a-z]\w*(?:\.\w+)+", "\n".join(drawings)):
        assert is_an_object(name), name


def test_every_loss_has_a_row_and_every_paper_stands_in_the_code_too() -> None:
    page = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if ARXIV.search(line)]
    assert {name for name in OBJECTIVES if f"`loss={name}`" not in page} <= {"bnpo"}  # a name of no paper
    for row in rows:
        knobs, papers, _ = row.strip("| ").split(" | ")
        assert ARXIV.fullmatch(papers), row
        assert papers in sources(), f"{papers} is named by no docstring"
        for knob in re.findall(r"`([\w.]+)(?:=\w+)?`", knobs):
            assert f"config.{knob}" in knob_names(), row


@pytest.mark.parametrize("page", ["README.md", "docs/recipe.md"])
def test_every_stage_is_in_the_tables(page: str) -> None:
    rows = [line for line in (ROOT / page).read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert [stage for stage in STAGES if not any(f"`{stage}`" in row for row in rows)] == []


def test_the_readme_is_two_minutes() -> None:
    assert len(AT_THE_TOP[0].read_text(encoding="utf-8").splitlines()) <= 150

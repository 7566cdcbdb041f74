"""The house: rooms import downwards only, strings know no arrays, names say something, files stay small."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "urt_jax"
LEVELS = (
    {"errors", "progress", "settings", "types"},
    {"files", "tasks"},
    {"ops", "rewards", "sharding"},
    {"losses", "models", "data", "runs"},
    {"families", "scenes", "teacher"},
    {"checkpoints"},  # a model folder is read by the rules of its family
    {"generation"},
    {"training"},
    {"judge"},
    {"evals", "serving", "planning", "__init__"},  # the package itself offers the Python API
    {"config"},
    {"feeds"},
    {"stages"},
    {"main"},
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
MAX_LINES = 400
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}

FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in FILES]


def imported_modules(source: str, package: str) -> set[str]:
    """Return the full names of all modules a file imports anywhere; ``from urt_jax import x`` names urt_jax.x."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names} if module == "urt_jax" else {module}
    return found


def room_of(path: Path) -> str:
    """Return the folder below urt_jax, or the name of a file that lies in urt_jax itself."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def violations(room: str, modules: set[str]) -> list[str]:
    """Return what a file of this room imports against the table."""
    found = []
    for module in sorted(modules):
        top, _, below = module.partition(".")
        if top == "urt_jax":
            other = below.split(".")[0]
            if other != room and (other not in LEVEL or LEVEL[other] >= LEVEL[room]):
                found.append(f"{room} imports {module}")
        if top == "torch" or top == "torchvision":
            found.append(f"{module}: torch is for tests only")
        if top == "ml_collections" and room not in ("config", "main"):
            found.append(f"{module}: ConfigDict stops at config")
        if top in ("jax", "jaxlib", "flax", "optax", "orbax") and room in ("tasks", "rewards", "data", "scenes"):
            found.append(f"{module}: {room} is strings, files and numpy")
    return found


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_imports_follow_the_table(path: Path) -> None:
    room = room_of(path)
    package = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts[:-1])
    assert room in LEVEL, f"{room} has no place in the import table"
    assert violations(room, imported_modules(path.read_text(encoding="utf-8"), package)) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("ops", "from urt_jax.models.config import ModelConfig"),
        ("losses", "def f():\n    from urt_jax import data"),
        ("models", "import urt_jax.losses.sft"),
        ("data", "import jax.numpy as jnp"),
        ("rewards", "from flax import linen"),
        ("stages", "from ml_collections import ConfigDict"),
        ("families", "import torch"),
        ("stages", "from ..main import main"),
    ],
)
def test_the_table_finds_what_is_against_it(room: str, source: str) -> None:
    assert violations(room, imported_modules(source, f"urt_jax.{room}")) != []


def test_the_table_lets_pass_what_is_right() -> None:
    source = "import jax\nfrom urt_jax.types import Batch\nfrom urt_jax.ops import rope\nfrom .layers import Linear"
    assert violations("models", imported_modules(source, "urt_jax.models")) == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_files_are_small_and_named_for_what_they_hold(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{lines} lines: a design question"
    assert not EMPTY_NAMES & {part.removesuffix(".py") for part in path.relative_to(PACKAGE).parts}
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), "no module docstring"

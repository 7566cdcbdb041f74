"""The house: rooms import downwards only, strings know no arrays, names say something, files stay small."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "urt_jax"
LEVELS = (
    {"errors", "progress", "settings", "types"},
    {"files"},
    {"tasks"},  # how a task is asked and read, in words
    {"ops", "rewards", "sharding"},
    {"losses", "models", "data", "runs"},
    {"families", "scenes", "teacher"},
    {"checkpoints"},  # a model folder is read by the rules of its family
    {"generation"},
    {"training"},
    {"judge"},
    {"evals", "serving", "__init__"},  # the package itself offers the Python API
    {"config"},
    {"planning"},
    {"feeds"},
    {"stages"},
    {"main"},
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
MAX_LINES = 350
MAX_FUNCTION, MOST_FUNCTIONS = 60, 25  # lines; nine in ten functions have at most MOST_FUNCTIONS
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


# Floors inside rooms, from low to high: a module imports lower floors only. The modules of other rooms may import each
# other as long as there is no circle.
FLOORS: dict[str, tuple[set[str], ...]] = {
    "generation": (
        {"sampling", "schedule", "stops", "stored_settings"},
        {"state", "lanes"},
        {"prompt_cache", "vocabulary"},
        {"loop", "joining"},
        {"engine"},
        {"job"},
        {"sampler"},
    ),
    "judge": ({"call_settings", "ranking"}, {"responder"}, {"scoring"}, {"reward_model"}),
    "feeds": ({"streaming"}, {"records"}, {"encoder"}, {"batches"}, {"questions"}, {"rollouts"}),
    "training": (
        {"settings", "state", "metrics"},
        {"optimizer", "lora", "pieces", "skipped"},
        {"steps"},
        {"compile", "rollout"},
        {"loop", "rollout_figures"},
    ),
    "stages": (
        {"policy", "grpo_report", "bench", "data", "plan", "export", "distill"},
        {"sft", "grpo"},
        {"base", "reject", "evaluate"},
        {"pipeline"},
        {"study"},
        {"ablation"},
    ),
}  # fmt: skip


def inside(room: str) -> dict[str, set[str]]:
    """Return which modules of a room each of its modules imports, by their names in the room."""
    found: dict[str, set[str]] = {}
    for path in sorted((PACKAGE / room).rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE / room).with_suffix("").parts).removesuffix(".__init__")
        package = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts[:-1])
        prefix = f"urt_jax.{room}."
        modules = imported_modules(path.read_text(encoding="utf-8"), package)
        found[name] = {module.removeprefix(prefix) for module in modules if module.startswith(prefix)} - {name}
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return a path through every circle of imports."""
    found: list[list[str]] = []

    def walk(name: str, path: list[str]) -> None:
        if name in path:
            found.append([*path[path.index(name) :], name])
        elif name in graph:
            for other in sorted(graph[name]):
                walk(other, [*path, name])

    for name in graph:
        walk(name, [])
    return found


ROOMS = sorted(path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists())


@pytest.mark.parametrize("room", ROOMS)
def test_modules_of_a_room_import_each_other_in_no_circle(room: str) -> None:
    assert circles(inside(room)) == []


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}})[0] == ["a", "b", "c", "a"]


@pytest.mark.parametrize("room", FLOORS)
def test_modules_import_lower_floors_of_their_room(room: str) -> None:
    floor = {name: level for level, names in enumerate(FLOORS[room]) for name in names}
    graph = {name: others for name, others in inside(room).items() if name != "__init__"}
    assert set(graph) == set(floor), "every module has a floor"
    assert [(name, other) for name, others in graph.items() for other in others if floor[other] >= floor[name]] == []


def test_functions_are_short() -> None:
    lengths = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                lengths.append(((node.end_lineno or 0) - first + 1, f"{path.relative_to(PACKAGE)}: {node.name}"))
    assert [one for one in lengths if one[0] > MAX_FUNCTION] == []
    lengths.sort()
    assert lengths[int(0.9 * len(lengths))][0] <= MOST_FUNCTIONS
    assert sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in FILES)[len(FILES) // 2] <= 105

"""launch/colab.ipynb runs from its first cell to its last, and shows what it says.

Its code cells run in one fresh Python process (``notebook_process.py``), in a copy of the checkout. The notebook uses
nothing of Jupyter but ``display`` and ``HTML``: a kernel would run the same statements in the same order, and nbclient
with ipykernel would bring some thirty packages into the tested set to do so. The install cell is real: pip installs the
copy into an environment of its own, which sees the packages of this one and no index.
"""

import ast
import importlib.util
import json
import os
import shutil
import site
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "launch" / "colab.ipynb"


def code_cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def test_cells_are_short_and_hold_no_output() -> None:
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in code_cells():
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
        assert len(cell["source"]) <= 20
        ast.parse("".join(cell["source"]))  # plain Python: no magics, no shell lines


def make_environment(folder: Path) -> Path:
    """Make a virtual environment in which the packages of this one can be imported; return its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "tested.pth").write_text("\n".join(site.getsitepackages()))
    return python


def test_outside_a_checkout_it_says_what_to_set(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tests" / "notebook_process.py"), str(NOTEBOOK), str(tmp_path / "outputs")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{tmp_path} holds no checkout of the project; set REPOSITORY above to a git address of it" in done.stderr


def test_all_cells_run_and_show_what_they_say(tmp_path: Path) -> None:
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed, and pip needs it to install the checkout without an index")
    checkout = tmp_path / "checkout"
    for name in ("urt_jax", "configs", "launch"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, checkout)
    python = make_environment(tmp_path / "venv")
    cache = os.environ.get("URT_TEST_CACHE") or f"{tempfile.gettempdir()}/urt-jax-test-cache-{os.getuid()}"
    env = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "PYTHONPATH")}
    env |= {"PATH": str(python.parent), "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": cache}
    env |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    outputs = tmp_path / "outputs.json"
    command = [str(python), str(ROOT / "tests" / "notebook_process.py"), "colab.ipynb", str(outputs)]
    done = subprocess.run(command, cwd=checkout / "launch", env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr

    shown = json.loads(outputs.read_text())
    assert len(shown) == len(code_cells())
    pictures = [one for cell in shown for one in cell if "image/png" in one]
    curve, report = (one["text/html"] for cell in shown for one in cell if "text/html" in one)
    assert len(pictures) == 2
    assert curve.startswith("<svg ")
    assert len(curve.split('points="')[1].split('"')[0].split()) == 8  # a point a step
    assert "srcdoc=" in report
    assert "rewards/accuracy/mean" in report
    assert "a red circle left of a blue square" in done.stdout
    assert "winner: 1" in done.stdout
    assert (checkout / "runs" / "notebook" / "model" / "model.safetensors").is_file()

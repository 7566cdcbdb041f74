"""Run the code cells of a notebook, top to bottom, in this process: ``notebook_process.py NOTEBOOK OUTPUTS``.

What a notebook adds to Python is played here: the value of a cell's last expression is displayed, and
``IPython.display`` turns what is displayed into MIME types by the ``_repr_<type>_`` methods, as Jupyter does.
OUTPUTS becomes a JSON list, for each code cell a list of {MIME type: data}; bytes are given by their length.
"""

import ast
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

KINDS = {"png": "image/png", "html": "text/html", "svg": "image/svg+xml"}


class Html:
    """Stands for ``IPython.display.HTML``."""

    def __init__(self, data: str) -> None:
        self.data = data

    def _repr_html_(self) -> str:
        return self.data


def mime_types(value: object) -> dict[str, Any]:
    """Return what Jupyter would show of a value."""
    shown: dict[str, Any] = {"text/plain": repr(value)}
    for name, kind in KINDS.items():
        data = getattr(value, f"_repr_{name}_", lambda: None)()
        if data is not None:
            shown[kind] = len(data) if isinstance(data, bytes) else data
    return shown


def run_cell(source: str, name: str, space: dict[str, Any], display: Callable[..., None]) -> None:
    """Run one cell and display the value of its last expression."""
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), space)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), name, "eval"), space)
        if value is not None:
            display(value)


def run_notebook(notebook: Path) -> list[list[dict[str, Any]]]:
    """Run all code cells and return the outputs of each."""
    outputs: list[list[dict[str, Any]]] = []

    def display(*values: object) -> None:
        outputs[-1].extend(mime_types(value) for value in values)

    package, module = ModuleType("IPython"), ModuleType("IPython.display")
    vars(module).update(display=display, HTML=Html)
    sys.modules |= {"IPython": package, "IPython.display": module}
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    space: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells, 1):
        if cell["cell_type"] == "code":
            outputs.append([])
            run_cell("".join(cell["source"]), f"cell {number}", space, display)
    return outputs


if __name__ == "__main__":
    sys.path[0] = ""  # the working directory, as in a notebook, and not the folder of this file
    results = run_notebook(Path(sys.argv[1]))
    Path(sys.argv[2]).write_text(json.dumps(results), encoding="utf-8")

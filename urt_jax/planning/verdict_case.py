"""A user's first verdict: seconds from the import on, in a new process, with programs cached by an earlier one.

Each form of a first call is timed separately: one order, both orders, three votes. Its programs are compiled once and
cached in a folder for later processes, as by ``RewardModel.load`` on a user's machine.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from urt_jax.evals.tables import Cell, format_table
from urt_jax.planning.paired import ProgramError

JUDGE = "urt-tiny-cold"
FORMS: dict[str, dict[str, Any]] = {
    "one order": {},
    "both orders": {"order": "both"},
    "three votes": {"votes": 3, "temperature": 1.0},
}
PARTS = ("import", "load", "verdict")
PROGRAM = """\
import json, sys, time
marks = [time.perf_counter()]
import numpy
from urt_jax import RewardModel
marks.append(time.perf_counter())
judge = RewardModel.load(sys.argv[1])
marks.append(time.perf_counter())
pictures = [numpy.full((112, 112, 3), level, numpy.uint8) for level in (80, 160)]
judge.compare(caption="a red circle left of a blue square", images=pictures, **json.loads(sys.argv[2]))
marks.append(time.perf_counter())
print(json.dumps([later - earlier for earlier, later in zip(marks, marks[1:])]))
"""


class VerdictCase:
    """Times first verdicts; ``cold`` holds the seconds of each form before any program was cached."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        kept = {"JAX_COMPILATION_CACHE_DIR": self._folder.name, "JAX_ENABLE_COMPILATION_CACHE": "true"}
        self._environment = {**environment, **kept}
        self.cold = {form: sum(self._seconds(form)) for form in FORMS}

    def close(self) -> None:
        """Delete the cached programs."""
        self._folder.cleanup()

    def repeat(self) -> dict[str, float]:
        """Return the seconds of each form's parts, ``<form>/<part>``, and in total.

        Raises:
            ProgramError: a process failed.
        """
        began = time.perf_counter()
        seconds = {f"{form}/{part}": took for form in FORMS for part, took in zip(PARTS, self._seconds(form))}
        return {**seconds, "wall": time.perf_counter() - began}

    def _seconds(self, form: str) -> list[float]:
        command = [sys.executable, "-c", PROGRAM, JUDGE, json.dumps(FORMS[form])]
        ended = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, check=False, cwd=Path(self._folder.name)
        )
        if ended.returncode:
            raise ProgramError(f"the first verdict, {form}, failed: {ended.stderr.strip()[-500:]}")
        found: list[float] = json.loads(ended.stdout.splitlines()[-1])
        return found


def verdict_text(measured: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Return the table of first verdicts and its records: medians in seconds."""
    cold, repetitions = measured["ready"]["cold"], measured["repetitions"]
    rows: list[dict[str, Any]] = []
    for form in FORMS:
        parts = {part: median(repetition[f"{form}/{part}"] for repetition in repetitions) for part in PARTS}
        whole = median(sum(repetition[f"{form}/{part}"] for part in PARTS) for repetition in repetitions)
        rows.append({"first verdict": form, **parts, "in all": whole, "nothing kept": cold[form]})
    return format_table(_lines(rows)), rows


def _lines(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Cell]]:
    return [
        {name: value if isinstance(value, str) else f"{value:.2f} s" for name, value in row.items()} for row in rows
    ]

"""Timing of programs in their own processes, in turn, so that changes of the machine's speed affect all equally.

A program prints one line of JSON when it is warm, then one line with a repetition's figures for every line that it
reads. Its other output goes to its log.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from urt_jax.errors import shown
from urt_jax.files.json_text import JsonError, parse_object

Figures = dict[str, Any]
LOG_LINES = 12  # last lines of a failed program's log that its error shows


class ProgramError(RuntimeError):
    """A timed program ended before it answered."""


class Program:
    """A running program that repeats its work on request; close it, or use it as a context."""

    def __init__(self, command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.command, self._log = list(command), log
        with log.open("wb") as told:
            self._process = subprocess.Popen(
                self.command,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=told,
                text=True,
            )

    def ready(self) -> Figures:
        """Wait until the program is warm and return its answer.

        Raises:
            ProgramError: the program ended, and the error shows the last lines of its log; or its answer is not JSON.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            told = "\n  ".join(lines[-LOG_LINES:])
            raise ProgramError(
                f"{' '.join(self.command)} ended with exit code {code} before it answered; see {self._log}:\n  {told}"
            )
        try:
            return parse_object(line)
        except JsonError as error:
            raise ProgramError(f"{' '.join(self.command)} answered {shown(line)}: {error}; see {self._log}") from None

    def repeat(self) -> Figures:
        """Make the program repeat its work once, and return the figures.

        Raises:
            ProgramError: as ``ready``.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # ``ready`` raises with the reason
            self._process.stdin.write("again\n")
            self._process.stdin.flush()
        return self.ready()

    def close(self) -> None:
        """End the program by closing its input; if it does not exit within a few seconds, kill it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> "Program":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def in_turn(programs: Mapping[str, Program], rounds: int) -> dict[str, list[Figures]]:
    """Repeat all programs ``rounds`` times, one at a time, every other round in the opposite order.

    Raises:
        ProgramError: a program ended.
    """
    figures: dict[str, list[Figures]] = {name: [] for name in programs}
    for number in range(rounds):
        names = list(programs) if number % 2 == 0 else list(programs)[::-1]
        for name in names:
            figures[name].append(programs[name].repeat())
    return figures

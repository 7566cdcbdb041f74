"""Replies that score one candidate: a line ``Alignment Score (1-5): 3.5`` for each axis, inside ``<answer>``."""

import re
from typing import TYPE_CHECKING

from urt_jax.tasks.replies import Verdict, read_answer

if TYPE_CHECKING:
    from urt_jax.tasks.task import Task

_LINE = re.compile(r"([A-Za-z][A-Za-z -]{0,63}) Score \(([0-9]{1,3})-([0-9]{1,3})\): ?([0-9]{1,3}(?:\.[0-9]{1,4})?)")


def read_points(text: str, *, think: bool, task: "Task") -> Verdict:
    """Read the scores of one candidate: each dimension of the task once, in its order and within its scale.

    The strict form of ``parse`` holds around them. ``scores`` has one number per dimension. Never raises;
    ``failure`` names the first fault.
    """
    content, reasoning, failure = read_answer(text, think=think)
    scores: dict[str, tuple[float, ...]] = {}
    if failure is None:
        lines = [line.strip() for line in content.splitlines() if line.strip()]
        scores, failure = _read_lines(lines, task)
    return Verdict(None, scores, None, None, reasoning, text, failure)


def number_spans(text: str, task: "Task") -> dict[str, tuple[int, int]]:
    """Return the characters ``[start, end)`` of each dimension's number in a reply that ``read_points`` can read."""
    start = text.rindex("<answer>")
    found = [match for match in _LINE.finditer(text, start) if match[1] in task.dimensions]
    return {match[1]: match.span(4) for match in found}


def points_text(task: "Task", scores: dict[str, float]) -> str:
    """Return the lines of ``<answer>`` that give these scores."""
    low, high = task.scale
    return "\n".join(f"{name} Score ({low}-{high}): {scores[name]:g}" for name in task.dimensions)


def _read_lines(lines: list[str], task: "Task") -> tuple[dict[str, tuple[float, ...]], str | None]:
    low, high = task.scale
    if len(lines) != len(task.dimensions):
        return {}, f"{len(lines)} lines in <answer>; needed one for each of {', '.join(task.dimensions)}"
    scores: dict[str, tuple[float, ...]] = {}
    for line, name in zip(lines, task.dimensions):
        found = _LINE.fullmatch(line)
        if found is None or found[1] != name or (int(found[2]), int(found[3])) != (low, high):
            return {}, f"{line[:60]!r} is not '{name} Score ({low}-{high}): x'"
        if not low <= float(found[4]) <= high:
            return {}, f"{name} is {found[4]}, outside {low} to {high}"
        scores[name] = (float(found[4]),)
    return scores, None

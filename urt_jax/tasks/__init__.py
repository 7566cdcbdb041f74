"""The judging tasks, one per file; a new task is a file and an import here."""

from urt_jax.tasks import (
    answer_score,
    image_edit,
    image_gen,
    image_score,
    image_und,
    open_question,
    video_gen,
    video_score,
    video_und,
)
from urt_jax.tasks.labels import LABELS, NOUNS, TIES
from urt_jax.tasks.replies import Verdict, parse
from urt_jax.tasks.task import Medium, Task

__all__ = [
    "LABELS", "NOUNS", "PAPER_TASKS", "TASKS", "TIES", "Medium", "Task", "Verdict", "find_task", "is_task",
    "read_reply",
]  # fmt: skip

_PAPER = (image_gen, video_gen, image_und, video_und)
_FURTHER = (image_edit, image_score, video_score, answer_score, open_question)
TASKS: dict[str, Task] = {module.TASK.name: module.TASK for module in (*_PAPER, *_FURTHER)}
PAPER_TASKS = tuple(module.TASK.name for module in _PAPER)  # those of UnifiedReward-Think (arXiv 2505.03318)


def is_task(given: object) -> bool:
    """Return whether a value of any type is the name of a task."""
    return isinstance(given, str) and given in TASKS


def find_task(medium: Medium, *, answers: bool) -> Task:
    """Return the paper's task that compares media of this kind, or written answers about one."""
    return next(TASKS[name] for name in PAPER_TASKS if (TASKS[name].medium, TASKS[name].answers) == (medium, answers))


def read_reply(text: str, *, task: str | None, think: bool = True) -> Verdict:
    """Read a reply in the form of its task; without a task, as a verdict on a pair in any task's words."""
    return parse(text, think=think) if task is None else TASKS[task].read(text, think=think)

"""The judging tasks, one per file; a new task is a file and an import here."""

from urt_jax.tasks import image_gen, image_und, video_gen, video_und
from urt_jax.tasks.task import Medium, Task

__all__ = ["LABELS", "NOUNS", "TASKS", "TIES", "Medium", "Task", "find_task", "is_task"]

TASKS: dict[str, Task] = {module.TASK.name: module.TASK for module in (image_gen, video_gen, image_und, video_und)}
NOUNS = tuple(dict.fromkeys(task.noun for task in TASKS.values()))
LABELS = {task.label(place): place for task in TASKS.values() for place in (1, 2)}
TIES = frozenset(task.tie for task in TASKS.values())


def is_task(given: object) -> bool:
    """Return whether a value of any type is the name of a task."""
    return isinstance(given, str) and given in TASKS


def find_task(medium: Medium, *, answers: bool) -> Task:
    """Return the task that compares media of this kind, or written answers about one."""
    return next(task for task in TASKS.values() if (task.medium, task.answers) == (medium, answers))

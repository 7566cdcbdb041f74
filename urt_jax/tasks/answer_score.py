"""The score of one written answer to a question about a picture."""

from urt_jax.tasks.points import read_points
from urt_jax.tasks.task import Task

TASK = Task(
    "answer_score",
    noun="Answer",
    medium="image",
    answers=True,
    dimensions=("Accuracy", "Correctness", "Clarity"),
    candidates=1,
    scale=(1, 5),
    reader=read_points,
)

"""Two written answers to a question about a picture."""

from urt_jax.tasks.task import Task

TASK = Task(
    "image_und",
    noun="Answer",
    medium="image",
    answers=True,
    dimensions=("Semantic accuracy", "Correctness", "Clarity"),
    alone="answer_score",
)

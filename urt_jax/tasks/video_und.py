"""Two written answers to a question about a clip."""

from urt_jax.tasks.task import Task

TASK = Task(
    "video_und",
    noun="Answer",
    medium="video",
    answers=True,
    dimensions=("Semantic accuracy", "Correctness", "Clarity"),
)

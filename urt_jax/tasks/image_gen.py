"""Two pictures made for a caption."""

from urt_jax.tasks.task import Task

TASK = Task(
    "image_gen",
    noun="Image",
    medium="image",
    answers=False,
    dimensions=("Semantic consistency", "Aesthetics", "Authenticity"),
    alone="image_score",
)

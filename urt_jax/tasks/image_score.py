"""The score of one picture made for a caption, on the axes of UnifiedReward 2.0."""

from urt_jax.tasks.points import read_points
from urt_jax.tasks.task import Task

TASK = Task(
    "image_score",
    noun="Image",
    medium="image",
    answers=False,
    dimensions=("Alignment", "Coherence", "Style"),
    candidates=1,
    scale=(1, 5),
    reader=read_points,
)

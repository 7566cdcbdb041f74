"""The score of one clip made for a caption, on the axes of UnifiedReward 2.0."""

from urt_jax.tasks.points import read_points
from urt_jax.tasks.task import Task

TASK = Task(
    "video_score",
    noun="Video",
    medium="video",
    answers=False,
    dimensions=("Alignment", "Physics", "Style"),
    candidates=1,
    scale=(1, 5),
    reader=read_points,
)

"""Two clips made for a caption."""

from urt_jax.tasks.task import Task

TASK = Task(
    "video_gen",
    noun="Video",
    medium="video",
    answers=False,
    dimensions=("Semantic consistency", "Temporal coherence", "Authenticity"),
    alone="video_score",
)

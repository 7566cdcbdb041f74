"""Two edits of one picture by one instruction."""

from urt_jax.tasks.task import Task

TASK = Task(
    "image_edit",
    noun="Image",
    medium="image",
    answers=False,
    dimensions=("Instruction following", "Preservation", "Visual quality"),
    source=True,
)

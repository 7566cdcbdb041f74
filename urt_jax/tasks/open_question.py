"""A question about pictures or clips with a free answer, which the record's solution or a user's reward judges."""

from urt_jax.tasks.task import Task, read_open

TASK = Task("open", noun="Answer", medium="image", answers=True, dimensions=(), candidates=0, reader=read_open)

"""Which row decodes which response: groups of rows that share a question, refilled as responses end.

Rows stand in groups of ``group``; the rows of a group read one prompt::

    3 questions, 4 responses each, 4 rows in groups of 2

    group 0   rows 0 1    question 0: responses 0 1, then 2 and 3 as rows come free, then question 2
    group 1   rows 2 3    question 1: ...
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Bool, Int

from urt_jax.types import Array


@dataclass(frozen=True)
class Schedule:
    """How many questions and responses there are, and how many rows, in groups of a question, decode them."""

    questions: int
    responses: int
    rows: int
    group: int

    @staticmethod
    def of(*, questions: int, responses: int, rows: int) -> "Schedule":
        """Return the schedule for at most ``rows`` rows: whole questions side by side, or fewer rows of one question.

        Raises:
            ValueError: less than one row.
        """
        if rows < 1:
            raise ValueError(f"rows is {rows}; at least one response must be decoded at a time")
        group = min(responses, rows)
        return Schedule(questions, responses, min(rows // group, questions) * group, group)

    @property
    def groups(self) -> int:
        """Questions that are decoded at the same time."""
        return self.rows // self.group

    @property
    def all_at_once(self) -> bool:
        """Whether every response has a row of its own from the start."""
        return self.rows == self.questions * self.responses


class Rows(NamedTuple):
    """What each row and group is at."""

    question_G: Int[Array, " G"]  # ``questions`` where a group has none left
    issued_G: Int[Array, " G"]  # responses of its question that were given to rows so far
    waiting: Int[Array, ""]  # the next question that no group has had
    response_B: Int[Array, " B"]
    live_B: Bool[Array, " B"]
    used_B: Int[Array, " B"]  # tokens the row's response has so far

    def question_B(self, plan: Schedule) -> Int[Array, " B"]:
        """Return the question of each row, the last one for groups that have none left."""
        return jnp.repeat(jnp.minimum(self.question_G, plan.questions - 1), plan.group)

    def place_B(self, plan: Schedule) -> Int[Array, " B"]:
        """Return the number of each row's response among all, question-major; past the last for idle rows."""
        place_B = self.question_B(plan) * plan.responses + self.response_B
        return jnp.where(self.live_B, place_B, plan.questions * plan.responses)

    def after_token(self, ended_B: Bool[Array, " B"]) -> "Rows":
        """Return the rows with one token more; those that ended are free."""
        return self._replace(live_B=self.live_B & ~ended_B, used_B=self.used_B + self.live_B)


def first_rows(plan: Schedule) -> Rows:
    """Return the rows at the start: the first questions, the first responses of each."""
    return Rows(
        question_G=jnp.arange(plan.groups),
        issued_G=jnp.full(plan.groups, plan.group),
        waiting=jnp.int32(plan.groups),
        response_B=jnp.tile(jnp.arange(plan.group), plan.groups),
        live_B=jnp.ones(plan.rows, bool),
        used_B=jnp.zeros(plan.rows, jnp.int32),
    )


def refill(rows: Rows, plan: Schedule) -> tuple[Rows, Bool[Array, " B"]]:
    """Return the rows with work for those that are free, and which of them are fresh.

    A free row takes the next response of its group's question; a group whose question is through, with no row at
    work, takes the next waiting question.
    """
    live_GR = rows.live_B.reshape(plan.groups, plan.group)
    left_G = jnp.where(rows.question_G < plan.questions, plan.responses - rows.issued_G, 0)
    through_G = ~live_GR.any(axis=1) & (left_G == 0) & (rows.question_G < plan.questions)
    turn_G = jnp.cumsum(through_G) - 1
    question_G = jnp.where(through_G, jnp.minimum(rows.waiting + turn_G, plan.questions), rows.question_G)
    issued_G = jnp.where(through_G, 0, rows.issued_G)
    left_G = jnp.where(question_G < plan.questions, plan.responses - issued_G, 0)

    free_GR = ~live_GR
    rank_GR = jnp.cumsum(free_GR, axis=1) - 1
    fresh_GR = free_GR & (rank_GR < left_G[:, None])
    response_GR = jnp.where(fresh_GR, issued_G[:, None] + rank_GR, rows.response_B.reshape(plan.groups, plan.group))
    fresh_B = fresh_GR.reshape(-1)
    return Rows(
        question_G=question_G.astype(rows.question_G.dtype),
        issued_G=(issued_G + fresh_GR.sum(axis=1)).astype(rows.issued_G.dtype),
        waiting=jnp.minimum(rows.waiting + through_G.sum(), plan.questions).astype(rows.waiting.dtype),
        response_B=response_GR.reshape(-1).astype(rows.response_B.dtype),
        live_B=rows.live_B | fresh_B,
        used_B=jnp.where(fresh_B, 0, rows.used_B),
    ), fresh_B

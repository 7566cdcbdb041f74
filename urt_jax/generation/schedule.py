"""The assignment of responses to rows: rows form groups that share a question, and are refilled as responses end.

A group has ``group`` rows, which read one prompt::

    3 questions, 4 responses each, 4 rows in groups of 2

    group 0   rows 0 1    question 0: responses 0 1, then 2 and 3 as rows become free, then question 2
    group 1   rows 2 3    question 1: ...

On several devices the questions are split into ``parts``. A part's rows decode only its own questions, so that no data
moves between devices. Each part numbers its questions from 0.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int

from urt_jax.types import Array


@dataclass(frozen=True)
class Schedule:
    """The numbers of questions and of responses to each, and of the rows, in groups of one question, that decode them.

    ``questions`` and ``rows`` count those of one part.
    """

    questions: int
    responses: int
    rows: int
    group: int
    parts: int = 1

    @staticmethod
    def of(*, questions: int, responses: int, rows: int, parts: int = 1) -> "Schedule":
        """Return the schedule for at most ``rows`` rows: whole questions in parallel, or fewer rows of one question.

        ``questions`` and ``rows`` count those of all parts; every part gets at least one row.

        Raises:
            ValueError: less than one row, or questions that do not divide evenly by the parts.
        """
        if rows < 1:
            raise ValueError(f"rows is {rows}; at least one response must be decoded at a time")
        if questions % parts:
            raise ValueError(f"{questions} questions do not divide into {parts} parts; give a multiple of {parts}")
        questions, rows = questions // parts, max(rows // parts, 1)
        group = min(responses, rows)
        return Schedule(questions, responses, min(rows // group, questions) * group, group, parts)

    @property
    def groups(self) -> int:
        """Questions that a part decodes at the same time."""
        return self.rows // self.group

    @property
    def all_rows(self) -> int:
        """Rows of all parts."""
        return self.parts * self.rows

    @property
    def all_responses(self) -> int:
        """Responses of all parts."""
        return self.parts * self.questions * self.responses

    @property
    def all_at_once(self) -> bool:
        """Whether every response has its own row from the start."""
        return self.all_rows == self.all_responses


class Rows(NamedTuple):
    """The current question of each group and response of each row; P counts the parts, B the rows and G the groups."""

    question_PG: Int[Array, "P G"]  # ``questions`` if the group has none left
    issued_PG: Int[Array, "P G"]  # responses of its question assigned to rows so far
    waiting_P: Int[Array, " P"]  # the first question not yet assigned to a group
    response_PB: Int[Array, "P B"]
    live_PB: Bool[Array, "P B"]
    used_PB: Int[Array, "P B"]  # tokens the row's response has so far

    @property
    def live(self) -> Bool[Array, " rows"]:
        """Which rows of all parts are active."""
        return self.live_PB.reshape(-1)

    @property
    def used(self) -> Int[Array, " rows"]:
        """Tokens of each row of all parts."""
        return self.used_PB.reshape(-1)

    def questions(self, plan: Schedule) -> Int[Array, " rows"]:
        """Return the index of each row's question among those of all parts, its part's last if it has none left."""
        local_PG = jnp.minimum(self.question_PG, plan.questions - 1)
        first_P1 = plan.questions * jnp.arange(plan.parts)[:, None]
        return jnp.repeat(local_PG + first_P1, plan.group, axis=1).reshape(-1)

    def places(self, plan: Schedule) -> Int[Array, " rows"]:
        """Return the index of each row's response among all, question-major; past the last for idle rows."""
        places = self.questions(plan) * plan.responses + self.response_PB.reshape(-1)
        return jnp.where(self.live, places, plan.all_responses)

    def after_token(self, ended: Bool[Array, " rows"]) -> "Rows":
        """Return the rows after one more token; those in ``ended`` become free."""
        live_PB = self.live_PB & ~ended.reshape(self.live_PB.shape)
        return self._replace(live_PB=live_PB, used_PB=self.used_PB + self.live_PB)


def first_rows(plan: Schedule) -> Rows:
    """Return the rows at the start: each part's first questions, and their first responses."""

    def of_parts(x: Array) -> Array:
        return jnp.broadcast_to(x, (plan.parts, *x.shape))

    return Rows(
        question_PG=of_parts(jnp.arange(plan.groups)),
        issued_PG=of_parts(jnp.full(plan.groups, plan.group, jnp.int32)),
        waiting_P=jnp.full(plan.parts, plan.groups, jnp.int32),
        response_PB=of_parts(jnp.tile(jnp.arange(plan.group), plan.groups)),
        live_PB=of_parts(jnp.ones(plan.rows, bool)),
        used_PB=of_parts(jnp.zeros(plan.rows, jnp.int32)),
    )


def refill(rows: Rows, plan: Schedule) -> tuple[Rows, Bool[Array, " rows"]]:
    """Return the rows with responses assigned to the free ones, and the mask of rows that got one.

    A free row takes the next response of its group's question. A group whose question is finished, with no active row,
    takes the next waiting question of its part.
    """
    rows, fresh_PB = jax.vmap(lambda part: _refill_part(part, plan))(rows)
    return rows, fresh_PB.reshape(-1)


def _refill_part(rows: Rows, plan: Schedule) -> tuple[Rows, Bool[Array, " B"]]:
    """Refill one part; its arrays lack the axis P."""
    question_G, issued_G, waiting, response_B, live_B, used_B = rows
    live_GR = live_B.reshape(plan.groups, plan.group)
    left_G = jnp.where(question_G < plan.questions, plan.responses - issued_G, 0)
    through_G = ~live_GR.any(axis=1) & (left_G == 0) & (question_G < plan.questions)
    turn_G = jnp.cumsum(through_G) - 1
    turned_G = jnp.where(through_G, jnp.minimum(waiting + turn_G, plan.questions), question_G)
    issued_G = jnp.where(through_G, 0, issued_G)
    left_G = jnp.where(turned_G < plan.questions, plan.responses - issued_G, 0)

    free_GR = ~live_GR
    rank_GR = jnp.cumsum(free_GR, axis=1) - 1
    fresh_GR = free_GR & (rank_GR < left_G[:, None])
    response_GR = jnp.where(fresh_GR, issued_G[:, None] + rank_GR, response_B.reshape(plan.groups, plan.group))
    fresh_B = fresh_GR.reshape(-1)
    return Rows(
        question_PG=turned_G.astype(question_G.dtype),
        issued_PG=(issued_G + fresh_GR.sum(axis=1)).astype(issued_G.dtype),
        waiting_P=jnp.minimum(waiting + through_G.sum(), plan.questions).astype(waiting.dtype),
        response_PB=response_GR.reshape(-1).astype(response_B.dtype),
        live_PB=live_B | fresh_B,
        used_PB=jnp.where(fresh_B, 0, used_B),
    ), fresh_B

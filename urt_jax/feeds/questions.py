"""The questions of each GRPO step, drawn in passes over the records or by a curriculum.

1. records are drawn from an endless source by their place, or from a bounded pool by the accuracy measured so far;
2. each is presented in an order drawn from (seed, place), or, as twins, in both orders in one step;
3. prompt shapes are planned once: over all steps of a run, or, for a pool, over any step that could be drawn from it.

All processes of a run draw the same questions; each encodes only those of its own share.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from urt_jax.config import GrpoConfig
from urt_jax.data.collate import Buckets, Length, Need, largest, length_of, need_of, plan_buckets
from urt_jax.data.curriculum import (
    draw_items,
    in_pool,
    note_answers,
    pool_as_json,
    pool_from_json,
    start_pool,
)
from urt_jax.data.examples import Example
from urt_jax.data.loader import in_random_order, with_twins
from urt_jax.data.skipped import Skipped
from urt_jax.data.sources import Pool
from urt_jax.data.workers import Pending
from urt_jax.errors import BadInputError
from urt_jax.feeds.batches import PROBED_RECORDS, with_headroom
from urt_jax.feeds.encoder import Encoder
from urt_jax.feeds.records import question_pool, question_source
from urt_jax.progress import each
from urt_jax.runs import processes
from urt_jax.sharding.shares import WHOLE, Share
from urt_jax.types import EncodedChat


class Question(NamedTuple):
    """One question of a step."""

    example: Example
    stream: str  # the name of its random stream: the record's id, for a twin followed by "#swapped"
    item: int  # the place of its record in the source or in the pool


class QuestionFeed:
    """Draws the questions of any step; for a pool it also keeps the state of the items, which checkpoints save."""

    def __init__(self, config: GrpoConfig, encoder: Encoder, share: Share = WHOLE) -> None:
        self._config, self._encoder, self._share = config, encoder, share
        self._begun: dict[tuple[int, int, str], Pending[EncodedChat]] = {}  # by step, item and stream
        self.expected: list[Need] = []  # the shapes of the steps that ``plan_buckets`` probed
        self.twins = config.rewards.swap_consistency > 0
        self._records = config.questions_per_step // (2 if self.twins else 1)  # records drawn per step
        self.pooled = config.curriculum.active or config.dynamic_sampling > 0
        self._rules = config.curriculum
        self.skipped: Skipped | None  # the records of the file that were left out
        if self.pooled:
            self._pool, self.skipped = self._open_pool()
            self._start = self._state = start_pool(self._pool)
        else:
            self._source = question_source(config.data, seed=config.seed)
            self.skipped = self._source.skipped

    def draw(self, step: int, taken: Collection[int] = ()) -> list[Question]:
        """Return the Q questions of a step, twins next to each other; from a pool, items in ``taken`` are excluded."""
        return self._shown(step, self._items(step, taken))

    def chats(self, questions: Sequence[Question], step: int) -> list[EncodedChat]:
        """Return the encoded prompts of these questions of a step."""
        begun = [self._begun.get((step, q.item, q.stream)) or self._begin(q.example) for q in questions]
        return [pending() for pending in begun]

    def begin(self, step: int) -> None:
        """Start the workers on the questions that a step would ask by the state so far.

        Questions that a curriculum asks instead, by results until then, are encoded when they are drawn.
        """
        self._begun = {}
        if self._encoder.workers and step < self._config.steps:
            shown = self._share.cut(self._shown(step, self._items(step, ())))
            self._begun = {(step, q.item, q.stream): self._begin(q.example) for q in shown}

    def close(self) -> None:
        """End the workers."""
        self._encoder.close()

    def example(self, item: int, step: int, *, stream: str) -> Example:
        """Return the record of a question of this step, in the presentation order that ``stream`` names."""
        shown = self._record(item, step)
        return shown.swapped() if stream == _twin_stream(shown) else shown

    def can_refill(self, taken: Collection[int]) -> bool:
        """Return whether the pool has enough items left for one more whole rollout in this step."""
        return self.pooled and len(set(np.flatnonzero(self._active())) - set(taken)) >= self._records

    def note(self, step: int, accuracy: Mapping[int, float]) -> None:
        """Record the share of right answers to each item of a step (0 = the first)."""
        if self.pooled:
            self._state = note_answers(self._state, self._rules, accuracy, step=step + 1)

    def figures(self) -> dict[str, float]:
        """Return the numbers of items in the pool and of items that have left it."""
        if not self.pooled:
            return {}
        active = float(self._active().sum())
        return {"curriculum/active": active, "curriculum/left": len(self._pool) - active}

    def saved(self) -> dict[str, Any]:
        """Return the state of the pool, as JSON."""
        return pool_as_json(self._state, self._start) if self.pooled else {}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Resume from the state that ``saved`` returned."""
        if self.pooled:
            self._state = pool_from_json(saved, self._start)

    def plan_buckets(self) -> Buckets:
        """Plan prompt shapes over all steps of the run, or over a long run's first steps, with larger shapes too.

        For a pool they are planned up to the largest possible step. The shapes are those of one share of a step.
        """
        config, vision = self._config, self._encoder.processor.config.vision
        frame_step = math.lcm(4, self._share.step)
        grid = {"slot_step": vision.slot_step, "token_step": config.token_step, "frame_step": frame_step}
        if self.pooled:
            needs, plan = self._pool_needs(), plan_buckets
        else:
            probed = min(config.steps, -(-PROBED_RECORDS // config.questions_per_step))
            steps = (self._share.cut(self._shown(step, self._items(step, ()))) for step in range(probed))
            own = self._needs(self._lengths(q.example for shown in steps for q in shown))
            needs = [largest(of_step) for of_step in zip(*processes.gather(own))]
            plan = plan_buckets if probed == config.steps else with_headroom
        buckets = plan(needs, **grid)
        self.expected = sorted({buckets.fit(need) for need in needs})
        return buckets

    def _pool_needs(self) -> list[Need]:
        """Return the needs of the steps of one pass over the pool in random order, and of the largest possible step."""
        count = self._config.questions_per_step // self._share.of
        mine = Share(processes.number(), processes.count()).cut(self._pool)
        own = self._lengths(order for example in mine for order in self._orders(example))
        lengths = [length for of_one in processes.gather(own) for length in of_one]
        mixed = [lengths[i] for i in np.random.default_rng([self._config.seed, 7]).permutation(len(lengths))]
        needs = self._needs(mixed)
        frames = sorted((length.frames for length in lengths), reverse=True)[:count]
        return [*needs, Need(count, max(n.tokens for n in needs), sum(frames), max(n.patches for n in needs))]

    def _lengths(self, examples: Iterable[Example]) -> list[Length]:
        chats = self._encoder.prompts(examples, template=self._config.data.template)
        return [length_of(chat) for chat in each(chats, title="encoding", unit="question")]

    def _needs(self, lengths: Sequence[Length]) -> list[Need]:
        count = self._config.questions_per_step // self._share.of
        return [need_of(lengths[start : start + count], rows=count) for start in range(0, len(lengths), count)]

    def _orders(self, example: Example) -> list[Example]:
        return with_twins([example]) if self._config.data.swap and example.swappable else [example]

    def _active(self) -> np.ndarray:
        return in_pool(self._state, self._rules) | self._state.due

    def _open_pool(self) -> Pool:
        data = self._config.data
        asked_by = "a curriculum" if self._config.curriculum.active else "dynamic_sampling"
        if data.path == "scenes" and data.count is None:
            raise BadInputError(
                f"config.data.count: 'scenes' is endless, but {asked_by} draws from a bounded pool; give a count"
            )
        pool = question_pool(data, seed=self._config.seed)
        if len(pool.examples) < self._records:
            raise BadInputError(
                f"{data.path} has {len(pool.examples)} labelled records, a step draws {self._records} different ones "
                "from the pool; lower questions_per_step or give more records"
            )
        return pool

    def _items(self, step: int, taken: Collection[int]) -> Sequence[int]:
        first, count, seed = step * self._records, self._records, self._config.seed
        if not self.pooled:
            return range(first, first + count)
        return draw_items(self._state, self._rules, seed=seed, step=step, count=count, taken=taken)

    def _shown(self, step: int, items: Sequence[int]) -> list[Question]:
        examples = [self._record(item, step) for item in items]
        repeats = 2 if self.twins else 1
        shown = with_twins(examples) if self.twins else examples
        return [
            Question(example, _twin_stream(example) if place % repeats else example.id, items[place // repeats])
            for place, example in enumerate(shown)
        ]

    def _record(self, item: int, step: int) -> Example:
        """Return a record in its presentation order in this step (its twin has the other order)."""
        if not self.pooled:
            return self._source.get(item)
        example, place = self._pool[item], step * len(self._pool) + item
        swap, seed = self._config.data.swap, self._config.seed
        return in_random_order(example, seed=seed, place=place) if swap else example

    def _begin(self, example: Example) -> Pending[EncodedChat]:
        return self._encoder.begin_prompt(example, template=self._config.data.template)


def _twin_stream(example: Example) -> str:
    return f"{example.id}#swapped"

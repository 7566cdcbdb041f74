"""The rollout of a GRPO step: ask, sample, reward, and ask on where groups came out equal.

1. Q questions are drawn and encoded, R responses sampled to each, every reward part scored;
2. with dynamic sampling, further rollouts of Q questions replace groups of equal reward, as many as the settings allow;
3. a pool of questions takes note of what was answered right.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from urt_jax.config import GrpoConfig
from urt_jax.data.collate import collate_prompts, length_of, need_of
from urt_jax.data.examples import BadInputError
from urt_jax.families.processor import Processor
from urt_jax.generation.sampler import Sampler, Samples, Sampling
from urt_jax.rewards.user import RewardError, load_reward
from urt_jax.stages.questions import Question, QuestionFeed
from urt_jax.stages.records import Encoder
from urt_jax.training.rollout import Scoring, groups_to_keep, join_groups, make_rollout, spread_groups
from urt_jax.training.rollout_figures import rollout_figures
from urt_jax.training.state import Params
from urt_jax.types import Rollout

Drawn = tuple[Samples, Rollout]


class StepRollout(NamedTuple):
    """What a step learns from: Q questions with their groups, question-major, and figures of how they came about."""

    questions: tuple[Question, ...]
    samples: Samples
    rollout: Rollout
    figures: dict[str, float]


def open_scoring(config: GrpoConfig) -> Scoring:
    """Return the reward parts a run asks for, a user's own imported.

    Raises:
        BadInputError: there is no such module or function.
    """
    rewards = config.rewards
    longest = rewards.overlong_longest or config.lengths.max_new_tokens
    try:
        user = tuple(load_reward(reward.function) for reward in rewards.user)
    except RewardError as error:
        raise BadInputError(f"config.rewards.user: {error}") from error
    overlong = (longest, rewards.overlong_cache) if rewards.overlong else None
    return Scoring(rewards.swap_consistency > 0, overlong, rewards.brevity > 0, user)


def open_feed(config: GrpoConfig, processor: Processor, *, workers: int = 0) -> QuestionFeed:
    """Return the questions of a run, from its first step on, encoded by so many processes.

    Raises:
        BadInputError: the data cannot be read, or holds too few records for a pool.
    """
    lengths = config.lengths
    encoder = Encoder(
        processor,
        max_prompt_tokens=lengths.max_prompt_tokens,
        max_new_tokens=lengths.max_new_tokens,
        workers=workers,
    )
    return QuestionFeed(config, encoder)


class RolloutMaker:
    """Makes the rollout of any step; what it carries from step to step fits a checkpoint's JSON."""

    def __init__(self, config: GrpoConfig, sampler: Sampler) -> None:
        self._config, self._sampler = config, sampler
        self.weights = config.rewards.parts()
        self._scoring = open_scoring(config)
        self.feed = open_feed(config, sampler.processor, workers=config.workers)
        self.buckets = self.feed.plan_buckets()
        self._tokens = 0  # prompts and responses of all steps
        slots = config.lengths.max_new_tokens
        sampling = Sampling(slots, **asdict(config.sampling))
        self._asked: dict[str, Any] = {"responses": config.responses_per_question, "sampling": sampling, "slots": slots}

    def saved(self) -> dict[str, Any]:
        """Return the tokens so far and the state of the pool, as JSON."""
        return {"num_tokens": self._tokens, "pool": self.feed.saved()}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what ``saved`` returned."""
        self._tokens = saved["num_tokens"]
        self.feed.restore(saved["pool"])

    def make(self, params: Params, step: int) -> StepRollout:
        """Ask, sample and reward; the figures of rewards and lengths are those of the first rollout, before refilling.

        Raises:
            RewardError: a user's reward failed on a response.
        """
        clock = _Clock()
        asked: list[list[Question]] = []
        drawn: list[Drawn] = []
        spread: list[np.ndarray] = []
        taken: list[int] = []
        while not drawn or self._refills(spread, taken):
            asked.append(self.feed.draw(step, taken))
            taken += [question.item for question in asked[-1]]
            if not drawn:
                self.feed.begin(step + 1)
            clock.lap("prompts")
            samples = self._sample(params, asked[-1], step)
            clock.lap("rollout")
            streams = [question.stream for question in asked[-1]]
            shown = [question.example for question in asked[-1]]
            drawn.append((samples, make_rollout(samples, streams, shown, self._scoring, policy_step=step)))
            spread.append(spread_groups(drawn[-1][1], self.weights))
            clock.lap("rewards")
        self.feed.note(step, _accuracy(asked, [rollout for _, rollout in drawn]))
        figures = {
            **rollout_figures(drawn[0][1], self.weights),
            **self._count(asked, [samples for samples, _ in drawn]),
            **self.feed.figures(),
        }
        if self._config.dynamic_sampling:
            figures["extra_rollouts"] = len(drawn) - 1
        questions, samples, rollout = self._chosen(asked, drawn, spread)
        return StepRollout(tuple(questions), samples, rollout, figures | clock.seconds)

    def _refills(self, spread: Sequence[np.ndarray], taken: Sequence[int]) -> bool:
        """Return whether there are still groups to replace, and a rollout and questions to do it with."""
        lacking = len(spread[0]) - sum(int(groups.sum()) for groups in spread)
        return lacking > 0 and len(spread) <= self._config.dynamic_sampling and self.feed.can_refill(taken)

    def compile_ahead(self, params: Params) -> None:
        """Compile the sampler for the shapes that steps are expected to have."""
        self._sampler.compile_ahead(params, self.feed.expected, **self._asked)

    def _sample(self, params: Params, questions: Sequence[Question], step: int) -> Samples:
        lengths = [length_of(question.chat) for question in questions]
        return self._sampler.sample(
            params,
            [question.chat for question in questions],
            [question.stream for question in questions],
            bucket=self.buckets.fit(need_of(lengths, rows=len(lengths))),
            seed=self._config.seed,
            step=step,
            **self._asked,
        )

    def _chosen(
        self, asked: Sequence[Sequence[Question]], drawn: Sequence[Drawn], spread: Sequence[np.ndarray]
    ) -> tuple[Sequence[Question], Samples, Rollout]:
        """Return the groups to learn from; where they come from several rollouts their prompts are collated anew."""
        kept = groups_to_keep(spread)
        if all(n == 0 for n, _ in kept):
            return asked[0], *drawn[0]
        questions = [asked[n][q] for n, q in kept]
        chats = [question.chat for question in questions]
        bucket = self.buckets.fit(need_of([length_of(chat) for chat in chats], rows=len(chats)))
        return questions, *join_groups(drawn, kept, collate_prompts(chats, bucket=bucket, **self._sampler.padding))

    def _count(self, asked: Sequence[Sequence[Question]], samples: Sequence[Samples]) -> dict[str, float]:
        """Return the tokens of a step and of the run so far; a prompt is run once and counted once."""
        prompts = sum(len(question.chat.tokens_T) for questions in asked for question in questions)
        responses = sum(int(part.mask_BU.sum()) for part in samples)
        self._tokens += prompts + responses
        return {"num_tokens": self._tokens, "tokens/prompts": prompts, "tokens/responses": responses}


class _Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._then = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Put the seconds since the last lap down to a phase."""
        now = time.perf_counter()
        name = f"timing_s/{phase}"
        self.seconds[name], self._then = self.seconds.get(name, 0.0) + now - self._then, now


def _accuracy(asked: Sequence[Sequence[Question]], rollouts: Sequence[Rollout]) -> dict[int, float]:
    """Return the share of right answers to each item, over all its groups of a step."""
    shares: dict[int, list[float]] = {}
    for questions, rollout in zip(asked, rollouts):
        for question, group in zip(questions, rollout.rewards["accuracy"]):
            shares.setdefault(question.item, []).append(float(group.mean(dtype=np.float64)))
    return {item: sum(groups) / len(groups) for item, groups in shares.items()}

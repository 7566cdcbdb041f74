"""The rollout of a GRPO step: draw questions, sample and reward responses, and replace groups of equal rewards.

1. Q questions are drawn and encoded, R responses are sampled to each, and every reward part is scored;
2. with dynamic sampling, further rollouts of Q questions, up to the configured number, replace groups of equal rewards;
3. a pool of questions records the share of right answers.

On several processes, each encodes, samples and scores its share of the questions. A rollout has two gathers:
``RolloutMaker._ask`` gathers the prompt lengths, so that all processes choose the same shape, and
``RolloutMaker._of_all`` gathers the responses and rewards, so that all keep the same groups.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from urt_jax.config import GrpoConfig
from urt_jax.data.collate import Length, Need, collate_prompts, largest, length_of, need_of
from urt_jax.errors import BadInputError
from urt_jax.families.processor import Processor
from urt_jax.feeds.encoder import Encoder
from urt_jax.feeds.questions import Question, QuestionFeed
from urt_jax.generation.sampler import Sampler
from urt_jax.generation.sampling import Sampling
from urt_jax.generation.vocabulary import decode_texts
from urt_jax.rewards.user import RewardError, load_reward
from urt_jax.runs import processes
from urt_jax.sharding.placement import all_rows
from urt_jax.sharding.shares import WHOLE, Share, share_of, shown_by_all
from urt_jax.training.rollout import Scoring, groups_to_keep, join_groups, scored, spread_groups
from urt_jax.training.rollout_figures import rollout_figures
from urt_jax.training.state import Params
from urt_jax.types import Batch, EncodedChat, Rollout


class RolloutQuestions(NamedTuple):
    """The questions of one rollout, their prompts' lengths, and the encoded prompts of this process's share."""

    questions: list[Question]
    lengths: list[Length]
    chats: list[EncodedChat]


class StepRollout(NamedTuple):
    """The data of a training step: Q questions with their groups of responses, and the rollout's figures."""

    questions: list[Question]
    lengths: list[Length]  # of their prompts
    rollout: Rollout
    figures: dict[str, float]


def open_scoring(config: GrpoConfig) -> Scoring:
    """Return the reward parts of a run; a user's own are imported.

    Raises:
        BadInputError: the module or function of a user's reward does not exist.
    """
    rewards = config.rewards
    try:
        user = tuple(load_reward(reward.function) for reward in rewards.user)
    except RewardError as error:
        raise BadInputError(f"config.rewards.user: {error}") from error
    overlong = (config.lengths.max_new_tokens, rewards.overlong_cache) if rewards.overlong else None
    return Scoring(rewards.swap_consistency > 0, overlong, rewards.brevity > 0, user)


def open_feed(config: GrpoConfig, processor: Processor, *, workers: int = 0, share: Share = WHOLE) -> QuestionFeed:
    """Return the question feed of a run; ``workers`` processes encode its prompts.

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
    return QuestionFeed(config, encoder, share)


class RolloutMaker:
    """Makes the rollout of any step; a checkpoint saves its state as JSON."""

    def __init__(self, config: GrpoConfig, sampler: Sampler, mesh: Mesh | None = None) -> None:
        self._config, self._sampler, self._mesh = config, sampler, mesh
        self._share = share_of(mesh)
        _check_shares(config, self._share)
        self.weights = config.rewards.parts()
        self._scoring = open_scoring(config)
        self.feed = open_feed(config, sampler.processor, workers=config.workers, share=self._share)
        self.buckets = self.feed.plan_buckets()
        self._tokens = 0  # prompt and response tokens of all steps
        slots = config.lengths.max_new_tokens
        self._settings: dict[str, Any] = {
            "responses": config.responses_per_question,
            "sampling": Sampling(config.sampling.temperature, config.sampling.stop),
            "slots": slots,
            "decoding": config.sampling,
        }

    def saved(self) -> dict[str, Any]:
        """Return the number of tokens so far and the state of the pool, as JSON."""
        return {"num_tokens": self._tokens, "pool": self.feed.saved()}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Resume from the state that ``saved`` returned."""
        self._tokens = saved["num_tokens"]
        self.feed.restore(saved["pool"])

    def make(self, params: Params, step: int) -> StepRollout:
        """Make the rollout of a step; figures of rewards and lengths are of its first rollout, before replacements.

        Raises:
            RewardError: a user's reward failed on a response.
        """
        clock = _Clock()
        asked: list[RolloutQuestions] = []
        rollouts: list[Rollout] = []
        spread: list[np.ndarray] = []
        taken: list[int] = []
        while not rollouts or self._refills(spread, taken):
            asked.append(self._ask(step, taken))
            taken += [question.item for question in asked[-1].questions]
            if not rollouts:
                self.feed.begin(step + 1)
            clock.lap("prompts")
            own = self._sample(params, asked[-1], step)
            clock.lap("rollout")
            shown = [question.example for question in self._share.cut(asked[-1].questions)]
            rollouts.append(self._of_all(scored(own, shown, self._scoring), asked[-1]))
            spread.append(spread_groups(rollouts[-1], self.weights))
            clock.lap("rewards")
        self.feed.note(step, _accuracy(asked, rollouts))
        figures = {
            **rollout_figures(rollouts[0], self.weights),
            **self._count(asked, rollouts),
            **self.feed.figures(),
        }
        if self._config.dynamic_sampling:
            figures["extra_rollouts"] = len(rollouts) - 1
        return self._chosen(asked, rollouts, spread, step)._replace(figures=figures | clock.seconds)

    def _refills(self, spread: Sequence[np.ndarray], taken: Sequence[int]) -> bool:
        """Return whether groups without spread remain, and the settings and the pool allow another rollout."""
        lacking = len(spread[0]) - sum(int(groups.sum()) for groups in spread)
        return lacking > 0 and len(spread) <= self._config.dynamic_sampling and self.feed.can_refill(taken)

    def compile_ahead(self, params: Params) -> None:
        """Compile the sampler for the expected shapes of the steps."""
        self._sampler.compile_ahead(params, self.feed.expected, **self._settings)

    def prompts_of(
        self, questions: Sequence[Question], lengths: Sequence[Length], step: int
    ) -> tuple[Batch, np.ndarray]:
        """Return the prompts of this process's share of these questions as a batch, and the position after each.

        ``lengths`` are those of all prompts.
        """
        chats = self.feed.chats(self._share.cut(questions), step)
        prompts = collate_prompts(chats, bucket=self._bucket(lengths), **self._sampler.padding)
        positions = np.array([chat.next_position for chat in chats], np.int32)
        return shown_by_all(prompts, self._share, merge=self._sampler.padding["merge"]), positions

    def _bucket(self, lengths: Sequence[Length]) -> Need:
        """Return the shape of one share of prompts of these lengths, the same on all processes."""
        shares = self._share.cuts(lengths)
        need = largest([need_of(share, rows=len(share)) for share in shares])
        return self.buckets.fit(need)._replace(rows=len(shares[0]))  # an update may have half the questions

    def _ask(self, step: int, taken: Sequence[int]) -> RolloutQuestions:
        """Draw questions, encode this process's share, and gather the lengths from all processes."""
        questions = self.feed.draw(step, taken)
        chats = self.feed.chats(self._share.cut(questions), step)
        told = dict(processes.gather((self._share.number, [length_of(chat) for chat in chats])))
        return RolloutQuestions(questions, [length for number in sorted(told) for length in told[number]], chats)

    def _sample(self, params: Params, asked: RolloutQuestions, step: int) -> Rollout:
        """Sample the responses to this process's share of the questions."""
        return self._sampler.sample(
            params,
            asked.chats,
            [question.stream for question in self._share.cut(asked.questions)],
            bucket=self._bucket(asked.lengths),
            seed=self._config.seed,
            step=step,
            **self._settings,
        )

    def _of_all(self, rollout: Rollout, asked: RolloutQuestions) -> Rollout:
        """Gather the responses and rewards of all processes; the prompts stay those of this process."""
        if not self._share.spans:
            return rollout
        written = (rollout.tokens_BU, rollout.mask_BU, rollout.logp_BU, rollout.ended_B)
        (tokens_BU, mask_BU, logp_BU, ended_B), rewards = all_rows(self._mesh, (written, rollout.rewards))
        openings = [asked.chats[0].opening] * len(tokens_BU)  # all prompts end with the same one
        return rollout._replace(
            tokens_BU=tokens_BU,
            mask_BU=mask_BU,
            logp_BU=logp_BU,
            ended_B=ended_B,
            texts=decode_texts(self._sampler.processor, tokens_BU, mask_BU, openings),
            prompt_ids=tuple(question.stream for question in asked.questions),
            rewards={name: rewards[name] for name in rollout.rewards},  # in the order of this process's parts
        )

    def _chosen(
        self, asked: Sequence[RolloutQuestions], rollouts: Sequence[Rollout], spread: Sequence[np.ndarray], step: int
    ) -> StepRollout:
        """Return the groups to train on; if they are from several rollouts, their prompts are collated again."""
        kept = groups_to_keep(spread)
        if all(n == 0 for n, _ in kept):
            return StepRollout(asked[0].questions, asked[0].lengths, rollouts[0], {})
        questions, lengths = [asked[n].questions[q] for n, q in kept], [asked[n].lengths[q] for n, q in kept]
        joined = join_groups(rollouts, kept, *self.prompts_of(questions, lengths, step))
        return StepRollout(questions, lengths, joined, {})

    def _count(self, asked: Sequence[RolloutQuestions], rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Return the tokens of a step and of the run so far; each prompt runs once and counts once."""
        prompts = sum(length.tokens for of_one in asked for length in of_one.lengths)
        responses = sum(int(rollout.mask_BU.sum()) for rollout in rollouts)
        self._tokens += prompts + responses
        return {"num_tokens": self._tokens, "tokens/prompts": prompts, "tokens/responses": responses}


def _check_shares(config: GrpoConfig, share: Share) -> None:
    """Refuse a number of questions that does not divide over the processes.

    Raises:
        BadInputError: the shares would have different numbers of questions, or separate twins.
    """
    try:
        own = share.size_of(config.questions_per_step, "config.questions_per_step")
    except ValueError as error:
        raise BadInputError(str(error)) from error
    if config.rewards.swap_consistency > 0 and own % 2:
        raise BadInputError(
            f"config.questions_per_step {config.questions_per_step} gives each of {share.of} shares {own} questions, "
            "but swap_consistency needs pairs of questions; give a multiple of twice the shares"
        )


class _Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._then = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Add the seconds since the last lap to a phase."""
        now = time.perf_counter()
        name = f"timing_s/{phase}"
        self.seconds[name], self._then = self.seconds.get(name, 0.0) + now - self._then, now


def _accuracy(asked: Sequence[RolloutQuestions], rollouts: Sequence[Rollout]) -> dict[int, float]:
    """Return each item's share of right answers, over all its groups of a step."""
    shares: dict[int, list[float]] = {}
    for of_one, rollout in zip(asked, rollouts):
        for question, group in zip(of_one.questions, rollout.rewards["accuracy"]):
            shares.setdefault(question.item, []).append(float(group.mean(dtype=np.float64)))
    return {item: sum(groups) / len(groups) for item, groups in shares.items()}

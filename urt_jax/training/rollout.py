"""From sampled texts to an update: rewards of responses, advantages of rewards, and the GRPO batch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from urt_jax.data.examples import Example
from urt_jax.losses.advantages import group_advantages
from urt_jax.rewards.sums import combine
from urt_jax.rewards.user import UserReward
from urt_jax.rewards.verifiable import (
    accuracy_reward,
    brevity_rewards,
    consistency_reward,
    format_reward,
    overlong_reward,
)
from urt_jax.rewards.votes import swap_consistency
from urt_jax.sharding.shares import WHOLE, Share
from urt_jax.training.steps import GrpoBatch
from urt_jax.types import Batch, PromptedRows, Rollout


@dataclass(frozen=True)
class Scoring:
    """The optional reward parts of a run; every run has format, accuracy and consistency."""

    twins: bool = False  # questions 2n and 2n + 1 are one pair in both orders: compare their verdicts
    overlong: tuple[int, int] | None = None  # (longest, cache) of the soft over-long penalty, in tokens
    brevity: bool = False  # reward shorter responses in groups whose answers are all right
    user: tuple[UserReward, ...] = ()


def score_texts(
    texts: Sequence[str], lengths: Sequence[int], questions: Sequence[Example], scoring: Scoring
) -> dict[str, np.ndarray]:
    """Return every reward part, ``float32 [Q, R]``, of question-major texts; ``lengths`` in tokens; NaN = missing.

    ``swap_consistency``, ``overlong`` and ``brevity`` are included if ``scoring`` has them, a user's rewards by name.

    Raises:
        RewardError: a user's reward failed or returned no number.
    """
    responses = len(texts) // len(questions)
    shown = [(text, questions[row // responses]) for row, text in enumerate(texts)]
    parts: dict[str, list[float]] = {
        "format": [format_reward(text, task=question.task) for text, question in shown],
        "accuracy": [_accuracy(text, question) for text, question in shown],
        "consistency": [consistency_reward(text, task=question.task) for text, question in shown],
    }
    if scoring.twins:
        groups = [texts[start : start + responses] for start in range(0, len(texts), responses)]
        parts["swap_consistency"] = [
            share
            for q, group in enumerate(groups)
            for share in swap_consistency(group, groups[q ^ 1], task=questions[q].task)
        ]
    if scoring.overlong is not None:
        longest, cache = scoring.overlong
        parts["overlong"] = [overlong_reward(int(length), longest=longest, cache=cache) for length in lengths]
    if scoring.brevity:
        right = [score == 1 for score in parts["accuracy"]]
        groups_of = [slice(start, start + responses) for start in range(0, len(texts), responses)]
        parts["brevity"] = [score for group in groups_of for score in brevity_rewards(lengths[group], right[group])]
    for reward in scoring.user:
        parts[reward.name] = [reward.score(text=t, solution=str(q.solution), example=q) for t, q in shown]
    return {name: np.array(part, np.float32).reshape(-1, responses) for name, part in parts.items()}


def _accuracy(text: str, question: Example) -> float:
    """Return the accuracy part; missing where the record has no exact answer."""
    return math.nan if question.solution is None else accuracy_reward(text, question.solution)


def scored(rollout: Rollout, questions: Sequence[Example], scoring: Scoring | None = None) -> Rollout:
    """Return the rollout with the rewards of its responses.

    Raises:
        RewardError: as ``score_texts``.
    """
    lengths = rollout.mask_BU.sum(axis=1).tolist()
    return rollout._replace(rewards=score_texts(rollout.texts, lengths, questions, scoring or Scoring()))


def spread_groups(rollout: Rollout, weights: Mapping[str, float]) -> np.ndarray:
    """Return the mask ``bool [Q]`` of groups whose rewards differ; in the others every advantage is 0."""
    total = combine(rollout.rewards, weights)
    highest, lowest = np.where(np.isnan(total), -np.inf, total), np.where(np.isnan(total), np.inf, total)
    return highest.max(axis=1) > lowest.min(axis=1)


def groups_to_keep(spread_of: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Return Q places (rollout, group): the first rollout's groups, those without spread replaced by later ones.

    ``spread_of`` holds each rollout's mask of groups with spread (dynamic sampling, DAPO, arXiv 2503.14476, eq. 11).
    """
    first, *later = spread_of
    kept = [(0, int(group)) for group in range(len(first))]
    found = [(n, int(group)) for n, spread in enumerate(later, 1) for group in np.flatnonzero(spread)]
    for place, better in zip(np.flatnonzero(~first), found):
        kept[place] = better
    return kept


def join_groups(
    rollouts: Sequence[Rollout],
    kept: Sequence[tuple[int, int]],
    prompts: Batch,
    next_position_Q: np.ndarray,
) -> Rollout:
    """Return the ``kept`` groups, as places (rollout, group), of several rollouts as one rollout.

    ``prompts`` and ``next_position_Q`` are those of the groups, in this order; on several processes, this process's
    share of them.
    """
    first = rollouts[0]
    responses = len(first.texts) // len(first.prompt_ids)

    def rows(parts: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([parts[n][q * responses : (q + 1) * responses] for n, q in kept])

    return first._replace(
        prompts=prompts,
        next_position_Q=next_position_Q,
        tokens_BU=rows([rollout.tokens_BU for rollout in rollouts]),
        mask_BU=rows([rollout.mask_BU for rollout in rollouts]),
        logp_BU=rows([rollout.logp_BU for rollout in rollouts]),
        ended_B=rows([rollout.ended_B for rollout in rollouts]),
        texts=tuple(text for n, q in kept for text in rollouts[n].texts[q * responses : (q + 1) * responses]),
        prompt_ids=tuple(rollouts[n].prompt_ids[q] for n, q in kept),
        rewards={name: np.stack([rollouts[n].rewards[name][q] for n, q in kept]) for name in first.rewards},
        features=None,  # the first rollout's features do not cover all kept groups
    )


def advantages_of(rollout: Rollout, weights: Mapping[str, float], *, scale: str) -> np.ndarray:
    """Return the advantage of each row, ``float32 [B]``; exactly 0 in a group of equal rewards."""
    rewards_QR = jnp.asarray(combine(rollout.rewards, weights), jnp.float32)
    return np.asarray(group_advantages(rewards_QR, scale=scale)).reshape(-1)


def rows_to_train(advantage_B: np.ndarray, *, responses: int, sizes: Sequence[int]) -> np.ndarray:
    """Return the rows of groups with a gradient, padded with other groups to one of the ascending ``sizes``.

    A group of equal rewards has advantage 0 and, without a KL term, no gradient, so it can be left out.
    """
    spread_Q = np.abs(advantage_B).reshape(-1, responses).max(axis=1)
    wanted = next(size for size in sizes if size >= (spread_Q > 0).sum())
    groups = np.sort(np.argsort(spread_Q == 0, kind="stable")[:wanted])
    return (groups[:, None] * responses + np.arange(responses)).reshape(-1)


def make_grpo_batch(
    rollout: Rollout,
    advantage_B: np.ndarray,
    *,
    temperature: float,
    share: Share = WHOLE,
    trained: np.ndarray | None = None,
    prompts: tuple[Batch, np.ndarray] | None = None,
    in_loss_B: np.ndarray | None = None,
    widths: Sequence[int] = (),
) -> GrpoBatch:
    """Build a process's ``share`` of the update's batch from the ``trained`` rows (by default all).

    ``prompts`` are the prompts of the share's trained groups and their next positions. By default they are the
    rollout's own, with the frames of all its questions, so that all batches of a size have one shape. Old and reference
    log-probabilities are zeros until they are scored. The columns are cut to the smallest of the ascending ``widths``
    that holds the longest response (by default not at all), the same on all processes. Rows outside ``in_loss_B`` (by
    default none) are masked entirely, as TRL masks truncated completions: they have no gradient and enter neither
    metrics nor token counts.
    """
    everything = np.arange(len(advantage_B))
    kept = everything if trained is None else trained
    rows, idle = share.cut(kept), share.cut(np.setdiff1d(everything, kept))
    width = _width(rollout.mask_BU, widths)
    mask_BU = rollout.mask_BU if in_loss_B is None else rollout.mask_BU & in_loss_B[:, None]
    tokens_BU, mask_BU, logp_BU = (x[:, :width] for x in (rollout.tokens_BU, mask_BU, rollout.logp_BU))
    if prompts is None:
        responses = len(share.cut(everything)) // len(rollout.next_position_Q)
        groups = rows[::responses] // responses - share.cut(everything)[0] // responses
        prompts = rollout.prompts.take_groups(groups), rollout.next_position_Q[groups]
    return GrpoBatch(
        rows=PromptedRows(*prompts, tokens_BU[rows], mask_BU[rows]),
        advantage_B=advantage_B[rows],
        old_logp_BU=np.zeros_like(logp_BU[rows]),
        ref_logp_BU=np.zeros_like(logp_BU[rows]),
        sampler_logp_BU=logp_BU[rows],
        idle_mask_XU=mask_BU[idle],
        temperature=np.array(temperature, np.float32),
    )


def _width(mask_BU: np.ndarray, widths: Sequence[int]) -> int:
    """Return the smallest of the ascending ``widths`` that holds the longest response, by default all columns."""
    longest = mask_BU.sum(axis=1).max()
    return next((width for width in widths if width >= longest), mask_BU.shape[1])

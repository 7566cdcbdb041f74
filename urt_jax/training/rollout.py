"""Where strings and RL meet: sampled texts become rewards, rewards become advantages and the batch of an update."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from urt_jax.data.examples import NOUNS, Example
from urt_jax.generation.sampler import Samples
from urt_jax.losses.advantages import group_advantages
from urt_jax.rewards.user import UserReward
from urt_jax.rewards.verifiable import (
    accuracy_reward,
    brevity_rewards,
    combine,
    consistency_reward,
    format_reward,
    overlong_reward,
)
from urt_jax.rewards.votes import swap_consistency
from urt_jax.training.steps import GrpoBatch
from urt_jax.types import Batch, PromptedRows, Rollout


@dataclass(frozen=True)
class Scoring:
    """The reward parts of a run beside form, answer and sums, which every run has."""

    twins: bool = False  # questions 2n and 2n + 1 are one pair in both orders: compare their verdicts
    overlong: tuple[int, int] | None = None  # (longest, cache) in tokens of the soft over-long penalty
    brevity: bool = False  # in groups that are all right, shorter is better
    user: tuple[UserReward, ...] = ()


def score_texts(
    texts: Sequence[str], lengths: Sequence[int], questions: Sequence[Example], scoring: Scoring
) -> dict[str, np.ndarray]:
    """Return every reward part ``float32 [Q, R]`` of question-major texts of these lengths in tokens, NaN = missing.

    ``swap_consistency``, ``overlong`` and ``brevity`` are there where ``scoring`` asks for them, a user's rewards under
    their names.

    Raises:
        RewardError: a user's reward failed, or gave no number.
    """
    responses = len(texts) // len(questions)
    shown = [(text, questions[row // responses]) for row, text in enumerate(texts)]
    parts: dict[str, list[float]] = {
        "format": [format_reward(text, noun=NOUNS.get(str(question.task))) for text, question in shown],
        "accuracy": [accuracy_reward(text, str(question.solution)) for text, question in shown],
        "consistency": [consistency_reward(text, noun=NOUNS.get(str(question.task))) for text, question in shown],
    }
    if scoring.twins:
        groups = [texts[start : start + responses] for start in range(0, len(texts), responses)]
        parts["swap_consistency"] = [
            share
            for q, group in enumerate(groups)
            for share in swap_consistency(group, groups[q ^ 1], noun=NOUNS.get(str(questions[q].task)))
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


def make_rollout(
    samples: Samples,
    ids: Sequence[str],
    questions: Sequence[Example],
    scoring: Scoring | None = None,
    *,
    policy_step: int,
) -> Rollout:
    """Score sampled responses and keep everything a later update needs.

    Raises:
        RewardError: as ``score_texts``.
    """
    lengths = samples.mask_BU.sum(axis=1).tolist()
    return Rollout(
        policy_step=policy_step,
        prompt_ids=tuple(ids),
        completions_BU=samples.tokens_BU,
        completion_mask_BU=samples.mask_BU,
        ended_B=samples.ended_B,
        sampler_logp_BU=samples.logp_BU,
        rewards=score_texts(samples.texts, lengths, questions, scoring or Scoring()),
        texts=samples.texts,
    )


def spread_groups(rollout: Rollout, weights: Mapping[str, float]) -> np.ndarray:
    """Return which groups have rewards that differ, ``bool [Q]``: the others teach nothing (advantage 0)."""
    total = combine(rollout.rewards, weights)
    highest, lowest = np.where(np.isnan(total), -np.inf, total), np.where(np.isnan(total), np.inf, total)
    return highest.max(axis=1) > lowest.min(axis=1)


def groups_to_keep(spread_of: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Return Q places (rollout, group): those of the first rollout, groups without spread replaced by later ones with.

    ``spread_of`` says of each rollout which groups have spread (dynamic sampling, DAPO, arXiv 2503.14476, eq. 11).
    """
    first, *later = spread_of
    kept = [(0, int(group)) for group in range(len(first))]
    found = [(n, int(group)) for n, spread in enumerate(later, 1) for group in np.flatnonzero(spread)]
    for place, better in zip(np.flatnonzero(~first), found):
        kept[place] = better
    return kept


def join_groups(
    drawn: Sequence[tuple[Samples, Rollout]],
    kept: Sequence[tuple[int, int]],
    prompts: Batch,
    next_position_Q: np.ndarray,
) -> tuple[Samples, Rollout]:
    """Return the ``kept`` (rollout, group) places of several rollouts as one.

    ``prompts`` with their next positions are theirs, in this order; of several processes, this one's share of them.
    """
    rollouts = [rollout for _, rollout in drawn]
    first = rollouts[0]
    responses = len(first.texts) // len(first.prompt_ids)

    def rows(parts: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([parts[n][q * responses : (q + 1) * responses] for n, q in kept])

    texts = tuple(text for n, q in kept for text in rollouts[n].texts[q * responses : (q + 1) * responses])
    joined = first._replace(
        prompt_ids=tuple(rollouts[n].prompt_ids[q] for n, q in kept),
        completions_BU=rows([rollout.completions_BU for rollout in rollouts]),
        completion_mask_BU=rows([rollout.completion_mask_BU for rollout in rollouts]),
        ended_B=rows([rollout.ended_B for rollout in rollouts]),
        sampler_logp_BU=rows([rollout.sampler_logp_BU for rollout in rollouts]),
        rewards={name: np.stack([rollouts[n].rewards[name][q] for n, q in kept]) for name in first.rewards},
        texts=texts,
    )
    samples = Samples(
        prompts=prompts,
        next_position_Q=next_position_Q,
        tokens_BU=joined.completions_BU,
        mask_BU=joined.completion_mask_BU,
        logp_BU=joined.sampler_logp_BU,
        ended_B=joined.ended_B,
        texts=texts,
    )
    return samples, joined


def advantages_of(rollout: Rollout, weights: Mapping[str, float], *, scale: str) -> np.ndarray:
    """Return the advantage of each row, ``float32 [B]``; a group of equal rewards has exactly 0."""
    rewards_QR = jnp.asarray(combine(rollout.rewards, weights), jnp.float32)
    return np.asarray(group_advantages(rewards_QR, scale=scale)).reshape(-1)


def rows_to_train(advantage_B: np.ndarray, *, responses: int, sizes: Sequence[int]) -> np.ndarray:
    """Return the rows of the groups that carry a gradient, filled up with others to one of ``sizes`` groups, ascending.

    A group of equal rewards has advantage 0 and, without a KL term, no gradient; computing it would change nothing.
    """
    spread_Q = np.abs(advantage_B).reshape(-1, responses).max(axis=1)
    wanted = next(size for size in sizes if size >= (spread_Q > 0).sum())
    groups = np.sort(np.argsort(spread_Q == 0, kind="stable")[:wanted])
    return (groups[:, None] * responses + np.arange(responses)).reshape(-1)


def make_grpo_batch(
    samples: Samples,
    advantage_B: np.ndarray,
    *,
    temperature: float,
    trained: np.ndarray | None = None,
    in_loss_B: np.ndarray | None = None,
    widths: Sequence[int] = (),
) -> GrpoBatch:
    """Build the update's batch of the ``trained`` rows (by default all).

    Old and reference log-probabilities are zeros until they are scored. The frames of all questions stay, so that
    every batch of a size has one shape. Columns behind the longest response are cut off, down to the smallest of the
    ascending ``widths`` that holds it (by default none are). Rows that are not ``in_loss_B`` (by default all are) are
    masked as a whole, as TRL masks truncated completions: no gradient, no metric, no share in a count of tokens.
    """
    kept = np.arange(len(advantage_B)) if trained is None else trained
    idle = np.setdiff1d(np.arange(len(advantage_B)), kept)
    responses = len(advantage_B) // len(samples.next_position_Q)
    width = _width(samples, widths)
    tokens_BU, mask_BU, logp_BU = (x[:, :width] for x in (samples.tokens_BU, samples.mask_BU, samples.logp_BU))
    mask_BU = mask_BU if in_loss_B is None else mask_BU & in_loss_B[:, None]
    rows = PromptedRows(samples.prompts, samples.next_position_Q, tokens_BU, mask_BU)
    zeros = np.zeros_like(logp_BU[kept])
    return GrpoBatch(
        rows=rows.take_groups(kept[::responses] // responses),
        advantage_B=advantage_B[kept],
        old_logp_BU=zeros,
        ref_logp_BU=zeros,
        sampler_logp_BU=logp_BU[kept],
        idle_mask_XU=mask_BU[idle],
        temperature=np.array(temperature, np.float32),
    )


def make_share_of_batch(
    samples: Samples,
    prompts: Batch,
    next_position_Q: np.ndarray,
    advantage_B: np.ndarray,
    *,
    temperature: float,
    rows: np.ndarray,
    idle: np.ndarray,
    in_loss_B: np.ndarray | None = None,
    widths: Sequence[int] = (),
) -> GrpoBatch:
    """Build one process's share of an update's batch: ``rows`` of all responses, whose questions are ``prompts``.

    ``idle`` are its share of the rows that are left out. See ``make_grpo_batch``.
    """
    in_loss = np.ones(len(advantage_B), bool) if in_loss_B is None else in_loss_B
    width = _width(samples, widths)  # the same on all processes
    own = Samples(
        prompts=prompts,
        next_position_Q=next_position_Q,
        tokens_BU=samples.tokens_BU[rows, :width],
        mask_BU=samples.mask_BU[rows, :width],
        logp_BU=samples.logp_BU[rows, :width],
        ended_B=samples.ended_B[rows],
        texts=(),
    )
    batch = make_grpo_batch(own, advantage_B[rows], temperature=temperature, in_loss_B=in_loss[rows])
    return batch._replace(idle_mask_XU=samples.mask_BU[idle, :width] & in_loss[idle, None])


def _width(samples: Samples, widths: Sequence[int]) -> int:
    """Return the smallest of the ascending ``widths`` that holds the longest response, by default all columns."""
    longest = samples.mask_BU.sum(axis=1).max()
    return next((width for width in widths if width >= longest), samples.mask_BU.shape[1])

"""Where strings and RL meet: sampled texts become rewards, rewards become advantages and the batch of an update."""

from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from urt_jax.generation.sampler import Samples
from urt_jax.losses.grpo import group_advantages
from urt_jax.rewards.verifiable import accuracy_reward, combine, consistency_reward, format_reward
from urt_jax.training.steps import GrpoBatch
from urt_jax.types import PromptedRows, Rollout

# name -> (text, solution) -> number; a user's reward has the same form
REWARDS: dict[str, Callable[[str, str], float]] = {
    "format": lambda text, solution: format_reward(text),
    "accuracy": accuracy_reward,
    "consistency": lambda text, solution: consistency_reward(text),
}


def score_texts(texts: Sequence[str], solutions: Sequence[str]) -> dict[str, np.ndarray]:
    """Return every reward part ``float32 [Q, R]`` of question-major texts, weighted or not."""
    responses = len(texts) // len(solutions)
    pairs = [(text, solutions[row // responses]) for row, text in enumerate(texts)]
    return {
        name: np.array([reward(*pair) for pair in pairs], np.float32).reshape(len(solutions), responses)
        for name, reward in REWARDS.items()
    }


def make_rollout(samples: Samples, ids: Sequence[str], solutions: Sequence[str], *, policy_step: int) -> Rollout:
    """Score sampled responses and keep everything a later update needs."""
    return Rollout(
        policy_step=policy_step,
        prompt_ids=tuple(ids),
        completions_BU=samples.tokens_BU,
        completion_mask_BU=samples.mask_BU,
        sampler_logp_BU=samples.logp_BU,
        rewards=score_texts(samples.texts, solutions),
        texts=samples.texts,
    )


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
    samples: Samples, advantage_B: np.ndarray, *, temperature: float, trained: np.ndarray | None = None
) -> GrpoBatch:
    """Build the update's batch of the ``trained`` rows (by default all).

    Old and reference log-probabilities are zeros until they are scored. The frames of all questions stay, so that
    every batch of a size has one shape.
    """
    kept = np.arange(len(advantage_B)) if trained is None else trained
    idle = np.setdiff1d(np.arange(len(advantage_B)), kept)
    responses = len(advantage_B) // len(samples.next_position_Q)
    rows = PromptedRows(samples.prompts, samples.next_position_Q, samples.tokens_BU, samples.mask_BU)
    zeros = np.zeros_like(samples.logp_BU[kept])
    return GrpoBatch(
        rows=rows.take_groups(kept[::responses] // responses),
        advantage_B=advantage_B[kept],
        old_logp_BU=zeros,
        ref_logp_BU=zeros,
        sampler_logp_BU=samples.logp_BU[kept],
        idle_mask_XU=samples.mask_BU[idle],
        temperature=np.array(temperature, np.float32),
    )


def rollout_figures(rollout: Rollout, weights: Mapping[str, float], ends: Sequence[int]) -> dict[str, float]:
    """Return the figures of one rollout under the names people have dashboards for (TRL's).

    A completion is clipped when its last token is no end token: it ran to the limit.
    """
    lengths = rollout.completion_mask_BU.sum(axis=1)
    last = rollout.completions_BU[np.arange(len(lengths)), np.maximum(lengths, 1) - 1]
    ended = np.isin(last, ends)
    total = combine(rollout.rewards, weights)
    spread = total.max(axis=1) - total.min(axis=1)
    accuracy = rollout.rewards["accuracy"]
    figures = {
        "reward": float(total.mean()),
        "reward_std": float(total.std(axis=1, ddof=1).mean()),
        "frac_reward_zero_std": float((spread == 0).mean()),
        "all_right": float((accuracy == 1).all(axis=1).mean()),
        "all_wrong": float((accuracy == 0).all(axis=1).mean()),
        "parse_failure": float((rollout.rewards["format"] == 0).mean()),
        "completions/mean_length": float(lengths.mean()),
        "completions/min_length": float(lengths.min()),
        "completions/max_length": float(lengths.max()),
        "completions/clipped_ratio": float(1.0 - ended.mean()),
    }
    if ended.any():
        figures["completions/mean_terminated_length"] = float(lengths[ended].mean())
    for name, values in rollout.rewards.items():
        figures[f"rewards/{name}/mean"] = float(values.mean())
        figures[f"rewards/{name}/std"] = float(values.std(ddof=1))
    return figures

"""The figures of a rollout: TRL's metrics by TRL's names, and further ones."""

from collections.abc import Mapping

import numpy as np

from urt_jax.rewards.sums import combine
from urt_jax.training.rollout import spread_groups
from urt_jax.types import Rollout


def rollout_figures(rollout: Rollout, weights: Mapping[str, float]) -> dict[str, float]:
    """Return the figures of one rollout; a figure without values (all rewards missing, no response ended) is left out.

    Means and standard deviations (of a sample, as in TRL) skip missing rewards; the deviation of a group with fewer
    than two rewards is 0. ``parse_failure`` is the share of responses that do not parse; ``all_right`` and
    ``all_wrong`` are shares of groups.
    """
    total, accuracy = combine(rollout.rewards, weights), rollout.rewards["accuracy"]
    figures = {
        "reward_std": float(np.mean([_deviation(group) for group in total])),
        "frac_reward_zero_std": float(1.0 - spread_groups(rollout, weights).mean()),
        "all_right": float((accuracy == 1).all(axis=1).mean()),
        "all_wrong": float((accuracy == 0).all(axis=1).mean()),
        "parse_failure": float((rollout.rewards["format"] == 0).mean()),
        **length_figures(rollout),
    }
    if not np.isnan(total).all():
        figures["reward"] = float(np.nanmean(total))
    for name, values in rollout.rewards.items():
        if not np.isnan(values).all():
            figures[f"rewards/{name}/mean"] = float(np.nanmean(values))
            figures[f"rewards/{name}/std"] = _deviation(values)
    return figures


def length_figures(rollout: Rollout) -> dict[str, float]:
    """Return figures of the responses' lengths in tokens, end token included.

    A response that reached the token limit is clipped; one that an end token or a stop string ended is terminated.
    """
    lengths, ended = rollout.mask_BU.sum(axis=1), rollout.ended_B
    figures = {f"completions/{kind}_length": value for kind, value in _extent(lengths).items()}
    figures["completions/clipped_ratio"] = float(1.0 - ended.mean())
    if ended.any():
        terminated = _extent(lengths[ended])
        figures |= {f"completions/{kind}_terminated_length": value for kind, value in terminated.items()}
    return figures


def _extent(lengths: np.ndarray) -> dict[str, float]:
    return {"mean": float(lengths.mean()), "min": float(lengths.min()), "max": float(lengths.max())}


def _deviation(values: np.ndarray) -> float:
    given = values[~np.isnan(values)]
    return float(given.std(ddof=1)) if len(given) > 1 else 0.0

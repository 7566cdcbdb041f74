"""What each part of the GRPO recipe is worth on the built-in task: several settings at equal compute, three seeds.

    python -m urt_jax.main --config configs/ablation.py

``plain`` is the paper's recipe: loss grpo, KL 0.04, reward = format + accuracy. Every other row changes what it names
and is compared with it on the same held-out pairs. Learning rate and steps are those of all rows.

At one update a rollout the ratio is 1, so a loss differs from ``grpo`` by how it averages over tokens at most: gspo is
the same, dapo, bnpo and cispo are one, dr_grpo is grpo up to a factor. The rows of losses therefore take two updates of
half as many rollouts, which are as many updates in all.

Preset ``best``: ``plain`` and the best setting found, alone. docs/results.md has the figures of all rows.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from urt_jax.main import load_config

STEPS = 60
SUMS = {"rewards": {"consistency": 1.0}}
BOTH_ORDERS = {"data": {"swap": True}}
TWICE = {"kl_coef": 0.0, "updates_per_rollout": 2, "steps": STEPS // 2}
POOL = {"data": {"count": 256}, "curriculum": {"retire_after": 1, "rescore_every": 20}}

BEST = "no KL, sums, gold scores"
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no KL": {"kl_coef": 0.0},
    "both orders": BOTH_ORDERS,
    "sums": SUMS,
    "swap reward": {**BOTH_ORDERS, "rewards": {"swap_consistency": 1.0}},
    "curriculum": POOL,
    "2 updates, grpo": TWICE,
    "2 updates, dapo": {**TWICE, "loss": "dapo", "clip_high": 0.28},
    "2 updates, gspo": {**TWICE, "loss": "gspo", "clip_low": 3e-4, "clip_high": 4e-4},
    "2 updates, cispo": {**TWICE, "loss": "cispo"},
    BEST: {
        **BOTH_ORDERS,
        "kl_coef": 0.0,
        "rewards": {"consistency": 1.0, "user": ({"function": "urt_jax.rewards.gold:gold_scores", "weight": 3.0},)},
    },
}


def get_config(preset: str = "") -> ConfigDict:
    """Return all rows, or those of preset ``best``."""
    if preset not in ("", "best"):
        raise ValueError(f"unknown preset {preset!r}; known: best")
    config = ConfigDict()
    config.stage = "ablation"
    config.grpo = load_config(Path(__file__).with_name("grpo.py"))
    del config.grpo["stage"]
    config.grpo.update({"steps": STEPS, "kl_coef": 0.04})
    config.grpo.rewards = {"format": 1.0, "accuracy": 1.0}
    config.grpo.data.swap = False
    config.grpo.eval_data.update({"count": 1024, "seed": 6})
    rows = ("plain", BEST) if preset else SETTINGS
    config.settings = tuple({"name": name, "changes": SETTINGS[name]} for name in rows)
    config.seeds = (0, 1, 2)
    return config

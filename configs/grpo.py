"""GRPO from the shipped cold start on the built-in task, with the held-out table before and after.

    python -m urt_jax.main --config configs/grpo.py    # as it stands, from the cold start: minutes not noted

Figure reached, after rejection sampling, in ``configs/pipeline.py``: 163 s on two CPU cores, reward 2.74 -> 2.83 (first
and last tenth of the steps); 256 held-out pairs, temperature 1: accuracy 84.8 -> 89.8, position consistency 77.3 ->
86.3; greedy accuracy 95.9 -> 95.3, position consistency 94.9 -> 96.9. So samples become better; the greedy judge was
good before.
"""

from ml_collections import ConfigDict


def get_config(preset: str = "") -> ConfigDict:
    """Return the only preset."""
    if preset:
        raise ValueError(f"unknown preset {preset!r}; this config has none")
    config = ConfigDict()
    config.stage = "grpo"
    config.data = {"count": 2048, "seed": 13}  # 120 steps ask 1,920: no pair comes twice
    config.eval_data = {"count": 256, "seed": 1}  # few: they are judged twice
    config.model = {"path": "urt-tiny-cold"}  # the base writes no reasoning: nothing to reward
    config.steps = 120
    config.questions_per_step = 16
    config.responses_per_question = 8  # the paper's group
    # Sums too: accuracy alone pays for a right answer whatever the scores above it say. In 60 steps of the ablation
    # the part gained nothing that its intervals show (+0.3 [-0.3, 0.8] at temperature 1).
    config.rewards = {"format": 1.0, "accuracy": 1.0, "consistency": 1.0}
    # No KL: no copy of the start is kept and scored, and groups of equal rewards, which then have no gradient, can be
    # left out of the update. The price is in the ablation: without its KL of 0.04 the paper's recipe lost 0.6 points
    # of accuracy, greedily and at temperature 1. The best row there has none either; a KL in this config was not run.
    config.kl_coef = 0.0
    # 3e-4 took more at temperature 1 (92.5) and less greedily (96.0) in the ablation's trial on other pairs.
    config.optimizer = {"learning_rate": 1e-4, "warmup_steps": 5, "schedule": "linear"}
    config.lengths = {"max_prompt_tokens": 160, "max_new_tokens": 96}  # 96 tokens hold every reasoning of scenes
    config.save_every = 20
    config.sample_every = 25
    return config

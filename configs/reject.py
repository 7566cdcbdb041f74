"""Rejection sampling: judge a pool several times, learn correct reasonings, pass the hard pairs on to GRPO.

python -m urt_jax.main --config configs/reject.py
"""

from ml_collections import ConfigDict


def get_config(preset: str = "") -> ConfigDict:
    """Return the only preset."""
    if preset:
        raise ValueError(f"unknown preset {preset!r}; this config has none")
    config = ConfigDict()
    config.stage = "reject"
    config.data = {
        "count": 1536,
        "seed": 12,
        "tasks": {"image_gen": 3.0, "video_gen": 1.0, "image_und": 1.0, "video_und": 1.0},
    }
    config.model = {"path": "urt-tiny-cold"}
    config.samples_per_item = 4
    config.batch_questions = 32
    config.steps = 60
    config.batch_size = 32
    config.optimizer = {"learning_rate": 2e-4, "warmup_steps": 5}
    config.lengths = {"max_prompt_tokens": 160, "max_new_tokens": 96}
    config.save_every = 20
    return config

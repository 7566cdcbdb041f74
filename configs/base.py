"""Train the base of ``urt-tiny`` from nothing: it sees, compares and adds up, but does not reason in writing yet.

python -m urt_jax.main --config configs/base.py

1,300 steps of 64 records took about 20 minutes on two CPU cores (loss 5.99 -> 0.10). Held-out drills answered without
an error afterwards: check_text 96 %, conclude 95 %, sums 85 %, check 25 %, describe 15 %: seeing is what is missing.
To go on from a model: --config.model.init=load --config.model.path=FOLDER
"""

from ml_collections import ConfigDict


def get_config(preset: str = "") -> ConfigDict:
    """Return the only preset."""
    if preset:
        raise ValueError(f"unknown preset {preset!r}; this config has none")
    config = ConfigDict()
    config.stage = "base"
    config.steps = 1300
    config.batch_size = 64
    everything = {"image_gen": 3.0, "video_gen": 1.0, "image_und": 1.0, "video_und": 1.0}
    config.data = [
        {"path": "drills", "weight": 3.0, "count": 27_000},
        {"path": "scenes", "weight": 1.0, "count": 14_000, "tasks": everything},
    ]
    config.model = {"init": "random", "trainable": [".*"]}
    config.optimizer = {"learning_rate": 1e-3, "warmup_steps": 50, "schedule": "cosine", "b2": 0.98}
    config.lengths = {"max_prompt_tokens": 160, "max_new_tokens": 96}
    config.save_every = 100
    config.log_every = 10
    return config

"""Cold start: teach the base judge the form of written reasoning from a distilled file.

    python -m urt_jax.main --config configs/sft.py    # after configs/distill.py; 4 minutes on two CPU cores

The shipped ``urt-tiny-cold`` is what this stage gave in a run of ``configs/pipeline.py``. Figure reached: accuracy 97.2
greedily and 85.6 at temperature 1, where the base's direct answer is at 63.6.
"""

from ml_collections import ConfigDict


def get_config(preset: str = "") -> ConfigDict:
    """Return the only preset."""
    if preset:
        raise ValueError(f"unknown preset {preset!r}; this config has none")
    config = ConfigDict()
    config.stage = "sft"
    everything = {"image_gen": 3.0, "video_gen": 1.0, "image_und": 1.0, "video_und": 1.0}
    config.data = [
        {"path": "runs/distill/records/cold_start.jsonl"},
        # Some direct answers, so that the judge stays able to answer without reasoning.
        {"path": "scenes", "weight": 0.2, "count": 2000, "seed": 14, "tasks": everything},
    ]
    config.model = {"path": "urt-tiny"}
    config.steps = 450  # 150 when there were a quarter of the reasonings
    config.batch_size = 32
    # Below every rate of configs/base.py. It was 4e-4 with those 150 steps; at these steps no other rate was compared.
    config.optimizer = {"learning_rate": 5e-4, "warmup_steps": 10, "schedule": "cosine"}
    config.lengths = {"max_prompt_tokens": 160, "max_new_tokens": 96}  # 96 tokens hold every reasoning of scenes
    config.save_every = 50
    return config

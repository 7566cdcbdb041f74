"""Judge held-out pairs of the built-in task with the shipped models: both orders, with and without reasoning.

python -m urt_jax.main --config configs/evaluate.py
"""

from ml_collections import ConfigDict


def get_config(preset: str = "") -> ConfigDict:
    """Return the only preset."""
    if preset:
        raise ValueError(f"unknown preset {preset!r}; this config has none")
    config = ConfigDict()
    config.stage = "evaluate"
    config.models = {"base": "urt-tiny", "cold start": "urt-tiny-cold"}
    config.data = {
        "count": 512,
        "seed": 1,
        "tasks": {"image_gen": 4.0, "video_gen": 1.0, "image_und": 1.0, "video_und": 1.0},
    }
    config.lengths = {"max_prompt_tokens": 160, "max_new_tokens": 96}
    return config

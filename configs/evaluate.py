"""Judge held-out pairs of the built-in task with the shipped models: both orders, with and without reasoning.

    python -m urt_jax.main --config configs/evaluate.py    # minutes not noted on its own

In ``configs/pipeline.py`` the judging of 896 pairs by all four models took 178 s on two CPU cores. Figures reached
there: accuracy of the base 63.6 (direct answer), of the cold start 97.2 greedily and 85.6 at temperature 1; no blind
baseline was above 59.4.
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
        # More of image generation, so that its interval is the narrowest.
        "tasks": {"image_gen": 4.0, "video_gen": 1.0, "image_und": 1.0, "video_und": 1.0},
    }
    config.lengths = {"max_prompt_tokens": 160, "max_new_tokens": 96}  # 96 tokens hold every reasoning of scenes
    return config

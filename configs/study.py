"""The recipe with three seeds, judged on 2,048 held-out pairs of image generation and 512 of the other tasks.

    python -m urt_jax.main --config configs/study.py    # not run with the shipped base and this recipe

One of its pipelines took 12 minutes on two CPU cores with fewer pairs to judge. Figure reached: none yet.

Three pipelines of ``configs/pipeline.py`` one after the other; each goes on where it was when called again.
"""

from pathlib import Path

from ml_collections import ConfigDict

from urt_jax.main import load_config


def get_config(preset: str = "") -> ConfigDict:
    """Return the study of the shipped judge."""
    if preset:
        raise ValueError(f"unknown preset {preset!r}; this config has none")
    config = load_config(Path(__file__).with_name("pipeline.py"))
    config.stage = "study"
    config.seeds = (0, 1, 2)  # of orders and samples; all three judge the same pairs
    config.evaluate.data.count = 2560  # 12 of 15 are image generation: 2,048
    config.evaluate.data.tasks = {"image_gen": 12.0, "video_gen": 1.0, "image_und": 1.0, "video_und": 1.0}
    return config

"""Look at a source before training on it: labels, ties, order, duplicates, sizes, prompt lengths, and a page.

    python -m urt_jax.main --config configs/data.py    # the built-in pairs; seconds
    python -m urt_jax.main --config configs/data.py --config.data.path=runs/distill/records/cold_start.jsonl

Figure reached: of 256 built-in pairs, as many first candidates as second ones are better, and no picture repeats.
"""

from ml_collections import ConfigDict


def get_config(preset: str = "") -> ConfigDict:
    """Return the only preset."""
    if preset:
        raise ValueError(f"unknown preset {preset!r}; this config has none")
    config = ConfigDict()
    config.stage = "data"
    config.data = {"count": 256, "tasks": {"image_gen": 3.0, "video_gen": 1.0, "image_und": 1.0, "video_und": 1.0}}
    return config

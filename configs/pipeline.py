"""The main job: from the shipped base judge through the whole recipe to a table and a report.

    python -m urt_jax.main --config configs/pipeline.py

Distils 1,200 pairs from the built-in teacher, cold-starts on what is kept, samples a pool of 1,536 pairs, learns the
correct reasonings, runs GRPO on the hard rest, and judges 896 held-out pairs (512 of image generation) with all four.
"""

import importlib.util
from pathlib import Path

from ml_collections import ConfigDict


def get_config(preset: str = "") -> ConfigDict:
    """Return the recipe of the shipped judge; its stages are the configs beside this file."""
    if preset:
        raise ValueError(f"unknown preset {preset!r}; this config has none")
    config = ConfigDict()
    config.stage = "pipeline"
    config.base = "urt-tiny"
    for name in ("distill", "sft", "reject", "grpo", "evaluate"):
        part = _beside(name)
        del part["stage"]
        config[name] = part
    config.grpo.data = {}
    config.evaluate.data.count = 896
    return config


def _beside(name: str) -> ConfigDict:
    """Return the default of the config file ``name`` in this folder."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()

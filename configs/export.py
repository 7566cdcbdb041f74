"""Write a judge as transformers and vLLM read it: from a run, an adapter, or a published LLaVA folder.

    python -m urt_jax.main --config configs/export.py    # one process; minutes not noted
    python -m urt_jax.main --config configs/export.py --config.model=runs/grpo --config.dtype=bfloat16

Figure reached: the torch model that reads the files has the same weights and logits, bit for bit (docs/families.md).
"""

from ml_collections import ConfigDict


def get_config(preset: str = "") -> ConfigDict:
    """Return the only preset."""
    if preset:
        raise ValueError(f"unknown preset {preset!r}; this config has none")
    config = ConfigDict()
    config.stage = "export"
    config.model = "urt-tiny-cold"  # ships with the code, so that the command runs before any training has
    return config

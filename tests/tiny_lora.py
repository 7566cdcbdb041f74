"""Adapters with a B that is not 0, for the tests of what adapters do."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from urt_jax.config import LoraConfig
from urt_jax.training.lora import add_adapters

EVERYWHERE = ("",)  # every projection there is
DECODER = LoraConfig.targets


def adapted(params: Any, *, rank: int = 3, alpha: float = 6.0, targets: Sequence[str] = DECODER, seed: int = 0) -> Any:
    """Return the tree with drawn adapters, both matrices random, as numpy arrays."""
    fresh = add_adapters(params, rank=rank, alpha=alpha, targets=targets, rng=jax.random.key(seed))
    rng = np.random.default_rng([11, seed])

    def draw(path: tuple[Any, ...], leaf: Any) -> np.ndarray:
        moved = 0.1 * rng.standard_normal(leaf.shape) if path[-1].key == "lora_b" else 0.0
        return (np.asarray(leaf) + moved).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, fresh)

"""Vision towers: patches of pictures and frames in, features of the decoder's width out."""

import flax.linen as nn

from urt_jax.models.config import DeepStackVisionConfig, TileVisionConfig, VisionConfig, WindowedVisionConfig
from urt_jax.models.layers import DType
from urt_jax.models.towers.qwen2_5_vit import Qwen25VisionTower
from urt_jax.models.towers.qwen3_vit import Qwen3VisionTower
from urt_jax.models.towers.siglip import SiglipTower

TOWERS: dict[type[VisionConfig], type[nn.Module]] = {
    WindowedVisionConfig: Qwen25VisionTower,
    DeepStackVisionConfig: Qwen3VisionTower,
    TileVisionConfig: SiglipTower,
}


def make_tower(config: VisionConfig, dtype: DType, param_dtype: DType, remat: str) -> nn.Module:
    """Return the tower of this config; every tower maps a ``VisionInput`` to ``VisionFeatures``."""
    return TOWERS[type(config)](config, dtype, param_dtype, remat)

"""The SigLIP tower of LLaVA-OneVision (arXiv 2408.03326): square tiles in, one projected feature per patch out."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from urt_jax.models.config import TileVisionConfig
from urt_jax.models.layers import MLP, DType, LayerNorm, Linear, Projector
from urt_jax.models.stacked import scan_layers, stacked_param
from urt_jax.ops.attention import attend
from urt_jax.sharding.activations import pinned
from urt_jax.types import VisionFeatures, VisionInput


class TileBlock(nn.Module):
    """One pre-norm block over the patches of a tile."""

    config: TileVisionConfig
    dtype: DType = jnp.float32
    param_dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x_IPD: Float[Array, "I P D"], mask_IP: Bool[Array, "I P"]) -> Float[Array, "I P D"]:
        cfg, kinds = self.config, (self.dtype, self.param_dtype)
        frames, patches, width = x_IPD.shape
        normed = LayerNorm(cfg.norm_eps, *kinds, name="norm1")(x_IPD)
        query, key, value = (
            Linear(width, True, *kinds, name=name)(normed).reshape(frames, patches, cfg.heads, -1) for name in "qkv"
        )
        seen = attend(query, key, value, mask_IP[:, None]).reshape(frames, patches, width)
        x_IPD = x_IPD + Linear(width, True, *kinds, name="proj")(seen)
        normed = LayerNorm(cfg.norm_eps, *kinds, name="norm2")(x_IPD)
        return x_IPD + MLP(cfg.feed_forward, *kinds, name="mlp")(normed)


class SiglipTower(nn.Module):
    """Tiles in, projected features out; ``FeatureBlend`` pools them and adds the line ends.

    Published checkpoints hold a last norm, which is not applied: features are taken before it.
    """

    config: TileVisionConfig
    dtype: DType = jnp.float32
    param_dtype: DType = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, vision: VisionInput) -> VisionFeatures:
        cfg, kinds = self.config, (self.dtype, self.param_dtype)
        positions, mask = jnp.asarray(vision.positions_IP2), jnp.asarray(vision.mask_IP)
        x = Linear(cfg.width, True, *kinds, name="patch_embed")(jnp.asarray(vision.patches_IPC))
        kind = jnp.dtype(self.param_dtype)
        table = self.param("positions", nn.initializers.normal(0.02), (cfg.tile_side**2, cfg.width), kind)
        x = x + table[positions[..., 0] * cfg.tile_side + positions[..., 1]].astype(x.dtype)
        block = TileBlock(cfg, *kinds, parent=None)
        # The shapes of the weights do not depend on the tile, so one tiny tile is enough to initialise them.
        params = stacked_param(self, "blocks", block, cfg.depth, x[:1, :1] * 0, mask[:1, :1])

        def body(x: Array, layer: Any, used: Array) -> tuple[Array, None]:
            x = pinned(x, "frames")

            def run() -> Any:
                return block.apply({"params": layer}, x, mask)

            return (run() if cfg.feature_layer == cfg.depth else jax.lax.cond(used, run, lambda: x)), None

        x, _ = scan_layers(body, x, params, jnp.arange(cfg.depth) < cfg.feature_layer, remat=self.remat)
        LayerNorm(cfg.norm_eps, *kinds, name="last_norm")(x[:1, :1])
        project = Projector(cfg.out_width, cfg.out_width, cfg.projector_bias, *kinds, name="projector")
        newline = self.param("newline", nn.initializers.normal(cfg.out_width**-0.5), (cfg.out_width,), kind)
        return VisionFeatures(project(x).reshape(-1, cfg.out_width), newline_D=newline.astype(self.dtype))

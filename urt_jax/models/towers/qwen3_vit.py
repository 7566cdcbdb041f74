"""The vision tower of Qwen3-VL: resampled learned positions, full attention, features of several layers.

Source: Qwen3-VL technical report (arXiv 2511.21631), section 2; DeepStack (arXiv 2406.04334).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from urt_jax.models.config import DeepStackVisionConfig
from urt_jax.models.layers import MLP, DType, LayerNorm, Linear, Projector
from urt_jax.models.stacked import scan_layers, stacked_param
from urt_jax.ops.attention import attend
from urt_jax.ops.rope import Rotation, grid_angles, rotate, rotation
from urt_jax.ops.sampling_grid import bilinear_rows
from urt_jax.sharding.activations import pinned
from urt_jax.types import VisionFeatures, VisionInput


class VisionBlock(nn.Module):
    """One pre-norm block that attends over the whole frame."""

    config: DeepStackVisionConfig
    dtype: DType = jnp.float32
    param_dtype: DType = jnp.float32

    @nn.compact
    def __call__(
        self, x_IPD: Float[Array, "I P D"], turn: Rotation, mask_IP: Bool[Array, "I P"]
    ) -> Float[Array, "I P D"]:
        cfg, kinds = self.config, (self.dtype, self.param_dtype)
        frames, patches, width = x_IPD.shape
        normed = LayerNorm(cfg.norm_eps, *kinds, name="norm1")(x_IPD)
        qkv = Linear(3 * width, True, *kinds, name="qkv")(normed)
        heads = qkv.reshape(frames, patches, 3, cfg.heads, width // cfg.heads)
        query, key = rotate(heads[:, :, 0], turn), rotate(heads[:, :, 1], turn)
        seen = attend(query, key, heads[:, :, 2], mask_IP[:, None]).reshape(frames, patches, width)
        x_IPD = x_IPD + Linear(width, True, *kinds, name="proj")(seen)
        normed = LayerNorm(cfg.norm_eps, *kinds, name="norm2")(x_IPD)
        return x_IPD + MLP(cfg.feed_forward, *kinds, name="mlp")(normed)


class PatchMerger(nn.Module):
    """Concatenate the patches of a merge block and project them; deep layers normalise after the concatenation."""

    config: DeepStackVisionConfig
    norm_after: bool
    dtype: DType = jnp.float32
    param_dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x_IPD: Float[Array, "I P D"]) -> Float[Array, "E F"]:
        cfg, kinds = self.config, (self.dtype, self.param_dtype)
        inner = cfg.width * cfg.merge_size**2
        norm = LayerNorm(cfg.norm_eps, *kinds, name="norm")
        joined = norm(x_IPD.reshape(-1, inner)) if self.norm_after else norm(x_IPD).reshape(-1, inner)
        return Projector(inner, cfg.out_width, True, *kinds, name="mlp")(joined)


class Qwen3VisionTower(nn.Module):
    """Patches of all frames in, one feature per 2x2 group of patches out, and as many for each deep layer."""

    config: DeepStackVisionConfig
    dtype: DType = jnp.float32
    param_dtype: DType = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, vision: VisionInput) -> VisionFeatures:
        cfg, kinds = self.config, (self.dtype, self.param_dtype)
        positions, mask = jnp.asarray(vision.positions_IP2), jnp.asarray(vision.mask_IP)
        x = Linear(cfg.width, True, *kinds, name="patch_embed")(jnp.asarray(vision.patches_IPC))
        table_shape = (cfg.position_side**2, cfg.width)
        table = self.param("positions", nn.initializers.normal(0.02), table_shape, jnp.dtype(self.param_dtype))
        x = x + bilinear_rows(table, positions, mask, side=cfg.position_side).astype(x.dtype)
        angles = grid_angles(positions, head_width=cfg.width // cfg.heads, theta=cfg.rope_theta)
        turn = rotation(angles)
        block = VisionBlock(cfg, *kinds, parent=None)
        # The shapes of the weights do not depend on the frame, so one tiny frame is enough to initialise them.
        probe = (x[:1, :1] * 0, rotation(angles[:1, :1]), mask[:1, :1])
        params = stacked_param(self, "blocks", block, cfg.depth, *probe)
        deep_layers = cfg.deepstack_layers
        place_L = jnp.array([deep_layers.index(i) if i in deep_layers else -1 for i in range(cfg.depth)])
        kept = jnp.zeros((len(deep_layers), *x.shape), x.dtype)

        def body(carry: Any, layer: Any, place: Array) -> tuple[Any, None]:
            x, kept = carry
            x = block.apply({"params": layer}, pinned(x, "frames"), turn, mask)
            # Only the outputs of the few deep layers are kept.
            kept = jax.lax.cond(place >= 0, lambda: kept.at[place].set(x), lambda: kept)
            return (x, kept), None

        (x, kept), _ = scan_layers(body, (x, kept), params, place_L, remat=self.remat)
        merged = PatchMerger(cfg, False, *kinds, name="projector")(x)
        if not deep_layers:
            return VisionFeatures(merged)
        merger = PatchMerger(cfg, True, *kinds, parent=None)
        patches = jnp.zeros((1, cfg.merge_size**2, cfg.width))
        deep = stacked_param(self, "deep_projector", merger, len(deep_layers), patches)
        features: Any = jax.vmap(lambda layer, states: merger.apply({"params": layer}, states))(deep, kept)
        return VisionFeatures(merged, deep_KED=features)

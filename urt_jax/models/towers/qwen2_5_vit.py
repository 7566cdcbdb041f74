"""The vision tower of Qwen2.5-VL: windowed attention, a few full layers, 2x2 merger (arXiv 2502.13923, section 2.1)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from urt_jax.models.config import WindowedVisionConfig
from urt_jax.models.layers import DType, GatedMLP, Linear, Projector, RMSNorm
from urt_jax.models.stacked import scan_layers, stacked_param
from urt_jax.ops.attention import attend
from urt_jax.ops.rope import Rotation, grid_angles, rotate, rotation
from urt_jax.sharding.activations import pinned
from urt_jax.types import VisionFeatures, VisionInput


class VisionBlock(nn.Module):
    """One pre-norm block that attends over windows or over the whole frame, as a traced flag says."""

    config: WindowedVisionConfig
    dtype: DType = jnp.float32
    param_dtype: DType = jnp.float32

    @nn.compact
    def __call__(
        self, x_IPD: Float[Array, "I P D"], turn: Rotation, mask_IP: Bool[Array, "I P"], full: Array
    ) -> Float[Array, "I P D"]:
        cfg, kinds = self.config, (self.dtype, self.param_dtype)
        frames, patches, width = x_IPD.shape
        normed = RMSNorm(cfg.norm_eps, *kinds, name="norm1")(x_IPD)
        qkv = Linear(3 * width, True, *kinds, name="qkv")(normed)
        heads = qkv.reshape(frames, patches, 3, cfg.heads, width // cfg.heads)
        query, key = rotate(heads[:, :, 0], turn), rotate(heads[:, :, 1], turn)
        value = heads[:, :, 2]

        def whole_frame() -> Array:
            return attend(query, key, value, mask_IP[:, None])

        def windows() -> Array:
            # Patches come window by window, each window padded to full size, so a window is a slice of the slots.
            slots = min(cfg.window_slots, patches)
            split = (frames * patches // slots, slots)
            cut_query, cut_key, cut_value = (t.reshape(*split, *t.shape[2:]) for t in (query, key, value))
            return attend(cut_query, cut_key, cut_value, mask_IP.reshape(split)[:, None]).reshape(query.shape)

        seen = jax.lax.cond(full, whole_frame, windows).reshape(frames, patches, width)
        x_IPD = x_IPD + Linear(width, True, *kinds, name="proj")(seen)
        normed = RMSNorm(cfg.norm_eps, *kinds, name="norm2")(x_IPD)
        return x_IPD + GatedMLP(cfg.feed_forward, True, *kinds, name="mlp")(normed)


class PatchMerger(nn.Module):
    """Normalise each patch, concatenate the patches of a merge block and project them."""

    config: WindowedVisionConfig
    dtype: DType = jnp.float32
    param_dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x_IPD: Float[Array, "I P D"]) -> Float[Array, "E F"]:
        cfg, kinds = self.config, (self.dtype, self.param_dtype)
        inner = cfg.width * cfg.merge_size**2
        joined = RMSNorm(cfg.norm_eps, *kinds, name="norm")(x_IPD).reshape(-1, inner)
        return Projector(inner, cfg.out_width, True, *kinds, name="mlp")(joined)


class Qwen25VisionTower(nn.Module):
    """Patches of all frames in, one feature per 2x2 group of patches out.

    Window layers and full layers share one scan body; a flag per layer selects the attention at run time.
    """

    config: WindowedVisionConfig
    dtype: DType = jnp.float32
    param_dtype: DType = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, vision: VisionInput) -> VisionFeatures:
        cfg, kinds = self.config, (self.dtype, self.param_dtype)
        patches = jnp.asarray(vision.patches_IPC)
        x = Linear(cfg.width, False, *kinds, name="patch_embed")(patches)
        angles = grid_angles(jnp.asarray(vision.positions_IP2), head_width=cfg.width // cfg.heads, theta=cfg.rope_theta)
        turn, mask = rotation(angles), jnp.asarray(vision.mask_IP)
        block = VisionBlock(cfg, *kinds, parent=None)
        # The shapes of the weights do not depend on the frame, so one tiny frame is enough to initialise them.
        probe = (x[:1, :1] * 0, rotation(angles[:1, :1]), mask[:1, :1], jnp.array(True))
        params = stacked_param(self, "blocks", block, cfg.depth, *probe)
        full_L = jnp.array(np.isin(np.arange(cfg.depth), cfg.full_attention_layers))

        def body(x: Array, layer: Any, full: Array) -> tuple[Array, None]:
            return block.apply({"params": layer}, pinned(x, "frames"), turn, mask, full), None  # type: ignore[return-value]

        x, _ = scan_layers(body, x, params, full_L, remat=self.remat)
        return VisionFeatures(PatchMerger(cfg, *kinds, name="projector")(x))

"""A vision-language model: tower, token embedding, decoder and head behind five pure methods."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from urt_jax.models.config import ModelConfig
from urt_jax.models.decoder import Decoder
from urt_jax.models.kv_cache import PromptCache, ResponseCache
from urt_jax.models.layers import DType
from urt_jax.models.towers.qwen2_5_vit import Qwen25VisionTower
from urt_jax.ops.masking import segment_mask
from urt_jax.types import Batch, VisionInput


def run(model: "VisionLanguageModel", params: Any, *inputs: Any, method: str, **settings: Any) -> Any:
    """Run one method of the model on a parameter tree; pure, and the one spelling of ``apply`` in this project."""
    return model.apply({"params": params}, *inputs, method=method, **settings)


class VisionLanguageModel(nn.Module):
    """Pictures and text in, hidden states and float32 logits out; trainer and sampler run these same methods.

    ``dtype`` is the dtype of the computation, ``param_dtype`` that of the stored weights.
    """

    config: ModelConfig
    dtype: DType = jnp.float32
    param_dtype: DType = jnp.float32
    remat: str = "none"
    unroll: int = 1

    def setup(self) -> None:
        """Make the tower, the embedding, the decoder, and a head where it is not tied to the embedding."""
        cfg, kinds = self.config.decoder, (self.dtype, self.param_dtype)
        self.vision = Qwen25VisionTower(self.config.vision, *kinds, self.remat)
        shape, param_dtype = (cfg.vocab_size, cfg.width), jnp.dtype(self.param_dtype)
        self.embedding = self.param("embedding", nn.initializers.normal(cfg.width**-0.5), shape, param_dtype)
        self.decoder = Decoder(cfg, *kinds, self.remat, self.unroll)
        if not cfg.tied_head:
            self.head = self.param("head", nn.initializers.normal(cfg.width**-0.5), shape, param_dtype)

    def features(self, vision: VisionInput) -> Float[Array, "E D"]:
        """Encode all frames; row ``i * M + m`` is merged patch m of frame i, as ``Batch.vision_index_BT`` counts."""
        merged = self.vision(vision)
        return merged.reshape(-1, merged.shape[-1])

    def embed(
        self, tokens_BT: Int[Array, "B T"], vision_index_BT: Int[Array, "B T"], features_ED: Float[Array, "E D"] | None
    ) -> Float[Array, "B T D"]:
        """Look tokens up and put features in the places of placeholders (``vision_index_BT >= 0``)."""
        x_BTD = self.embedding[tokens_BT].astype(self.dtype)
        if features_ED is None:
            return x_BTD
        shown = features_ED[jnp.maximum(vision_index_BT, 0)].astype(self.dtype)
        return jnp.where((vision_index_BT >= 0)[..., None], shown, x_BTD)

    def hidden(self, batch: Batch, *, keep_cache: bool = False) -> tuple[Float[Array, "B T D"], PromptCache | None]:
        """Run the whole batch, causal within segments; return normed hidden states and, if wanted, the cache."""
        has_frames = batch.vision.mask_IP.shape[0] > 0
        features = self.features(batch.vision) if has_frames else None
        tokens, segments = jnp.asarray(batch.tokens_BT), jnp.asarray(batch.segments_BT)
        x_BTD = self.embed(tokens, jnp.asarray(batch.vision_index_BT), features)
        index_T = jnp.arange(tokens.shape[1])
        mask = segment_mask(segments, segments, index_T, index_T)
        return self.decoder(x_BTD, jnp.asarray(batch.positions_3BT), jnp.asarray(mask), keep_cache=keep_cache)

    def decode(
        self,
        tokens_B: Int[Array, " B"],
        positions_3B: Int[Array, "3 B"],
        prompt: PromptCache,
        past: ResponseCache,
        prompt_mask_QS: Array,
        past_mask_U: Array,
    ) -> tuple[Float[Array, "B D"], ResponseCache]:
        """Run one new text token per row; return its hidden state and its keys and values, not yet written."""
        x_BD = self.embedding[tokens_B].astype(self.dtype)
        return self.decoder.decode(x_BD, positions_3B, prompt, past, prompt_mask_QS, past_mask_U)

    def head_weight(self) -> Float[Array, "V D"]:
        """Return the output matrix, which is the embedding when tied."""
        return self.embedding if self.config.decoder.tied_head else self.head

    def logits(self, hidden: Float[Array, "*leading D"]) -> Float[Array, "*leading V"]:
        """Return float32 logits; the product accumulates in float32 in trainer and sampler alike."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        weight = self.head_weight().astype(self.dtype)
        out = jnp.einsum("XD,VD->XV", flat, weight, preferred_element_type=jnp.float32)
        return out.reshape(*hidden.shape[:-1], -1)

    def __call__(self, batch: Batch) -> Float[Array, "B T V"]:
        """Return the logits of every position (for parity and debugging; training never forms them)."""
        return self.logits(self.hidden(batch)[0])

"""One layer of the Qwen2 / Qwen3 decoder: pre-norm, with grouped-query attention and rotary positions.

Qwen2 has biases on query, key and value; Qwen3 normalises queries and keys instead (arXiv 2505.09388, section 2).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from urt_jax.models.attention import backend
from urt_jax.models.config import DecoderConfig
from urt_jax.models.kv_cache import KeyValues
from urt_jax.models.layers import DType, GatedMLP, Linear, RMSNorm
from urt_jax.ops.attention import attend, attend_group
from urt_jax.ops.rope import Rotation, rotate
from urt_jax.sharding.activations import gather_tokens


class Attention(nn.Module):
    """Grouped-query self-attention over whole sequences, or of one new token over a shared-prompt cache."""

    config: DecoderConfig
    dtype: DType = jnp.float32
    param_dtype: DType = jnp.float32
    backend: str = "xla"  # attention backend of whole rows, see ``models.attention``

    def setup(self) -> None:
        """Make the four projections, and the query and key norms if the model has them."""
        cfg, kinds = self.config, (self.dtype, self.param_dtype)
        self.q = Linear(cfg.query_heads * cfg.head_width, cfg.qkv_bias, *kinds)
        self.k = Linear(cfg.kv_heads * cfg.head_width, cfg.qkv_bias, *kinds)
        self.v = Linear(cfg.kv_heads * cfg.head_width, cfg.qkv_bias, *kinds)
        self.o = Linear(cfg.width, False, *kinds)
        if cfg.qk_norm:
            self.q_norm, self.k_norm = (RMSNorm(cfg.norm_eps, *kinds) for _ in range(2))

    def _queries(self, x: Float[Array, "B T D"], turn: Rotation) -> Float[Array, "B T N H"]:
        """Return rotated queries."""
        query = self._heads(self.q, x)
        return rotate(self.q_norm(query) if self.config.qk_norm else query, turn)

    def _whole_keys(self, x: Float[Array, "B T D"], turn: Rotation) -> tuple[Array, Array]:
        """Return ``_keys`` of all tokens of a row, gathered where a mesh splits them."""
        key, value = self._keys(x, turn)
        return gather_tokens(key, "heads"), gather_tokens(value, "heads")

    def _keys(self, x: Float[Array, "B T D"], turn: Rotation) -> tuple[Array, Array]:
        """Return rotated keys and values ``[B, T, K, H]``."""
        key, value = self._heads(self.k, x), self._heads(self.v, x)
        return rotate(self.k_norm(key) if self.config.qk_norm else key, turn), value

    def _heads(self, linear: Linear, x: Float[Array, "B T D"]) -> Float[Array, "B T heads H"]:
        return linear(x).reshape(*x.shape[:2], -1, self.config.head_width)

    def __call__(self, x: Float[Array, "B T D"], turn: Rotation, mask: Any) -> tuple[Array, KeyValues]:
        """Return the output, and the keys and values in the layout of a cache; ``mask`` is the backend's own."""
        query, (key, value) = self._queries(x, turn), self._whole_keys(x, turn)
        seen = backend(self.backend).attend(query, key, value, mask)
        return self.o(seen.reshape(*x.shape[:2], -1)), _cached(key, value)

    def end(
        self, x: Float[Array, "Q S D"], turn: Rotation, mask: Bool[Array, "Q S"]
    ) -> tuple[Float[Array, "Q 1 D"], KeyValues]:
        """Return the output of ``__call__`` for the last token of left-padded prompts, and their keys and values."""
        key, value = self._whole_keys(x, turn)
        query = self._queries(x[:, -1:], jax.tree.map(lambda part: part[:, -1:], turn))
        seen = attend(query, key, value, mask[:, None])
        return self.o(seen.reshape(*seen.shape[:2], -1)), _cached(key, value)

    def extend(
        self,
        x: Float[Array, "B U D"],
        turn: Rotation,
        prompt: KeyValues,
        prompt_mask: Bool[Array, "Q S"],
        own_mask: Any,
    ) -> tuple[Array, KeyValues]:
        """Return the output for whole responses, and their cache; ``prompt`` is the cache of their Q shared prompts."""
        query, (key, value) = self._queries(x, turn), self._whole_keys(x, turn)
        seen = backend(self.backend).extend(query, key, value, *prompt, prompt_mask, own_mask)
        return self.o(seen.reshape(*x.shape[:2], -1)), _cached(key, value)

    def project_token(self, x: Float[Array, "B 1 D"], turn: Rotation) -> tuple[Array, KeyValues]:
        """Return the query ``[B, N, H]`` of one new token per row, and its key and value for the cache."""
        return self._queries(x, turn)[:, 0], _cached(*self._keys(x, turn))

    def attend_token(
        self,
        query: Float[Array, "B N H"],
        prompt: KeyValues,
        past: KeyValues,
        prompt_mask: Bool[Array, "Q S"],
        past_mask: Bool[Array, "B U"],
    ) -> Float[Array, "B 1 D"]:
        """Return the output for one new token per row, whose own key and value are already in ``past``."""
        seen = attend_group(query, *prompt, *past, prompt_mask, past_mask)
        return self.o(seen.reshape(query.shape[0], 1, -1))


def _cached(key_BTKH: Float[Array, "B T K H"], value_BTKH: Float[Array, "B T K H"]) -> KeyValues:
    return KeyValues(key_BTKH.transpose(0, 2, 3, 1), value_BTKH.swapaxes(1, 2))


class DecoderLayer(nn.Module):
    """One pre-norm layer of kind "attention"."""

    config: DecoderConfig
    dtype: DType = jnp.float32
    param_dtype: DType = jnp.float32
    backend: str = "xla"

    def setup(self) -> None:
        """Make the attention, the MLP and their norms."""
        cfg, kinds = self.config, (self.dtype, self.param_dtype)
        self.input_norm = RMSNorm(cfg.norm_eps, *kinds)
        self.attention = Attention(cfg, *kinds, self.backend)
        self.post_norm = RMSNorm(cfg.norm_eps, *kinds)
        self.mlp = GatedMLP(cfg.feed_forward, False, *kinds)

    def _finish(self, x: Array, attended: Array) -> Array:
        x = x + attended
        return x + self.mlp(self.post_norm(x))

    def __call__(self, x: Array, turn: Rotation, mask: Any) -> tuple[Array, KeyValues]:
        """Run the layer over whole sequences; see Attention for shapes."""
        attended, cache = self.attention(self.input_norm(x), turn, mask)
        return self._finish(x, attended), cache

    def end(self, x_QSD: Array, turn: Rotation, mask_QS: Array) -> tuple[Array, KeyValues]:
        """Run the decoder's last layer over left-padded prompts; return the output of their last token only.

        The other tokens need no output, only their keys and values for the cache.
        """
        attended, cache = self.attention.end(self.input_norm(x_QSD), turn, mask_QS)
        return self._finish(x_QSD[:, -1:], attended), cache

    def with_responses(
        self,
        x_QSD: Array,
        x_BUD: Array,
        turns: tuple[Rotation, Rotation],
        masks: tuple[Any, Array, Any],
        *,
        last: bool = False,
    ) -> tuple[Array, Array]:
        """Run the layer over Q prompts once and over their responses, which attend to them; see ``Decoder``.

        In the ``last`` layer the prompts' output is that of ``end``.
        """
        mask, prompt_mask_QS, own_mask = masks
        prompts, keys = self.end(x_QSD, turns[0], prompt_mask_QS) if last else self(x_QSD, turns[0], mask)
        return prompts, self.extend(x_BUD, turns[1], keys, prompt_mask_QS, own_mask)[0]

    def extend(
        self, x_BUD: Array, turn: Rotation, prompt: KeyValues, prompt_mask_QS: Array, own_mask: Any
    ) -> tuple[Array, KeyValues]:
        """Run the layer over whole responses that share Q prompts; see Attention for shapes."""
        attended, new = self.attention.extend(self.input_norm(x_BUD), turn, prompt, prompt_mask_QS, own_mask)
        return self._finish(x_BUD, attended), new

    def project_token(self, x: Array, turn: Rotation) -> tuple[Array, KeyValues]:
        """Run the first part of the layer on one new token per row; see Attention for shapes."""
        return self.attention.project_token(self.input_norm(x), turn)

    def finish_token(self, x: Array, query: Array, prompt: KeyValues, past: KeyValues, *masks: Array) -> Array:
        """Run the rest of the layer, once the token's key and value are in the cache."""
        return self._finish(x, self.attention.attend_token(query, prompt, past, *masks))

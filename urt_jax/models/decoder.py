"""The Qwen2 / Qwen3 decoder: pre-norm layers with grouped-query attention and multimodal rotary positions.

Qwen2 has biases on query, key and value; Qwen3 normalises queries and keys instead (arXiv 2505.09388, section 2).
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from urt_jax.models.attention import backend
from urt_jax.models.config import DecoderConfig
from urt_jax.models.kv_cache import Cache, KeyValues, split_cache, write_token
from urt_jax.models.layers import DType, GatedMLP, Linear, RMSNorm
from urt_jax.models.once import once
from urt_jax.models.stacked import scan_layers, stacked_param
from urt_jax.ops.attention import attend_group
from urt_jax.ops.rope import Rotation, mrope_angles, rotate, rotation
from urt_jax.sharding.activations import gather_tokens, split_tokens


class Injection(NamedTuple):
    """Features added to the hidden states of the places that show them, set k after layer k (DeepStack)."""

    features_KED: Float[Array, "K E D"]
    index_BT: Int[Array, "B T"]  # row of E shown at each place, negative = none


class Attention(nn.Module):
    """Grouped-query self-attention over a whole sequence, or of one new token over a shared-prompt cache."""

    config: DecoderConfig
    dtype: DType = jnp.float32
    param_dtype: DType = jnp.float32
    backend: str = "xla"  # of whole rows, see ``models.attention``

    def setup(self) -> None:
        """Make the four projections, and the norms of queries and keys where the model has them."""
        cfg, kinds = self.config, (self.dtype, self.param_dtype)
        self.q = Linear(cfg.query_heads * cfg.head_width, cfg.qkv_bias, *kinds)
        self.k = Linear(cfg.kv_heads * cfg.head_width, cfg.qkv_bias, *kinds)
        self.v = Linear(cfg.kv_heads * cfg.head_width, cfg.qkv_bias, *kinds)
        self.o = Linear(cfg.width, False, *kinds)
        if cfg.qk_norm:
            self.q_norm, self.k_norm = (RMSNorm(cfg.norm_eps, *kinds) for _ in range(2))

    def project(self, x: Float[Array, "B T D"], turn: Rotation) -> tuple[Array, Array, Array]:
        """Return rotated queries ``[B, T, N, H]``, rotated keys and values ``[B, T, K, H]``."""
        rows, width = x.shape[:2], self.config.head_width
        query, key, value = (linear(x).reshape(*rows, -1, width) for linear in (self.q, self.k, self.v))
        if self.config.qk_norm:
            query, key = self.q_norm(query), self.k_norm(key)
        return rotate(query, turn), rotate(key, turn), value

    def __call__(self, x: Float[Array, "B T D"], turn: Rotation, mask: Any) -> tuple[Array, KeyValues]:
        """Return the output and the keys and values, ready to be a prompt cache; ``mask`` is the backend's own."""
        query, key, value = self.project(x, turn)
        key, value = gather_tokens(key, "heads"), gather_tokens(value, "heads")
        seen = backend(self.backend).attend(query, key, value, mask)
        return self.o(seen.reshape(*x.shape[:2], -1)), _cached(key, value)

    def extend(
        self,
        x: Float[Array, "B U D"],
        turn: Rotation,
        prompt: KeyValues,
        prompt_mask: Bool[Array, "Q S"],
        own_mask: Any,
    ) -> Array:
        """Return the output for whole responses that share Q prompts, whose keys and values ``__call__`` gave."""
        query, key, value = self.project(x, turn)
        key, value = gather_tokens(key, "heads"), gather_tokens(value, "heads")
        seen = backend(self.backend).extend(query, key, value, *prompt, prompt_mask, own_mask)
        return self.o(seen.reshape(*x.shape[:2], -1))

    def project_token(self, x: Float[Array, "B 1 D"], turn: Rotation) -> tuple[Array, KeyValues]:
        """Return the query ``[B, N, H]`` of one new token per row, and its key and value to be written."""
        query, key, value = self.project(x, turn)
        return query[:, 0], _cached(key, value)

    def attend_token(
        self,
        query: Float[Array, "B N H"],
        prompt: KeyValues,
        past: KeyValues,
        prompt_mask: Bool[Array, "Q S"],
        past_mask: Bool[Array, "B U"],
    ) -> Float[Array, "B 1 D"]:
        """Return the output for one new token per row, whose own key and value stand in ``past``."""
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

    def with_responses(
        self, x_QSD: Array, x_BUD: Array, turns: tuple[Rotation, Rotation], masks: tuple[Any, Array, Any]
    ) -> tuple[Array, Array]:
        """Run the layer over Q prompts once and over their responses, which attend to them; see ``Decoder``."""
        mask, prompt_mask_QS, own_mask = masks
        attended, keys = self.attention(self.input_norm(x_QSD), turns[0], mask)
        extended = self.attention.extend(self.input_norm(x_BUD), turns[1], keys, prompt_mask_QS, own_mask)
        return self._finish(x_QSD, attended), self._finish(x_BUD, extended)

    def project_token(self, x: Array, turn: Rotation) -> tuple[Array, KeyValues]:
        """Begin the layer on one new token per row; see Attention for shapes."""
        return self.attention.project_token(self.input_norm(x), turn)

    def finish_token(self, x: Array, query: Array, prompt: KeyValues, past: KeyValues, *masks: Array) -> Array:
        """Run the rest of it, once the token's key and value are written."""
        return self._finish(x, self.attention.attend_token(query, prompt, past, *masks))


def inject(x_BTD: Float[Array, "B T D"], injection: Injection, layer: Int[Array, ""]) -> Float[Array, "B T D"]:
    """Add the features of this layer where they are shown; layers from K on are left as they are."""
    features, index_BT = injection
    count = features.shape[0]

    def added() -> Array:
        shown = features[jnp.minimum(layer, count - 1)][jnp.maximum(index_BT, 0)].astype(x_BTD.dtype)
        return x_BTD + jnp.where((index_BT >= 0)[..., None], shown, 0)

    return jax.lax.cond(layer < count, added, lambda: x_BTD)


class Decoder(nn.Module):
    """All layers and the last norm; embeddings in, hidden states out.

    The layers repeat ``config.layer_pattern`` and one scan runs over its periods. The one kind published for this
    family is "attention"; another kind brings its own layer and its own cache record.
    """

    config: DecoderConfig
    dtype: DType = jnp.float32
    param_dtype: DType = jnp.float32
    remat: str = "none"
    unroll: int = 1
    backend: str = "xla"  # of the attention of whole rows, see ``models.attention``

    def setup(self) -> None:
        """Stack the layers of each kind in the pattern."""
        cfg, kinds = self.config, (self.dtype, self.param_dtype)
        if cfg.layer_pattern != ("attention",):
            raise ValueError(f"layer_pattern is {cfg.layer_pattern}; the only known pattern is ('attention',)")
        self.layer = DecoderLayer(cfg, *kinds, self.backend, parent=None)
        probe = (
            jnp.zeros((1, 1, cfg.width), self.dtype),
            rotation(jnp.zeros((1, 1, cfg.head_width // 2))),
            jnp.ones((1, 1, 1), bool),
        )
        plain = DecoderLayer(cfg, *kinds, parent=None)  # draws the same weights
        self.layers = stacked_param(self, "layers", plain, cfg.periods, *probe)
        self.norm = RMSNorm(cfg.norm_eps, *kinds)

    def _turn(self, positions_3BT: Int[Array, "3 B T"]) -> Rotation:
        cfg = self.config
        angles_BTh = mrope_angles(
            positions_3BT,
            head_width=cfg.head_width,
            theta=cfg.rope_theta,
            section=cfg.mrope_section,
            interleaved=cfg.mrope_interleaved,
        )
        return once(rotation, angles_BTh)

    def __call__(
        self,
        x_BTD: Float[Array, "B T D"],
        positions_3BT: Int[Array, "3 B T"],
        mask: Any,
        injection: Injection | None = None,
        *,
        keep_cache: bool = False,
    ) -> tuple[Float[Array, "B T D"], KeyValues | None]:
        """Return normed hidden states, and with ``keep_cache`` the keys and values of every position.

        ``mask`` is what the attention's backend makes of the rows' segments; of "xla" it is ``Bool[B, T, T]``.
        """
        turn = self._turn(positions_3BT)

        def body(x: Array, params: Any, index: Array) -> tuple[Array, Any]:
            x, cache = self.layer.apply({"params": params}, split_tokens(x), turn, mask)
            x = x if injection is None else inject(x, injection, index)
            return x, split_cache(cache, "tokens") if keep_cache else None  # type: ignore[arg-type]

        counted = jnp.arange(self.config.layers)
        x_BTD, caches = scan_layers(body, x_BTD, self.layers, counted, remat=self.remat, unroll=self.unroll)
        return self.norm(split_tokens(x_BTD)), caches

    def with_responses(
        self,
        x_QSD: Float[Array, "Q S D"],
        x_BUD: Float[Array, "B U D"],
        positions: tuple[Int[Array, "3 Q S"], Int[Array, "3 B U"]],
        masks: tuple[Any, Bool[Array, "Q S"], Any],
        injection: Injection | None = None,
    ) -> tuple[Float[Array, "Q S D"], Float[Array, "B U D"]]:
        """Return normed hidden states of Q prompts and of their ``B = Q * R`` responses; each prompt is run once.

        ``masks`` are the prompts' own, which of their columns are real, and the responses' own. Only prompts show
        pictures, so only they get an ``injection``.
        """
        turns = (self._turn(positions[0]), self._turn(positions[1]))

        def body(carry: tuple[Array, Array], params: Any, index: Array) -> tuple[Any, None]:
            carry = (split_tokens(carry[0]), split_tokens(carry[1]))
            prompts, rows = self.layer.apply(
                {"params": params}, *carry, turns, masks, method=DecoderLayer.with_responses
            )
            return (prompts if injection is None else inject(prompts, injection, index), rows), None

        counted, both = jnp.arange(self.config.layers), (x_QSD, x_BUD)
        both, _ = scan_layers(body, both, self.layers, counted, remat=self.remat, unroll=self.unroll)
        return self.norm(split_tokens(both[0])), self.norm(split_tokens(both[1]))

    def decode(
        self,
        x_BD: Float[Array, "B D"],
        positions_3B: Int[Array, "3 B"],
        prompt: Cache,
        past: Cache,
        slot: Int[Array, ""],
        prompt_mask_QS: Bool[Array, "Q S"],
        past_mask_BU: Bool[Array, "B U"],
    ) -> tuple[Float[Array, "B D"], Cache]:
        """Return the hidden state of one new token per row, and ``past`` with its keys and values at ``slot``.

        ``past_mask_BU`` is True there already. Weights and caches have their layers stacked, or one after the other
        (``unstack_layers``): a loop over tokens then cuts them apart once and not at every token.
        """
        turn, masks = self._turn(positions_3B[..., None]), (prompt_mask_QS, past_mask_BU)

        def begin(params: Any, x: Array) -> tuple[Array, KeyValues]:
            return self.layer.apply({"params": params}, x, turn, method=DecoderLayer.project_token)  # type: ignore[return-value]

        def finish(params: Any, *inputs: Any) -> Array:
            return self.layer.apply({"params": params}, *inputs, *masks, method=DecoderLayer.finish_token)  # type: ignore[return-value]

        x = x_BD[:, None]
        if isinstance(self.layers, tuple):
            written: list[KeyValues] = []
            for params, of_prompt, of_past in zip(self.layers, prompt, past, strict=True):
                query, new = begin(params, x)
                written.append(write_token(of_past, new, slot))  # type: ignore[arg-type]
                x = finish(params, x, query, of_prompt, written[-1])
            return self.norm(x)[:, 0], tuple(written)

        def body(carry: tuple[Array, KeyValues], params: Any, inputs: tuple[Array, KeyValues]) -> tuple[Any, None]:
            (x, past), (layer, of_prompt) = carry, inputs
            query, new = begin(params, x)
            past = write_token(past, new, slot, layer)
            return (finish(params, x, query, of_prompt, jax.tree.map(lambda part: part[layer], past)), past), None

        counted = jnp.arange(self.config.layers)
        (x, past), _ = scan_layers(body, (x, past), self.layers, (counted, prompt), unroll=self.unroll)
        return self.norm(x)[:, 0], past

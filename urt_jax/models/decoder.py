"""The Qwen2 / Qwen3 decoder: a stack of layers of one kind with multimodal rotary positions."""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from urt_jax.models.config import DecoderConfig
from urt_jax.models.decoder_layer import DecoderLayer
from urt_jax.models.kv_cache import Cache, KeyValues, split_cache, write_token
from urt_jax.models.layers import DType, RMSNorm
from urt_jax.models.once import once
from urt_jax.models.stacked import scan_layers, stacked_param
from urt_jax.ops.rope import Rotation, mrope_angles, rotation
from urt_jax.sharding.activations import split_tokens


class Injection(NamedTuple):
    """Features added to the hidden states of picture tokens, set k after layer k (DeepStack)."""

    features_KED: Float[Array, "K E D"]
    index_BT: Int[Array, "B T"]  # each token's row of E, negative = none

    def of_last(self) -> "Injection":
        """Return the injection of each row's last token."""
        return self._replace(index_BT=self.index_BT[:, -1:])


def inject(x_BTD: Float[Array, "B T D"], injection: Injection, layer: Int[Array, ""]) -> Float[Array, "B T D"]:
    """Add the features of this layer to their tokens; layers from K on add none."""
    features, index_BT = injection
    count = features.shape[0]

    def added() -> Array:
        shown = features[jnp.minimum(layer, count - 1)][jnp.maximum(index_BT, 0)].astype(x_BTD.dtype)
        return x_BTD + jnp.where((index_BT >= 0)[..., None], shown, 0)

    injected: Array = jax.lax.cond(layer < count, added, lambda: x_BTD)
    return injected


class Decoder(nn.Module):
    """All layers and the final norm; embeddings in, hidden states out.

    The layers repeat ``config.layer_pattern`` and one scan runs over its periods. The only kind in this family is
    "attention"; another kind would need its own layer and its own cache record.
    """

    config: DecoderConfig
    dtype: DType = jnp.float32
    param_dtype: DType = jnp.float32
    remat: str = "none"
    unroll: int = 1
    backend: str = "xla"  # attention backend of whole rows, see ``models.attention``

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
        plain = DecoderLayer(cfg, *kinds, parent=None)  # initialises the same weights
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
    ) -> Float[Array, "B T D"]:
        """Return normed hidden states.

        ``mask`` is the attention backend's mask of the rows' segments; that of "xla" is ``Bool[B, T, T]``.
        """
        turn = self._turn(positions_3BT)

        def body(x: Array, params: Any, index: Array) -> tuple[Array, None]:
            x, _ = self.layer.apply({"params": params}, split_tokens(x), turn, mask)
            return x if injection is None else inject(x, injection, index), None

        x_BTD, _ = self._through_layers(body, x_BTD)
        return self.norm(split_tokens(x_BTD))

    def _through_layers(self, body: Any, x: Any, last: Any = None) -> tuple[Any, Any]:
        counted = jnp.arange(self.config.layers)
        return scan_layers(body, x, self.layers, counted, remat=self.remat, unroll=self.unroll, last=last)

    def prefill(
        self,
        x_QSD: Float[Array, "Q S D"],
        positions_3QS: Int[Array, "3 Q S"],
        masks: tuple[Any, Bool[Array, "Q S"]],
        injection: Injection | None = None,
    ) -> tuple[Float[Array, "Q D"], KeyValues]:
        """Return the normed hidden state of the last token of left-padded prompts, and their keys and values.

        ``masks`` are the mask of ``__call__`` and the mask of real tokens.
        """
        turn, (mask, real_QS) = self._turn(positions_3QS), masks

        def layer(x: Array, params: Any, index: Array, *, last: bool) -> tuple[Array, KeyValues]:
            seen, method = (real_QS, DecoderLayer.end) if last else (mask, None)
            x, cache = self.layer.apply({"params": params}, split_tokens(x), turn, seen, method=method)
            if injection is not None:
                x = inject(x, injection.of_last() if last else injection, index)
            return x, split_cache(cache, "tokens")  # type: ignore[arg-type]

        x_QSD, caches = self._through_layers(partial(layer, last=False), x_QSD, partial(layer, last=True))
        return self.norm(x_QSD[:, -1]), caches

    def with_responses(
        self,
        x_QSD: Float[Array, "Q S D"],
        x_BUD: Float[Array, "B U D"],
        positions: tuple[Int[Array, "3 Q S"], Int[Array, "3 B U"]],
        masks: tuple[Any, Bool[Array, "Q S"], Any],
        injection: Injection | None = None,
    ) -> tuple[Float[Array, "Q D"], Float[Array, "B U D"]]:
        """Return normed hidden states of Q prompts' last tokens and of all their ``B = Q * R`` responses.

        Each prompt is run once. ``masks`` are the prompts' attention mask, their mask of real tokens, and the
        responses' attention mask. Only prompts show pictures, so only they get an ``injection``.
        """
        turns = (self._turn(positions[0]), self._turn(positions[1]))

        def layer(carry: tuple[Array, Array], params: Any, index: Array, *, last: bool) -> tuple[Any, None]:
            carry = (split_tokens(carry[0]), split_tokens(carry[1]))
            prompts, rows = self.layer.apply(
                {"params": params}, *carry, turns, masks, last=last, method=DecoderLayer.with_responses
            )
            if injection is not None:
                prompts = inject(prompts, injection.of_last() if last else injection, index)
            return (prompts, rows), None

        (prompts, rows), _ = self._through_layers(partial(layer, last=False), (x_QSD, x_BUD), partial(layer, last=True))
        return self.norm(prompts[:, -1]), self.norm(split_tokens(rows))

    def extend(
        self,
        x_BUD: Float[Array, "B U D"],
        positions_3BU: Int[Array, "3 B U"],
        prompt: KeyValues,
        masks: tuple[Bool[Array, "Q S"], Any],
    ) -> tuple[Float[Array, "B D"], KeyValues]:
        """Return the normed hidden state of the last place of texts behind Q prompts, and the texts' keys and values.

        ``masks`` are which slots of the prompts are real, and the texts' own.
        """
        turn = self._turn(positions_3BU)

        def layer(x: Array, params: Any, of_prompt: KeyValues) -> tuple[Array, KeyValues]:
            return self.layer.apply(  # type: ignore[return-value]
                {"params": params}, split_tokens(x), turn, of_prompt, *masks, method=DecoderLayer.extend
            )

        x_BUD, new = scan_layers(layer, x_BUD, self.layers, prompt, unroll=self.unroll)
        return self.norm(x_BUD[:, -1]), new

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

        ``past_mask_BU`` is already True at ``slot``. Weights and caches have their layers stacked, or unstacked
        (``unstack_layers``), so that a loop over tokens slices the layers once and not at every token.
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

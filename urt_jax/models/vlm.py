"""A vision-language model: tower, token embedding, decoder and head behind pure methods."""

from functools import lru_cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from urt_jax.models.attention import CAUSAL, PREFIX, SEGMENTS, backend
from urt_jax.models.config import ModelConfig
from urt_jax.models.decoder import Decoder, Injection
from urt_jax.models.kv_cache import Cache, KeyValues
from urt_jax.models.layers import DType
from urt_jax.models.stacked import unstacked
from urt_jax.models.towers import make_tower
from urt_jax.ops.logprobs import head_logits
from urt_jax.ops.precision import wide
from urt_jax.types import NEWLINE, Batch, FeatureBlend, PromptedRows, VisionFeatures, VisionInput


def run(model: "VisionLanguageModel", params: Any, *inputs: Any, method: str, **settings: Any) -> Any:
    """Run one method of the model on a parameter tree; callers use this instead of ``model.apply``."""
    return model.apply({"params": params}, *inputs, method=method, **settings)


def blended(features_ED: Float[Array, "E D"], blend: FeatureBlend) -> Float[Array, "B T D"]:
    """Return the weighted sums of features in float32, added source by source: ``[B, T, K, D]`` is never formed."""
    kind = wide(features_ED.dtype)
    index_BTK, weight_BTK = jnp.asarray(blend.index_BTK), jnp.asarray(blend.weight_BTK, kind)
    total = jnp.zeros((*index_BTK.shape[:2], features_ED.shape[-1]), kind)
    for source in range(index_BTK.shape[2]):
        taken = features_ED[index_BTK[..., source]].astype(kind)
        total = total + taken * weight_BTK[..., source, None]
    return total


class VisionLanguageModel(nn.Module):
    """Pictures and text in, hidden states and float32 logits out; trainer and sampler run the same methods.

    ``dtype`` is the dtype of the computation, ``param_dtype`` that of the stored weights.
    """

    config: ModelConfig
    dtype: DType = jnp.float32
    param_dtype: DType = jnp.float32
    remat: str = "none"
    unroll: int = 1
    attention: str = "xla"  # attention backend of whole rows, see ``models.attention``

    def setup(self) -> None:
        """Make the tower, the embedding, the decoder, and a head unless it is tied to the embedding."""
        cfg, kinds = self.config.decoder, (self.dtype, self.param_dtype)
        self.vision = make_tower(self.config.vision, *kinds, self.remat)
        shape, param_dtype = (cfg.vocab_size, cfg.width), jnp.dtype(self.param_dtype)
        self.embedding = self.param("embedding", nn.initializers.normal(cfg.width**-0.5), shape, param_dtype)
        self.decoder = Decoder(cfg, *kinds, self.remat, self.unroll, self.attention)
        if not cfg.tied_head:
            self.head = self.param("head", nn.initializers.normal(cfg.width**-0.5), shape, param_dtype)

    def features(self, vision: VisionInput | VisionFeatures) -> VisionFeatures | None:
        """Encode all frames, unless they are already encoded; return None if there are none.

        Row ``i * M + m`` is merged patch m of frame i, as ``Batch.vision_index_BT`` counts.
        """
        if isinstance(vision, VisionFeatures):
            return vision
        return self.vision(vision) if vision.mask_IP.shape[0] else None

    def embed(self, batch: Batch, features: VisionFeatures | None) -> Float[Array, "B T D"]:
        """Embed the tokens; picture tokens become features, weighted sums of features, or line ends."""
        x_BTD = self.embedding[jnp.asarray(batch.tokens_BT)].astype(self.dtype)
        if features is None:
            return x_BTD
        index_BT = jnp.asarray(batch.vision_index_BT)
        if batch.blend is None:
            shown = features.merged_ED[jnp.maximum(index_BT, 0)]
        else:
            shown = blended(features.merged_ED, batch.blend)
        x_BTD = jnp.where((index_BT >= 0)[..., None], shown.astype(self.dtype), x_BTD)
        if features.newline_D is None:
            return x_BTD
        return jnp.where((index_BT == NEWLINE)[..., None], features.newline_D[None, None].astype(self.dtype), x_BTD)

    def _embedded(
        self, batch: Batch, features: VisionFeatures | None
    ) -> tuple[Float[Array, "B T D"], Injection | None]:
        """Return the decoder's input, and the injection if the tower has deep features."""
        features = self.features(batch.vision) if features is None else features
        x_BTD = self.embed(batch, features)
        if features is None or features.deep_KED is None:
            return x_BTD, None
        return x_BTD, Injection(features.deep_KED, jnp.asarray(batch.vision_index_BT))

    def hidden(self, batch: Batch, features: VisionFeatures | None = None) -> Float[Array, "B T D"]:
        """Run the whole batch, causal within segments; return normed hidden states.

        The batch's frames are encoded unless ``features`` gives their encoding.
        """
        x_BTD, injection = self._embedded(batch, features)
        mask = backend(self.attention, CAUSAL, SEGMENTS).mask(jnp.asarray(batch.segments_BT))
        return self.decoder(x_BTD, jnp.asarray(batch.positions_3BT), mask, injection)

    def prefill(self, prompts: Batch, features: VisionFeatures | None = None) -> tuple[Float[Array, "Q D"], KeyValues]:
        """Run Q left-padded prompts; return the normed hidden states of their last tokens, and their cache."""
        segments = jnp.asarray(prompts.segments_BT)
        x_QSD, injection = self._embedded(prompts, features)
        masks = (backend(self.attention, CAUSAL, SEGMENTS).mask(segments), segments > 0)
        return self.decoder.prefill(x_QSD, jnp.asarray(prompts.positions_3BT), masks, injection)

    def hidden_with_responses(
        self, rows: PromptedRows, features: VisionFeatures | None = None
    ) -> tuple[Float[Array, "Q D"], Float[Array, "B U D"]]:
        """Run Q prompts once and their ``B = Q * R`` responses; return normed hidden states.

        They are those of the prompts' last tokens and of all response tokens, equal in value and gradient to ``hidden``
        over every prompt concatenated with each of its responses.
        """
        prompts, tokens = rows.prompts, jnp.asarray(rows.tokens_BU)
        x_QSD, injection = self._embedded(prompts, features)
        x_BUD = self.embedding[tokens].astype(self.dtype)
        segments, own = jnp.asarray(prompts.segments_BT), jnp.asarray(rows.mask_BU).astype(jnp.int32)
        mask_of = backend(self.attention, CAUSAL, SEGMENTS, PREFIX).mask
        masks = (mask_of(segments), segments > 0, mask_of(own))
        responses = tokens.shape[0] // segments.shape[0]
        after_BU = jnp.repeat(jnp.asarray(rows.next_position_Q), responses)[:, None] + jnp.arange(tokens.shape[1])[None]
        positions = (jnp.asarray(prompts.positions_3BT), jnp.broadcast_to(after_BU[None], (3, *after_BU.shape)))
        return self.decoder.with_responses(x_QSD, x_BUD, positions, masks, injection)

    def extend(
        self,
        tokens_BU: Int[Array, "B U"],
        positions_BU: Int[Array, "B U"],
        prompt: KeyValues,
        prompt_mask_QS: Array,
        mask_BU: Array,
    ) -> tuple[Float[Array, "B D"], KeyValues]:
        """Run text tokens behind Q prompts; return the hidden state of each row's last place, and their cache."""
        x_BUD = self.embedding[tokens_BU].astype(self.dtype)
        own = backend(self.attention, CAUSAL, SEGMENTS, PREFIX).mask(jnp.asarray(mask_BU).astype(jnp.int32))
        positions = jnp.broadcast_to(positions_BU[None], (3, *positions_BU.shape))
        return self.decoder.extend(x_BUD, positions, prompt, (prompt_mask_QS, own))

    def decode(
        self,
        tokens_B: Int[Array, " B"],
        positions_3B: Int[Array, "3 B"],
        prompt: Cache,
        past: Cache,
        slot: Array,
        prompt_mask_QS: Array,
        past_mask_BU: Array,
    ) -> tuple[Float[Array, "B D"], Cache]:
        """Run one new text token per row; return its hidden state, and ``past`` with its key and value."""
        x_BD = self.embedding[tokens_B].astype(self.dtype)
        return self.decoder.decode(x_BD, positions_3B, prompt, past, slot, prompt_mask_QS, past_mask_BU)

    def head_weight(self) -> Float[Array, "V D"]:
        """Return the output matrix, which is the embedding when tied."""
        return self.embedding if self.config.decoder.tied_head else self.head

    def logits(self, hidden: Float[Array, "*leading D"]) -> Float[Array, "*leading V"]:
        """Return float32 logits; the product accumulates in float32 in trainer and sampler alike."""
        out = head_logits(hidden.reshape(-1, hidden.shape[-1]), self.head_weight())
        return jnp.reshape(out, (*hidden.shape[:-1], -1))

    def __call__(self, batch: Batch) -> Float[Array, "B T V"]:
        """Return the logits of every token (for parity tests and debugging; training never forms them)."""
        return self.logits(self.hidden(batch))


def unstack_layers(config: ModelConfig, params: Any) -> Any:
    """Return the parameters with the decoder's layers unstacked, for ``decode``."""
    decoder = params["decoder"]
    layers = unstacked(decoder["layers"], config.decoder.layers)
    return {**params, "decoder": {**decoder, "layers": layers}}


def init_params(config: ModelConfig, rng: Array) -> dict[str, Any]:
    """Initialise float32 weights."""
    params: dict[str, Any] = _plain(VisionLanguageModel(config).init(rng, probe_batch(config))["params"])
    return params


def abstract_params(config: ModelConfig) -> dict[str, Any]:
    """Return the shapes and dtypes of the weights without allocating them."""
    shapes: dict[str, Any] = jax.tree.map(lambda shape: shape, _declared(config))  # new dicts: the cached are shared
    return shapes


@lru_cache(16)
def _declared(config: ModelConfig) -> dict[str, Any]:
    # Loading a model needs its shapes twice, and tracing them takes longer than reading a small model.
    shapes: dict[str, Any] = jax.eval_shape(lambda rng: init_params(config, rng), jax.random.key(0))
    return shapes


def probe_batch(config: ModelConfig) -> Batch:
    """Return the smallest batch that touches every weight: one token and one merged patch."""
    patches = config.vision.merge_size**2
    ones = jnp.ones((1, 1), jnp.int32)
    return Batch(
        tokens_BT=ones,
        positions_3BT=jnp.zeros((3, 1, 1), jnp.int32),
        segments_BT=ones,
        vision_index_BT=ones * 0,
        vision=VisionInput(
            jnp.zeros((1, patches, config.vision.patch_features)),
            jnp.zeros((1, patches, 2), jnp.int32),
            jnp.ones((1, patches), bool),
        ),
    )


def _plain(tree: Any) -> Any:
    return {key: _plain(value) for key, value in tree.items()} if hasattr(tree, "items") else tree

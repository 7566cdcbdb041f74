"""Floors by formula: the products and the memory traffic that a phase cannot do without (arXiv 0904.0241, roofline).

A product of ``[m, k]`` and ``[k, n]`` counts ``2 m k n`` floating-point operations. Only what the mathematics needs is
counted: unmasked pairs of attention, each prompt once, the head where a token is predicted, no recomputation. Norms,
activations, softmax and the traffic of activations are left out, so that a floor is below what any program can reach.
"""

from dataclasses import dataclass

from urt_jax.models.config import DecoderConfig, ModelConfig, WindowedVisionConfig
from urt_jax.planning.workloads import Workload

BACKWARD = 2  # a trained product is followed by two more of its size: for its input and for its weight
OPTIMIZER_PASSES = (
    8  # over trained weights: gradient written and read, AdamW's moments and the weights read and written
)


@dataclass(frozen=True)
class Work:
    """Floating-point operations and bytes moved to or from memory; works add up."""

    flops: float
    bytes: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.bytes + other.bytes)


@dataclass(frozen=True)
class Rates:
    """What the machine was measured to do: operations and bytes a second."""

    flops: float
    bandwidth: float


def floor_seconds(work: Work, rates: Rates) -> float:
    """Return the least time for the work: products and traffic overlap perfectly, the longer one counts."""
    return max(work.flops / rates.flops, work.bytes / rates.bandwidth)


def decoder_weights(config: DecoderConfig) -> int:
    """Return the entries of all matrices of all layers, without embedding and head."""
    attended = config.head_width * (2 * config.query_heads + 2 * config.kv_heads)
    return config.layers * config.width * (attended + 3 * config.feed_forward)


def head_weights(config: DecoderConfig) -> int:
    """Return the entries of the output matrix."""
    return config.vocab_size * config.width


def tower_weights(tower: WindowedVisionConfig) -> int:
    """Return the entries of all matrices of the vision tower with its merger."""
    width, joined = tower.width, tower.width * tower.merge_size**2
    layers = tower.depth * width * (4 * width + 3 * tower.feed_forward)
    return tower.patch_features * width + layers + joined * (joined + tower.out_width)


def decoder_flops(config: DecoderConfig, *, tokens: int, pairs: int) -> float:
    """Return the operations of all layers over ``tokens``, whose queries see ``pairs`` (query, key) pairs in all."""
    attention = 4 * config.layers * config.query_heads * config.head_width * pairs  # scores, and the weighted sum
    return 2 * tokens * decoder_weights(config) + attention


def tower_flops(tower: WindowedVisionConfig, *, frames: int, side: int) -> float:
    """Return the operations of the tower over square frames of ``side`` patches; windows at the edge may be smaller."""
    width, patches, merged = tower.width, side * side, (side // tower.merge_size) ** 2
    full = sum(layer in tower.full_attention_layers for layer in range(tower.depth))
    window = tower.window_merged * tower.merge_size
    edges = [window] * (side // window) + ([side % window] if side % window else [])
    pairs = full * patches**2 + (tower.depth - full) * sum((a * b) ** 2 for a in edges for b in edges)
    per_patch = tower.patch_features * width + tower.depth * width * (4 * width + 3 * tower.feed_forward)
    joined = width * tower.merge_size**2
    return frames * (2 * patches * per_patch + 4 * width * pairs + 2 * merged * joined * (joined + tower.out_width))


def prefill_work(work: Workload, *, itemsize: int) -> Work:
    """Return what encoding the pictures and running each prompt once takes, its first logits not counted."""
    config, rows = work.config, work.rows
    tower = _tower(config)
    flops = rows.questions * _prompt_flops(work)
    return Work(flops, itemsize * (decoder_weights(config.decoder) + tower_weights(tower)))


def decode_work(work: Workload, *, itemsize: int) -> Work:
    """Return what choosing U tokens for each row takes: U head products, and U - 1 more tokens through the layers.

    Each step reads the weights once, each question's prompt cache once, and each row's own tokens so far.
    """
    decoder, rows = work.config.decoder, work.rows
    batch, steps = rows.questions * rows.responses, rows.new_tokens - 1
    own = steps * (steps + 1) // 2  # tokens of its own that a row sees over all steps, each step's token included
    flops = decoder_flops(decoder, tokens=batch * steps, pairs=batch * (steps * rows.prompt_tokens + own))
    flops += 2 * rows.completions * head_weights(decoder)
    entry = 2 * decoder.layers * decoder.kv_heads * decoder.head_width  # key and value of one token
    caches = entry * (steps * rows.questions * rows.prompt_tokens + batch * own)
    read = steps * decoder_weights(decoder) + rows.new_tokens * head_weights(decoder) + caches
    return Work(flops, itemsize * read)


def sft_work(work: Workload, *, itemsize: int, trained_itemsize: int = 4) -> Work:
    """Return what one SFT step takes: language model trained, tower frozen, the head over response tokens alone."""
    rows, decoder = work.rows, work.config.decoder
    tokens = rows.prompt_tokens + rows.new_tokens
    forward = decoder_flops(decoder, tokens=tokens, pairs=_causal(tokens)) + 2 * rows.new_tokens * head_weights(decoder)
    flops = rows.sft_rows * ((1 + BACKWARD) * forward + _picture_flops(work))
    return Work(flops, _training_bytes(work.config, itemsize, trained_itemsize))


def update_work(work: Workload, *, itemsize: int, trained_itemsize: int = 4) -> Work:
    """Return what one GRPO update takes where every prompt is run once, forward and backward, for all its responses."""
    rows, decoder = work.rows, work.config.decoder
    batch, length = rows.questions * rows.responses, rows.new_tokens
    pairs = batch * (_causal(length) + length * rows.prompt_tokens) + rows.questions * _causal(rows.prompt_tokens)
    tokens = rows.completions + rows.questions * rows.prompt_tokens
    forward = decoder_flops(decoder, tokens=tokens, pairs=pairs) + 2 * rows.completions * head_weights(decoder)
    flops = (1 + BACKWARD) * forward + rows.questions * _picture_flops(work)
    return Work(flops, _training_bytes(work.config, itemsize, trained_itemsize))


def _training_bytes(config: ModelConfig, itemsize: int, trained_itemsize: int) -> float:
    """Return the traffic of weights: read forward and backward, then the optimizer's passes over the trained ones."""
    decoder, tied = config.decoder, config.decoder.tied_head
    read = 2 * (decoder_weights(decoder) + head_weights(decoder)) + tower_weights(_tower(config))
    trained = decoder_weights(decoder) + head_weights(decoder) * (1 if tied else 2)
    return itemsize * read + trained_itemsize * OPTIMIZER_PASSES * trained


def _prompt_flops(work: Workload) -> float:
    tokens = work.rows.prompt_tokens
    return decoder_flops(work.config.decoder, tokens=tokens, pairs=_causal(tokens)) + _picture_flops(work)


def _picture_flops(work: Workload) -> float:
    tower = _tower(work.config)
    return tower_flops(tower, frames=work.rows.pictures, side=work.rows.picture_side // tower.patch_size)


def _tower(config: ModelConfig) -> WindowedVisionConfig:
    if not isinstance(config.vision, WindowedVisionConfig):
        raise TypeError(f"floors are counted for windowed towers, got a {type(config.vision).__name__}")
    return config.vision


def _causal(tokens: int) -> int:
    """Return the pairs of a causal sequence."""
    return tokens * (tokens + 1) // 2

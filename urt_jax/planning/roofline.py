"""Floors by formula: the least products and memory traffic that a phase needs (arXiv 0904.0241, roofline).

A product of ``[m, k]`` and ``[k, n]`` counts ``2 m k n`` floating-point operations. Only the mathematically necessary
work is counted: unmasked pairs of attention, each prompt and each picture once, of a prompt's last layer only the
values that are read, the head only at predicted tokens, no recomputation. Norms, activations, softmax and the traffic
of activations are left out, so that no program can be faster than its floor.
"""

from dataclasses import dataclass

from urt_jax.models.config import (
    DecoderConfig,
    DeepStackVisionConfig,
    TileVisionConfig,
    VisionConfig,
    WindowedVisionConfig,
)
from urt_jax.planning.workloads import Workload

BACKWARD = 2  # products of the backward pass per trained product: for its input and for its weight
OPTIMIZER_PASSES = (
    8  # passes over trained weights: gradient written and read, AdamW's moments and the weights read and written
)


@dataclass(frozen=True)
class Work:
    """Floating-point operations, and bytes moved to or from memory; records can be added."""

    flops: float
    bytes: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.bytes + other.bytes)


@dataclass(frozen=True)
class Rates:
    """Measured rates of the machine: operations and bytes per second."""

    flops: float
    bandwidth: float


def floor_seconds(work: Work, rates: Rates) -> float:
    """Return the least seconds for the work: products and traffic overlap perfectly, so the longer of the two."""
    return max(work.flops / rates.flops, work.bytes / rates.bandwidth)


def decoder_weights(config: DecoderConfig) -> int:
    """Return the entries of all matrices of all layers, without embedding and head."""
    attended = config.head_width * (2 * config.query_heads + 2 * config.kv_heads)
    return config.layers * config.width * (attended + 3 * config.feed_forward)


def head_weights(config: DecoderConfig) -> int:
    """Return the entries of the output matrix."""
    return config.vocab_size * config.width


def tower_weights(tower: VisionConfig) -> int:
    """Return the entries of all matrices of the vision tower and its projector."""
    layers = _tower_layers(tower) * _tower_layer_weights(tower)
    return tower.patch_features * tower.width + layers + _projectors(tower) * _projector_weights(tower)


def decoder_flops(config: DecoderConfig, *, tokens: float, pairs: float) -> float:
    """Return the operations of all layers over ``tokens`` tokens with ``pairs`` (query, key) pairs in total."""
    attention = 4 * config.layers * config.query_heads * config.head_width * pairs  # scores, and the weighted sum
    return 2 * tokens * decoder_weights(config) + attention


def prompt_flops(config: DecoderConfig, tokens: int) -> float:
    """Return the operations of all layers over one prompt; the last layer needs only keys, values and one output."""
    kept = 2 * config.width * config.kv_heads * config.head_width
    unread = (tokens - 1) * (decoder_weights(config) / config.layers - kept)
    unseen = config.query_heads * config.head_width * (causal_pairs(tokens) - tokens)
    return decoder_flops(config, tokens=tokens, pairs=causal_pairs(tokens)) - 2 * unread - 4 * unseen


def tower_flops(tower: VisionConfig, *, frames: int, side: int) -> float:
    """Return the operations of the tower over square frames of ``side`` patches; windows at the edge may be smaller."""
    width, patches, merged = tower.width, side * side, (side // tower.merge_size) ** 2
    per_patch = tower.patch_features * width + _tower_layers(tower) * _tower_layer_weights(tower)
    projected = merged * _projectors(tower) * _projector_weights(tower)
    return frames * (2 * patches * per_patch + 4 * width * _tower_pairs(tower, side) + 2 * projected)


def picture_side(tower: VisionConfig, pixels: int) -> int:
    """Return the patches along one side of a square picture; a tower of tiles resizes a picture to one tile."""
    return tower.tile_side if isinstance(tower, TileVisionConfig) else pixels // tower.patch_size


def _tower_layers(tower: VisionConfig) -> int:
    return tower.feature_layer if isinstance(tower, TileVisionConfig) else tower.depth


def _tower_layer_weights(tower: VisionConfig) -> int:
    matrices = 3 if isinstance(tower, WindowedVisionConfig) else 2  # of the MLP: gated, or not
    return tower.width * (4 * tower.width + matrices * tower.feed_forward)


def _projectors(tower: VisionConfig) -> int:
    return 1 + (len(tower.deepstack_layers) if isinstance(tower, DeepStackVisionConfig) else 0)


def _projector_weights(tower: VisionConfig) -> int:
    joined = tower.width * tower.merge_size**2
    inner = tower.out_width if isinstance(tower, TileVisionConfig) else joined
    return joined * inner + inner * tower.out_width


def _tower_pairs(tower: VisionConfig, side: int) -> int:
    """Return the (query, key) pairs of all layers over one frame."""
    layers, whole = _tower_layers(tower), side**4
    if not isinstance(tower, WindowedVisionConfig):
        return layers * whole
    full = sum(layer in tower.full_attention_layers for layer in range(layers))
    window = tower.window_merged * tower.merge_size
    edges = [window] * (side // window) + ([side % window] if side % window else [])
    return full * whole + (layers - full) * sum((a * b) ** 2 for a in edges for b in edges)


def prefill_work(work: Workload, *, itemsize: int) -> Work:
    """Return the work of encoding the pictures and running each prompt once, without its first logits."""
    config, rows = work.config, work.rows
    flops = rows.questions * (prompt_flops(config.decoder, rows.prompt_tokens) + picture_flops(work))
    return Work(flops, itemsize * (decoder_weights(config.decoder) + tower_weights(config.vision)))


def decode_work(work: Workload, *, itemsize: int) -> Work:
    """Return the work of choosing U tokens for each row: U head products, and U - 1 tokens through the layers.

    Each step reads the weights once, each question's prompt cache once, and each row's own tokens so far.
    """
    decoder, rows = work.config.decoder, work.rows
    batch, steps = rows.questions * rows.responses, rows.new_tokens - 1
    own = steps * (steps + 1) // 2  # response tokens that a row reads over all steps, each step's token included
    flops = decoder_flops(decoder, tokens=batch * steps, pairs=batch * (steps * rows.prompt_tokens + own))
    flops += 2 * rows.completions * head_weights(decoder)
    entry = 2 * decoder.layers * decoder.kv_heads * decoder.head_width  # key and value of one token
    caches = entry * (steps * rows.questions * rows.prompt_tokens + batch * own)
    read = steps * decoder_weights(decoder) + rows.new_tokens * head_weights(decoder) + caches
    return Work(flops, itemsize * read)


def sft_work(work: Workload, *, itemsize: int, trained_itemsize: int = 4) -> Work:
    """Return the work of one SFT step: language model trained, tower frozen, the head over response tokens only."""
    rows, decoder = work.rows, work.config.decoder
    tokens = rows.prompt_tokens + rows.new_tokens
    forward = decoder_flops(decoder, tokens=tokens, pairs=causal_pairs(tokens)) + 2 * rows.new_tokens * head_weights(
        decoder
    )
    flops = rows.sft_rows * ((1 + BACKWARD) * forward + picture_flops(work))
    tower = itemsize * tower_weights(work.config.vision)
    return Work(flops, tower + _training_bytes(decoder, itemsize, trained_itemsize))


def update_work(work: Workload, *, itemsize: int, trained_itemsize: int = 4) -> Work:
    """Return the work of one GRPO update in which each prompt runs once, forward and backward, for all its responses.

    The tower is frozen, and the rollout has encoded the pictures.
    """
    rows, decoder = work.rows, work.config.decoder
    batch, length = rows.questions * rows.responses, rows.new_tokens
    pairs = batch * (causal_pairs(length) + length * rows.prompt_tokens)
    forward = decoder_flops(decoder, tokens=rows.completions, pairs=pairs)
    forward += rows.questions * prompt_flops(decoder, rows.prompt_tokens)
    forward += 2 * rows.completions * head_weights(decoder)
    return Work((1 + BACKWARD) * forward, _training_bytes(decoder, itemsize, trained_itemsize))


def _training_bytes(decoder: DecoderConfig, itemsize: int, trained_itemsize: int) -> float:
    """Return the traffic of the language model's weights: read forward and backward, then the optimizer's passes."""
    read = 2 * (decoder_weights(decoder) + head_weights(decoder))
    trained = decoder_weights(decoder) + head_weights(decoder) * (1 if decoder.tied_head else 2)
    return itemsize * read + trained_itemsize * OPTIMIZER_PASSES * trained


def picture_flops(work: Workload) -> float:
    """Return the operations of the tower over the pictures of one prompt."""
    tower, rows = work.config.vision, work.rows
    return tower_flops(tower, frames=rows.pictures, side=picture_side(tower, rows.picture_side))


def causal_pairs(tokens: int) -> int:
    """Return the number of unmasked (query, key) pairs of a causal sequence."""
    return tokens * (tokens + 1) // 2

"""Memory of a program on one chip, by formula, part by part.

The state is exact, by the table of rules. Temporaries are those at the peak, the backward pass of one layer: the kept
inputs of all layers (remat "full"), and that layer's attention scores, MLP and gathered weights. The number of copies
that the compiler holds of each was fitted to programs compiled for TPUs (named at the constants below). Over
``sequence`` a chip holds only its own tokens, but gathers all keys and values, layer by layer.
"""

from dataclasses import replace
from typing import Literal

from urt_jax.models.config import DecoderConfig
from urt_jax.planning.layout import Attention, Layout, held_entries
from urt_jax.planning.roofline import causal_pairs, decoder_weights, picture_side, tower_weights
from urt_jax.planning.workloads import Workload

Parts = dict[str, float]
Program = Literal["sft", "grpo", "score", "prefill", "decode"]
PROGRAMS: tuple[Program, ...] = ("sft", "grpo", "score", "prefill", "decode")

COMPUTED, STORED = 2, 4  # bytes of a number in bfloat16 and float32
HEAD_TOKENS = 1024  # tokens of one chip per piece of the head's product
BLOCK = 512  # queries and keys per block of attention in blocks
# Fitted to programs at the paper's shapes, compiled for v5p with libtpu 0.0.42.1: Qwen2.5-VL-7B (mesh 1 x 16 x 4 and
# 16 x 1 x 4), Qwen2.5-VL-72B (1 x 32 x 8) and Qwen3-VL-2B (2 x 2 x 2), with whole scores. In blocks (docs/planning.md)
# the formulas of updates are 5 % below to 3 % above the compiled programs, of 0.5B 10 % above, of 72B 14 % above.
SCORE_BYTES = {"sft": 6.5, "grpo": 6.5, "score": 4.5, "prefill": 12.0}  # held for one attention score of one layer
# Gradients that an update in micro-batches holds: their sum and the current one, twice if it is summed over ``data``
# and not scattered. Compiled: 7B 16 x 1 x 4 on v5p, 3B 1 x 4 x 2 on v6e, 7B 1 x 2 x 4 on H100.
MICRO_SUMS = {True: 2, False: 3}
INPUT_COPIES = {"whole": 1.6, "blocks": 1.35}  # copies of the layer inputs kept for the backward pass, by attention
MLP_COPIES = {True: 6, False: 2}  # copies of a layer's feed-forward width, with and without gradient


def program_memory(work: Workload, layout: Layout, program: Program, *, attention: Attention = "whole") -> Parts:
    """Return the parts of a program's memory on one chip, in bytes; parts of 0 bytes are left out.

    ``attention`` is "whole" or "blocks".
    """
    trains = program in ("sft", "grpo")
    entries = held_entries(work.config, layout)
    parts: Parts = {"weights": STORED * (entries.trained + entries.frozen)}
    if program in ("prefill", "decode"):  # which have their own copy of the weights
        parts = {"weights": COMPUTED * sum(held_entries(work.config, replace(layout, fsdp=1, sequence=1)))}
    if trains:
        sums = 1 if pieces_of(work, layout, program) == 1 else MICRO_SUMS[layout.shards > 1]
        parts |= {"moments": 2 * STORED * entries.trained, "gradients": sums * STORED * entries.trained}
    parts |= _decode(work, layout) if program == "decode" else _forward(work, layout, program, trains, attention)
    return {name: size for name, size in parts.items() if size}


def questions_of(work: Workload, program: Program) -> int:
    """Return the questions of one step, the rows in SFT."""
    return work.rows.sft_rows if program == "sft" else work.rows.questions


def pieces_of(work: Workload, layout: Layout, program: Program) -> int:
    """Return the number of pieces, computed one at a time, in which a program computes the questions of a step."""
    return questions_of(work, program) // layout.parts // layout.at_once


def frames_of(work: Workload, layout: Layout, program: Program) -> float:
    """Return the pictures of a step that one chip encodes; they are split over ``sequence`` if they divide evenly."""
    frames, parts = questions_of(work, program) * work.rows.pictures, layout.parts
    return frames / parts / (1 if frames % (parts * layout.sequence) else layout.sequence)


def attention_scores(work: Workload, program: Program) -> float:
    """Return the scores of one head that whole attention computes for one question (SFT: a row), masked or not."""
    prompt, new, responses = work.rows.prompt_tokens, work.rows.new_tokens, work.rows.responses
    if program == "sft":
        return float((prompt + new) ** 2)
    if program == "prefill":
        return float(prompt**2)
    return float(prompt**2 + responses * new * (prompt + new))


def needed_pairs(work: Workload, program: Program) -> float:
    """Return the number of ``attention_scores`` that are not masked."""
    prompt, new, responses = work.rows.prompt_tokens, work.rows.new_tokens, work.rows.responses
    if program == "sft":
        return float(causal_pairs(prompt + new))
    if program == "prefill":
        return float(causal_pairs(prompt))
    return float(causal_pairs(prompt) + responses * (causal_pairs(new) + new * prompt))


def tokens_of(work: Workload, program: Program) -> int:
    """Return the tokens of one question (one row, in SFT) that the layers compute."""
    rows = work.rows
    if program == "sft":
        return rows.prompt_tokens + rows.new_tokens
    return rows.prompt_tokens + (rows.responses * rows.new_tokens if program in ("grpo", "score") else 0)


def cache_bytes(decoder: DecoderConfig, layout: Layout, tokens: float) -> float:
    """Return the bytes of the keys and values of ``tokens`` tokens, in bfloat16, with heads split over ``tensor``."""
    return 2 * COMPUTED * decoder.layers * decoder.kv_heads * decoder.head_width * tokens / layout.tensor


def _forward(work: Workload, layout: Layout, program: Program, trains: bool, attention: Attention) -> Parts:
    decoder, tower, rows = work.config.decoder, work.config.vision, work.rows
    of_rows = layout.at_once * tokens_of(work, program)
    tokens, heads = of_rows / layout.sequence, decoder.query_heads / layout.tensor
    scores = layout.at_once * attention_scores(work, program) / layout.sequence
    if attention == "blocks":
        joined = 1 if program in ("sft", "prefill") else rows.responses  # rows, each with its prompt's keys
        scores = min(scores, layout.at_once * joined * float(BLOCK * (rows.prompt_tokens + rows.new_tokens)))
    layer = decoder_weights(decoder) / decoder.layers
    head = decoder.vocab_size * decoder.width / layout.tensor
    logits = min(HEAD_TOKENS, tokens) * decoder.vocab_size / layout.tensor
    patches = frames_of(work, layout, program) * picture_side(tower, rows.picture_side) ** 2
    gathered = layout.shards > 1 and program != "prefill"
    # If no weights are gathered, all are cast once, before the loop over layers.
    cast = 0.0 if program == "prefill" else COMPUTED * decoder_weights(decoder) / layout.tensor
    heads_whole = 0 if program == "prefill" else (3 if trains else 1) * head  # and its gradient, summed over chunks
    return {
        "layer inputs": COMPUTED * tokens * decoder.width * (INPUT_COPIES[attention] * decoder.layers if trains else 2),
        "attention scores": (SCORE_BYTES[program] * heads + 1) * scores,  # and a byte of mask for all heads
        "one layer": COMPUTED * MLP_COPIES[trains] * tokens * (decoder.feed_forward / layout.tensor + decoder.width),
        "weights in bfloat16": COMPUTED * (layer / layout.tensor + heads_whole) if gathered else cast,
        "logits": 0.0 if program == "prefill" else (3 if trains else 2) * STORED * logits,
        "pictures": STORED * patches * (tower.patch_features + 4 * tower.width)
        + gathered * COMPUTED * tower_weights(tower) / tower.depth,
        "gathered keys": 0.0
        if layout.sequence == 1
        else (1 + trains) * cache_bytes(decoder, layout, of_rows) / decoder.layers,
        "caches": cache_bytes(decoder, layout, tokens) if program == "prefill" else 0.0,
    }


def _decode(work: Workload, layout: Layout) -> Parts:
    """Return the memory of decoding: caches of prompts (each once) and responses, scores, and logits of all rows."""
    decoder, rows = work.config.decoder, work.rows
    batch = layout.at_once * rows.responses
    # Prompt caches exist twice: those of all questions, and those that the current rows read.
    asked = questions_of(work, "decode") // layout.parts + layout.at_once
    prompt = rows.prompt_tokens / layout.sequence
    cached = asked * prompt + batch * rows.new_tokens
    heads = decoder.query_heads / layout.tensor
    return {
        "caches": cache_bytes(decoder, layout, cached),
        "attention scores": 2 * STORED * heads * batch * float(prompt + rows.new_tokens),
        "logits": 4 * STORED * batch * decoder.vocab_size / layout.tensor,
    }

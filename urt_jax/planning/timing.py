"""Seconds of a program on one chip of a slice, by formula: a roofline of each piece, and the bytes between chips.

A piece (layers, attention, head, tower, optimizer) takes the longer of its products and its memory traffic, and the
pieces run in sequence. Gathers of weights and scatters of gradients over ``fsdp`` and ``sequence`` overlap with them;
sums over ``tensor``, and gathers of keys and values over ``sequence``, do not. Products are counted as the program runs
them: with masked scores, and with those that the backward pass recomputes (remat "full").
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from urt_jax.planning.chips import Topology
from urt_jax.planning.layout import Attention, Layout, held_entries, total_entries
from urt_jax.planning.memory import (
    COMPUTED,
    STORED,
    Program,
    attention_scores,
    cache_bytes,
    frames_of,
    needed_pairs,
    pieces_of,
    questions_of,
    tokens_of,
)
from urt_jax.planning.roofline import decoder_flops, decoder_weights, head_weights, picture_flops, tower_weights
from urt_jax.planning.workloads import Workload

# Bytes of memory traffic per attention score: forward only, and with the backward pass and its recomputation.
SCORE_TRAFFIC = {"whole": (16.0, 56.0), "blocks": (0.0, 0.0)}
WIDTHS = 12  # token widths that a layer writes or reads per token, without its feed-forward
SUMS = {True: 8, False: 2}  # sums of a token's width over ``tensor`` per layer: as compiled, with recomputed ones
GATHERS = {True: 2, False: 1}  # gathers of a layer's weights: forward, and backward with its recomputation
FLOAT32_SUMS = 2  # factor on the bytes of ``tensor``'s sums on a GPU, whose compiler computes them in float32
KEYS = {True: 3, False: 1}  # passes of a layer's keys and values: forward, backward, and a scatter of their gradients
HOP = 1e-6  # seconds from one chip to the next: an assumption
MATRICES = 7  # matrices of a layer, gathered one by one
SCATTERS = {"sft": 1, "grpo": 2}  # scatters of a layer's gradient: GRPO's are separate for prompts and responses


@dataclass(frozen=True)
class Attained:
    """The fraction of the published rates that programs attain: an assumption, not a measurement."""

    flops: float = 0.7
    bandwidth: float = 0.8
    links: float = 0.8


@dataclass(frozen=True)
class Speed:
    """Rates of one chip per second: operations, bytes of memory, and bytes received over the axes of the mesh.

    ``fsdp`` is the rate of weights, which are split over ``sequence`` too; ``sequence`` is that of keys and values.
    """

    flops: float
    bandwidth: float
    fsdp: float
    data: float
    tensor: float
    sequence: float = math.inf
    trip: float = 0.0  # latency of one collective over fsdp, in seconds


class Piece(NamedTuple):
    """Part of a program on one chip."""

    name: str
    flops: float
    bytes: float


class Moved(NamedTuple):
    """Bytes that one chip receives."""

    calls: float = 0.0  # number of collectives over fsdp, each with its latency
    gathered: float = 0.0  # weights, over fsdp and sequence
    scattered: float = 0.0  # gradients, over fsdp and sequence
    copied: float = 0.0  # gradients, summed over data
    summed: float = 0.0  # activations, over tensor
    keys: float = 0.0  # keys and values, and their gradients, over sequence

    @property
    def total(self) -> float:
        """All bytes."""
        return sum(self[1:])


@dataclass(frozen=True)
class Phase:
    """One program over all questions of a step, on one chip."""

    pieces: tuple[Piece, ...]
    moved: Moved

    def seconds(self, speed: Speed) -> float:
        """Return the seconds that the program takes."""
        waits = self.moved.summed / speed.tensor + self.moved.keys / speed.sequence
        return max(self._work(speed), self._beside(speed)) + waits

    def limit(self, speed: Speed) -> str:
        """Return the resource that the program waits for most."""
        products = sum(piece.flops for piece in self.pieces) / speed.flops
        work, beside = self._work(speed), self._beside(speed)
        waits = {"products": products, "memory": work - products, "tensor sums": self.moved.summed / speed.tensor}
        waits["keys of other tokens"] = self.moved.keys / speed.sequence
        waits["weights over the links"] = beside if beside > work else 0.0
        return max(waits, key=lambda name: waits[name])

    def _work(self, speed: Speed) -> float:
        return sum(max(piece.flops / speed.flops, piece.bytes / speed.bandwidth) for piece in self.pieces)

    def _beside(self, speed: Speed) -> float:
        moved = self.moved
        weights = (moved.gathered + moved.scattered) / speed.fsdp if moved.gathered or moved.scattered else 0.0
        return weights + moved.calls * speed.trip + (moved.copied / speed.data if moved.copied else 0.0)


def speed_of(topology: Topology, layout: Layout, attained: Attained) -> Speed:
    """Return the rates of one chip; the tensor axis has its own axis of the torus, the others share the rest.

    Keys and values of other tokens are received along one axis.
    """
    chip, links = topology.chip, attained.links
    longest = max(topology.shape) if chip.axes else topology.shape[-1]
    axes = max(chip.axes - (layout.tensor > 1), 1) if chip.axes else 0

    def link(chips: int, axes: int) -> float:
        return links * chip.slice_bandwidth(chips, axes=axes, length=longest)

    hops = axes * layout.shards ** (1 / axes) / 2 if axes else math.log2(layout.shards)
    return Speed(
        attained.flops * chip.flops,
        attained.bandwidth * chip.bandwidth,
        link(layout.tensor * layout.shards, axes),
        link(layout.chips, axes),
        link(layout.tensor, 1) / (1 if chip.axes else FLOAT32_SUMS),
        link(layout.tensor * layout.sequence, 1),
        HOP * hops,
    )


def program_phase(
    work: Workload,
    layout: Layout,
    program: Program,
    *,
    attention: Attention = "whole",
    remat: bool = True,
    computed: int = COMPUTED,
) -> Phase:
    """Return the phase of one program over all questions of a step (rows, in SFT).

    ``attention`` is "whole" or "blocks", ``computed`` the bytes of a number in the computation; without ``remat``
    nothing is recomputed.
    """
    if program == "decode":
        return _decode(work, layout)
    trains, decoder, tower = program in ("sft", "grpo"), work.config.decoder, work.config.vision
    calls = pieces_of(work, layout, program)
    each = questions_of(work, program) / layout.parts / layout.sequence  # questions, or a fraction of one, per chip
    tokens, split = each * tokens_of(work, program), layout.tensor
    passes = (3 + remat) if trains else 1  # forward, its recomputation, and two products backward
    matrices, head = decoder_weights(decoder), head_weights(decoder)
    scores = each * (needed_pairs(work, program) if attention == "blocks" else attention_scores(work, program))
    learnt = layout.sequence * min(work.rows.new_tokens, tokens_of(work, program) / layout.sequence)  # of an SFT row
    per_question = {"sft": learnt, "prefill": 0.0}.get(program, work.rows.responses * work.rows.new_tokens)
    heads = each * per_question
    wide = (decoder.feed_forward * 4 / split + decoder.width * WIDTHS) * decoder.layers
    of_layers = computed * passes * (tokens * wide + calls * matrices / split)
    passed = SCORE_TRAFFIC[attention][trains] - (SCORE_TRAFFIC[attention][0] if trains and not remat else 0.0)
    frames = frames_of(work, layout, program)
    traffic = passed * decoder.layers * decoder.query_heads / split * scores
    pieces = [
        Piece("layers", passes * 2 * tokens * matrices / split, of_layers),
        Piece("attention", passes * decoder_flops(decoder, tokens=0, pairs=scores) / split, traffic),
        Piece(
            "head",
            (4 if trains else 1) * 2 * heads * head / split,
            passes * heads * decoder.vocab_size / split * STORED,
        ),
        Piece("pictures", frames * picture_flops(work) / work.rows.pictures / split, computed * tower_weights(tower)),
    ]
    if trains:
        trained = held_entries(work.config, layout).trained
        pieces.append(Piece("optimizer", 0.0, 8 * STORED * trained))
    pieces = [piece for piece in pieces if piece.flops or piece.bytes]
    return Phase(tuple(pieces), _moved(work, layout, program, tokens=tokens, calls=calls))


def needed_flops(work: Workload, program: Program) -> float:
    """Return a program's mathematically necessary operations over all chips, for MFU: without recomputation."""
    decoder, rows = work.config.decoder, work.rows
    times = questions_of(work, program)
    if program == "decode":
        steps = rows.new_tokens
        pairs = rows.responses * (steps * rows.prompt_tokens + steps * (steps + 1) // 2)
        layers = decoder_flops(decoder, tokens=rows.responses * steps, pairs=pairs)
        return times * (layers + 2 * rows.responses * steps * head_weights(decoder))
    heads = 0 if program == "prefill" else rows.new_tokens * (1 if program == "sft" else rows.responses)
    layers = decoder_flops(decoder, tokens=tokens_of(work, program), pairs=int(needed_pairs(work, program)))
    forward = layers + 2 * heads * head_weights(decoder)
    return times * ((3 if program in ("sft", "grpo") else 1) * forward + picture_flops(work))


def _moved(work: Workload, layout: Layout, program: Program, *, tokens: float, calls: float) -> Moved:
    decoder, trains = work.config.decoder, program in ("sft", "grpo")
    shards = 1 if program == "prefill" else layout.shards  # prefill's weights were gathered for the rollout
    left, matrices = (shards - 1) / shards, decoder_weights(decoder) / layout.tensor
    head = 0.0 if program == "prefill" else head_weights(decoder) / layout.tensor
    gathered = COMPUTED * left * (calls * (GATHERS[trains] * matrices + head) + tower_weights(work.config.vision))
    scattered = STORED * left * calls * (SCATTERS[program] * matrices + head) if trains else 0.0
    trained = total_entries(work.config).trained / layout.tensor / layout.shards
    copied = calls * 2 * STORED * trained * (layout.data - 1) / layout.data if trains else 0.0
    ring = 2 * (layout.tensor - 1) / layout.tensor
    summed = SUMS[trains] * decoder.layers * ring * COMPUTED * tokens * decoder.width
    trips = calls * (GATHERS[trains] + (SCATTERS[program] if trains else 0)) * MATRICES * decoder.layers
    keys = KEYS[trains] * cache_bytes(decoder, layout, tokens * (layout.sequence - 1))
    return Moved(trips if shards > 1 else 0.0, gathered, scattered, copied, summed, keys)


def _decode(work: Workload, layout: Layout) -> Phase:
    """Return the phase of all decoding steps; split weights are gathered once, as a copy for the rollout."""
    decoder, rows, split = work.config.decoder, work.rows, layout.tensor
    calls = pieces_of(work, layout, "decode")
    steps = calls * rows.new_tokens
    batch = layout.at_once * rows.responses
    weights = (decoder_weights(decoder) + head_weights(decoder)) / split
    prompt = rows.prompt_tokens / layout.sequence
    seen = prompt + rows.new_tokens / 2
    cached = cache_bytes(decoder, layout, layout.at_once * prompt + batch * rows.new_tokens / 2)
    pieces = (
        Piece("layers", steps * 2 * batch * weights, steps * weights * COMPUTED),
        Piece("attention", steps * decoder_flops(decoder, tokens=0, pairs=1) * batch * seen / split, steps * cached),
    )
    gathered = COMPUTED * weights * (layout.shards - 1) / layout.shards
    summed = steps * 2 * decoder.layers * COMPUTED * batch * decoder.width * 2 * (split - 1) / split
    trips = MATRICES * decoder.layers if layout.shards > 1 else 0.0
    return Phase(pieces, Moved(calls=trips, gathered=gathered, summed=summed))

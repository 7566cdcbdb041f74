"""Seconds by formula, counted by hand on a chip with round numbers."""

from dataclasses import replace

import pytest

from tests.planning.tiny_plan import LAYER, WORK, tiny_case
from urt_jax.planning.chips import topology
from urt_jax.planning.layout import Layout
from urt_jax.planning.memory import attention_scores, needed_pairs
from urt_jax.planning.roofline import picture_flops
from urt_jax.planning.timing import Attained, Moved, Phase, Piece, Speed, needed_flops, program_phase, speed_of

SPEED = Speed(flops=100.0, bandwidth=10.0, fsdp=1.0, data=1.0, tensor=2.0)


def test_pieces_add_up_and_weights_move_beside_them() -> None:
    pieces = (Piece("a", 200.0, 5.0), Piece("b", 100.0, 30.0))  # 2 s of products, 3 s of traffic
    assert Phase(pieces, Moved()).seconds(SPEED) == 5.0
    assert Phase(pieces, Moved(gathered=4.0)).seconds(SPEED) == 5.0
    assert Phase(pieces, Moved(gathered=4.0, scattered=2.0, summed=6.0)).seconds(SPEED) == 6.0 + 3.0
    assert Phase(pieces, Moved(calls=7.0)).seconds(Speed(100.0, 10.0, 1.0, 1.0, 2.0, trip=1.0)) == 7.0


def test_what_a_phase_waits_for_is_named() -> None:
    products = (Piece("a", 900.0, 1.0),)
    assert Phase(products, Moved()).limit(SPEED) == "products"
    assert Phase((Piece("a", 1.0, 90.0),), Moved()).limit(SPEED) == "memory"
    assert Phase(products, Moved(gathered=20.0)).limit(SPEED) == "weights over the links"
    assert Phase(products, Moved(summed=40.0)).limit(SPEED) == "tensor sums"


def test_the_update_runs_forward_twice_and_backward() -> None:
    layout = Layout(1, 2, 2, at_once=2)
    phase = program_phase(WORK, layout, "grpo")
    pieces = {piece.name: piece for piece in phase.pieces}
    tokens = 4 * 16  # four questions a part, ten prompt tokens and two responses of three each
    assert pieces["layers"].flops == 4 * 2 * tokens * 2 * LAYER / 2
    assert pieces["attention"].flops == 4 * 4 * 2 * 4 * 2 * 4 * attention_scores(WORK, "grpo") / 2
    assert pieces["head"].flops == 4 * 2 * 24 * 16 * 4 / 2
    assert pieces["pictures"].flops == 4 * picture_flops(WORK) / 2
    plain = {piece.name: piece for piece in program_phase(WORK, layout, "grpo", remat=False).pieces}
    assert plain["layers"].flops == pieces["layers"].flops * 3 / 4
    assert plain["head"].flops == pieces["head"].flops  # its chunks are always recomputed


def test_bytes_between_chips_are_those_of_the_compiled_programs() -> None:
    """Two calls of two questions; half of everything is on the other chip of fsdp."""
    moved = program_phase(WORK, Layout(1, 2, 2, at_once=2), "grpo").moved
    head, tower = 16 * 4 / 2, 4 * (1 + 2 * (4 * 4 + 3 * 4)) + 16 * (16 + 4)
    assert moved.gathered == 2 * 0.5 * (2 * (2 * 2 * LAYER / 2 + head) + tower)  # the tower once for all micro-batches
    assert moved.scattered == 4 * 0.5 * 2 * (2 * 2 * LAYER / 2 + head)
    assert moved.copied == 0.0
    assert moved.summed == 8 * 2 * 1.0 * 2 * 64 * 4  # eight sums in each of two layers, 2 (t - 1) / t = 1
    assert program_phase(WORK, Layout(2, 1, 1), "grpo").moved.gathered == 0.0
    assert program_phase(WORK, Layout(2, 1, 1), "grpo").moved.copied > 0.0


def test_over_sequence_keys_are_gathered_and_their_gradients_scattered() -> None:
    whole, split = (program_phase(WORK, Layout(2, 1, 1, 1, size), "grpo") for size in (1, 4))
    assert whole.moved.keys == 0.0
    # Forward, once more, and gradients: keys and values of three quarters of 16 tokens of each of four questions, two
    # layers, two heads of two, bfloat16.
    assert split.moved.keys == 3 * 2 * 2 * 2 * 2 * 2 * (4 * 16 * 3 / 4)
    assert split.moved.gathered > whole.moved.gathered == 0.0
    assert sum(p.flops for p in split.pieces) == pytest.approx(sum(p.flops for p in whole.pieces) / 4)
    assert split.seconds(SPEED) - split.seconds(replace(SPEED, sequence=1.0)) == -split.moved.keys
    assert split.limit(replace(SPEED, sequence=1e-6)) == "keys of other tokens"


def test_decoding_gathers_the_weights_once_and_reads_them_for_every_token() -> None:
    two, one = (program_phase(WORK, Layout(1, 4, 1, at_once=at_once), "decode") for at_once in (2, 1))
    assert two.moved.gathered == one.moved.gathered == 2 * (2 * LAYER + 16 * 4) * 3 / 4
    layers = [next(piece for piece in phase.pieces if piece.name == "layers") for phase in (two, one)]
    assert [piece.bytes for piece in layers] == [3 * 2 * (2 * LAYER + 16 * 4), 6 * 2 * (2 * LAYER + 16 * 4)]


def test_what_is_needed_leaves_out_masks_and_recomputation() -> None:
    layers = 2 * 16 * 2 * LAYER + 4 * 2 * 4 * 2 * needed_pairs(WORK, "grpo")
    assert needed_flops(WORK, "grpo") == 8 * (3 * (layers + 2 * 6 * 16 * 4) + picture_flops(WORK))
    pairs = 2 * (3 * 10 + 6)
    assert needed_flops(WORK, "decode") == 8 * (2 * 6 * 2 * LAYER + 4 * 2 * 4 * 2 * pairs + 2 * 6 * 16 * 4)


def test_the_tensor_axis_has_an_axis_of_the_torus_to_itself() -> None:
    case = tiny_case(1e9, shape=(4, 4))
    speed = speed_of(case.topology, Layout(1, 4, 4), Attained(0.5, 0.25, 1.0))
    assert (speed.flops, speed.bandwidth) == (500.0, 25.0)
    assert (speed.fsdp, speed.tensor) == (20.0, 20.0)
    assert speed_of(case.topology, Layout(1, 16, 1), Attained(1, 1, 1)).fsdp == 40.0
    assert speed.trip == pytest.approx(1e-6 * 4 / 2)


def test_a_gpu_sums_in_float32() -> None:
    speed = speed_of(topology("h100:1x8"), Layout(1, 2, 4), Attained(1, 1, 1))
    assert (speed.fsdp, speed.tensor) == (450e9, 225e9)

"""Bytes of one chip: the state exactly, temporaries by hand."""

import jax
import numpy as np
import pytest

from tests.planning.tiny_plan import DECODER, LAYER, MODEL, WORK
from urt_jax.families.presets import preset
from urt_jax.models.vlm import abstract_params
from urt_jax.planning.chips import topology
from urt_jax.planning.layout import Layout, attention_of, held_entries, layouts, total_entries
from urt_jax.planning.memory import attention_scores, cache_bytes, needed_pairs, program_memory, tokens_of
from urt_jax.sharding.mesh import make_mesh
from urt_jax.sharding.rules import shardings_for


def test_what_a_chip_holds_is_what_the_placed_arrays_say() -> None:
    params = abstract_params(MODEL)
    for layout in (Layout(2, 2, 2), Layout(1, 2, 2, sequence=2), Layout(2, 1, 1, sequence=4)):
        mesh = make_mesh(layout.data, layout.fsdp, layout.tensor, layout.sequence)
        placed = jax.tree.map(
            lambda leaf, place: np.prod(place.shard_shape(leaf.shape)), params, shardings_for(params, mesh)
        )
        assert sum(held_entries(MODEL, layout)) == sum(jax.tree.leaves(placed))
    assert sum(total_entries(MODEL)) == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_published_sizes_are_halved_by_twice_the_chips() -> None:
    model = preset("qwen2_5_vl_7b")
    once, twice = held_entries(model, Layout(1, 8, 1)), held_entries(model, Layout(1, 16, 1))
    assert once.trained / twice.trained == pytest.approx(2, rel=1e-3)
    assert held_entries(model, Layout(8, 8, 1)) == once


def test_scores_pairs_and_tokens_are_counted() -> None:
    # Prompt 10, two responses of 3: whole matrices, then what the mask leaves.
    assert attention_scores(WORK, "grpo") == 10 * 10 + 2 * 3 * (10 + 3)
    assert needed_pairs(WORK, "grpo") == 55 + 2 * (6 + 3 * 10)
    assert (attention_scores(WORK, "sft"), needed_pairs(WORK, "sft")) == (13**2, 91)
    assert (attention_scores(WORK, "prefill"), needed_pairs(WORK, "prefill")) == (100, 55)
    assert [tokens_of(WORK, program) for program in ("sft", "grpo", "prefill")] == [13, 16, 10]


def test_caches_are_split_by_heads() -> None:
    assert cache_bytes(DECODER, Layout(1, 1, 1), 5) == 2 * 2 * 2 * 2 * 2 * 5  # keys and values, bfloat16, layers, heads
    assert cache_bytes(DECODER, Layout(1, 1, 2), 5) == cache_bytes(DECODER, Layout(1, 1, 1), 5) / 2


def test_a_step_is_state_gradients_and_one_layer_at_its_worst() -> None:
    layout = Layout(1, 2, 2, at_once=2)
    entries, parts = held_entries(MODEL, layout), program_memory(WORK, layout, "grpo")
    tokens = 2 * 16
    assert parts["weights"] == 4 * sum(entries)
    assert parts["moments"] == 8 * entries.trained
    assert parts["gradients"] == 2 * 4 * entries.trained  # of two micro-batches: their sum, and the present one's
    assert program_memory(WORK, Layout(1, 2, 2, at_once=4), "grpo")["gradients"] == 4 * entries.trained
    assert parts["layer inputs"] == 1.6 * 2 * tokens * 4 * 2  # bfloat16, width 4, two layers
    assert parts["attention scores"] == (6.5 * 2 + 1) * 2 * attention_scores(WORK, "grpo")  # two heads a chip
    assert parts["one layer"] == 2 * 6 * tokens * (8 / 2 + 4)
    assert parts["weights in bfloat16"] == 2 * (LAYER / 2 + 3 * 16 * 4 / 2)
    assert program_memory(WORK, Layout(4, 1, 1), "grpo")["weights in bfloat16"] == 2 * 2 * LAYER
    assert "caches" not in parts


def test_blocks_take_less_and_nothing_trained_has_no_moments() -> None:
    layout = Layout(1, 8, 1)
    rows = WORK.rows.__class__(8, 2, 4096, 1, 4, 2048, 8)
    work = WORK.__class__(MODEL, rows)
    whole, blocks = (program_memory(work, layout, "grpo", attention=kind) for kind in ("whole", "blocks"))
    assert blocks["attention scores"] < whole["attention scores"] / 5
    assert blocks["layer inputs"] < whole["layer inputs"]
    others = set(whole) - {"attention scores", "layer inputs"}
    assert {name: whole[name] for name in others} == {name: blocks[name] for name in others}
    score = program_memory(WORK, layout, "score")
    assert "moments" not in score
    assert "gradients" not in score


def test_decoding_is_given_prompts_twice_and_every_response_once() -> None:
    parts = program_memory(WORK, Layout(1, 4, 2, at_once=2), "decode")
    assert parts["caches"] == cache_bytes(DECODER, Layout(1, 4, 2), 2 * 2 * 10 + 4 * 3)
    waiting = program_memory(WORK, Layout(1, 4, 2, at_once=1), "decode")  # one of two questions
    assert waiting["caches"] == cache_bytes(DECODER, Layout(1, 4, 2), (2 + 1) * 10 + 2 * 3)


def test_a_sequence_axis_splits_tokens_and_gathers_keys() -> None:
    rows = WORK.rows.__class__(8, 2, 2048, 1, 4, 1024, 8)
    work = WORK.__class__(MODEL, rows)
    whole, split = (program_memory(work, Layout(2, 1, 1, 1, size), "grpo") for size in (1, 4))
    for part in ("layer inputs", "attention scores", "one layer"):
        assert split[part] == whole[part] / 4
    # Keys and values of all 4,096 tokens of a question in one layer, two heads of two, bfloat16; and their gradients.
    assert split["gathered keys"] == 2 * 2 * 2 * 2 * 2 * 4096
    assert "gathered keys" not in whole
    decode = program_memory(work, Layout(2, 1, 1, 1, 4), "decode")
    assert decode["caches"] == cache_bytes(DECODER, Layout(2, 1, 1), (4 + 1) * 2048 / 4 + 2 * 1024)


def test_the_sampler_splits_questions_over_sequence_where_they_divide() -> None:
    layout = Layout(1, 2, 1, sequence=2)
    assert layout.sampling(8) == Layout(1, 4, 1)
    assert layout.sampling(6) == layout


def test_layouts_split_heads_and_rows_evenly() -> None:
    found = layouts(MODEL, topology("v6e:2x4"), questions=8)
    assert all(one.chips == 8 and 8 % (one.parts * one.at_once) == 0 for one in found)
    assert {one.tensor for one in found} == {1, 2}  # two key heads
    assert Layout(1, 4, 2, 2) in found
    assert layouts(MODEL, topology("v6e:2x4"), questions=3) == []
    split = layouts(MODEL, topology("v6e:2x4"), questions=1, sequences=(1, 4, 8))
    assert split == [Layout(1, 1, 2, 1, 4)]  # one question on eight chips, four along an axis
    nodes = layouts(MODEL, topology("h100:2x4"), questions=2, sequences=(4,))
    assert nodes == [Layout(2, 1, 1, 1, 4), Layout(1, 2, 1, 1, 4)]  # a row stays in its node


def test_a_tpu_takes_its_kernel_unless_it_splits_rows() -> None:
    tpu, gpu = topology("v6e:2x4"), topology("h100:1x8")
    assert attention_of("auto", tpu, Layout(1, 4, 2)) == "blocks"
    assert attention_of("auto", tpu, Layout(1, 2, 2, sequence=2)) == "whole"
    assert attention_of("auto", gpu, Layout(1, 4, 2)) == "whole"
    assert attention_of("blocks", gpu, Layout(1, 4, 2)) == "blocks"

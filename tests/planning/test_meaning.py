"""What a plan must say whatever the numbers: more work never costs less, what is split is smaller, limits are named."""

from dataclasses import replace
from typing import Any

import pytest

from tests.planning.tiny_plan import MODEL, ROWS, WORK, tiny_case
from urt_jax.planning.chips import topology
from urt_jax.planning.input_table import workers_needed
from urt_jax.planning.layout import Layout, attention_of, layouts, total_entries
from urt_jax.planning.memory import PROGRAMS, Program, program_memory
from urt_jax.planning.prefix import prefix_flops
from urt_jax.planning.scaling import efficiency, fixed_scaling
from urt_jax.planning.search import estimate, search
from urt_jax.planning.timing import Attained, Moved, Phase, Piece, Speed, needed_flops, program_phase, speed_of
from urt_jax.planning.workloads import Workload

ONE = Layout(1, 1, 1)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("count", ["responses", "prompt_tokens", "new_tokens"])
def test_more_tokens_never_take_less(program: Program, count: str) -> None:
    more = Workload(MODEL, replace(ROWS, **{count: 2 * getattr(ROWS, count)}))
    small, large = (sum(program_memory(work, ONE, program).values()) for work in (WORK, more))
    assert large >= small
    speed = Speed(1e3, 1e2, 1.0, 1.0, 1.0)
    assert program_phase(more, ONE, program).seconds(speed) >= program_phase(WORK, ONE, program).seconds(speed)
    assert needed_flops(more, program) >= needed_flops(WORK, program)


@pytest.mark.parametrize("program", ["sft", "grpo", "score"])
def test_of_split_weights_each_chip_holds_less_and_all_are_gathered(program: Program) -> None:
    """Twice the shards: the arguments of a program shrink, and the weights that come over the links grow to a whole."""
    split = [Layout(1, shards, 1, at_once=8 // shards) for shards in (1, 2, 4, 8)]  # all questions in one piece
    found = [program_phase(WORK, layout, program).moved.gathered for layout in split]
    assert found[0] == 0.0
    assert found == sorted(found)
    assert found[3] < 2 * found[1], "never more than twice what half of the weights are"
    held = [sum(program_memory(WORK, layout, program).values()) for layout in split]
    assert held == sorted(held, reverse=True)


def test_copies_of_the_state_move_gradients_and_shards_move_weights() -> None:
    layouts_of = (Layout(4, 1, 1, at_once=2), Layout(1, 4, 1, at_once=2))
    copies, shards = (program_phase(WORK, layout, "grpo").moved for layout in layouts_of)
    assert copies.copied == pytest.approx(2 * 4 * total_entries(MODEL).trained * 3 / 4), "float32, there and back"
    assert (copies.gathered, shards.copied) == (0.0, 0.0)
    assert shards.gathered > 0


def test_the_longest_wait_is_named() -> None:
    speed = Speed(flops=10.0, bandwidth=10.0, fsdp=1.0, data=1.0, tensor=1.0, sequence=1.0)

    def limit(flops: float = 0.0, moved_bytes: float = 0.0, **moved: float) -> str:
        return Phase((Piece("layers", flops, moved_bytes),), Moved(**moved)).limit(speed)

    assert limit(flops=100.0, moved_bytes=50.0) == "products"
    assert limit(flops=10.0, moved_bytes=50.0) == "memory"
    assert limit(flops=10.0, gathered=20.0) == "weights over the links"
    assert limit(flops=100.0, gathered=5.0) == "products", "what comes beside the products is not waited for"
    assert limit(flops=10.0, summed=20.0) == "tensor sums"
    assert limit(flops=10.0, keys=20.0) == "keys of other tokens"


def test_seconds_by_hand() -> None:
    """max(work 10 + 5, beside 4 + 2 trips of 1) + sums 3 + keys 2, and with slower links 2 x 20 beside."""
    phase = Phase((Piece("a", 100.0, 1.0), Piece("b", 1.0, 50.0)), Moved(calls=2, gathered=4.0, summed=3.0, keys=2.0))
    assert phase.seconds(Speed(10.0, 10.0, 1.0, 1.0, 1.0, 1.0, trip=1.0)) == 15.0 + 5.0
    assert phase.seconds(Speed(10.0, 10.0, 0.1, 1.0, 1.0, 1.0)) == 40.0 + 5.0


def test_a_tensor_axis_takes_a_link_of_the_torus_from_the_others() -> None:
    slice_ = topology("v5p:2x2x2")
    whole, shared = (speed_of(slice_, layout, Attained()) for layout in (Layout(1, 8, 1), Layout(1, 4, 2)))
    assert shared.fsdp < whole.fsdp
    assert shared.flops == whole.flops == pytest.approx(0.7 * slice_.chip.flops)


def test_only_a_tpu_attends_in_blocks_of_its_own_accord_and_not_where_rows_are_split() -> None:
    tpu, gpu = topology("v5p:2x2x1"), topology("h100:1x8")
    assert attention_of("auto", tpu, Layout(1, 4, 1)) == "blocks"
    assert attention_of("auto", tpu, Layout(1, 2, 1, sequence=2)) == "whole"
    assert attention_of("auto", gpu, Layout(1, 8, 1)) == "whole"
    assert attention_of("blocks", gpu, Layout(1, 8, 1)) == "blocks"


def test_layouts_keep_key_heads_whole_and_deal_all_questions_out() -> None:
    found = layouts(MODEL, topology("v5p:2x2x2"), questions=8, sequences=(1, 2))
    assert found
    for one in found:
        assert one.chips == 8
        assert MODEL.decoder.kv_heads % one.tensor == 0
        assert 8 % (one.parts * one.at_once) == 0
    assert layouts(MODEL, topology("v5p:2x2x2"), questions=3) == [], "8, or 4 parts of 3 questions"


def test_the_sampler_splits_questions_over_sequence_where_they_divide() -> None:
    layout = Layout(1, 2, 1, sequence=2)
    assert layout.sampling(8) == Layout(1, 4, 1)
    assert layout.sampling(6) is layout


def test_the_same_questions_on_more_chips_are_never_slower_and_rates_are_those_of_the_first() -> None:
    found = fixed_scaling(tiny_case(1e9, shape=(1, 2)))
    seconds = [one.step for one in found if one is not None]
    assert len(seconds) > 2
    assert seconds == sorted(seconds, reverse=True)
    rates = efficiency(found)
    assert rates[0] == 1.0
    assert all(rate is None or rate <= 1.0 + 1e-9 for rate in rates)
    assert {one.case.work.rows.questions for one in found if one is not None} == {ROWS.questions}


def test_a_slower_chip_is_slower_and_a_smaller_one_fits_less() -> None:
    case = tiny_case(1e9)
    chip = replace(case.topology.chip, flops=case.topology.chip.flops / 2, bandwidth=case.topology.chip.bandwidth / 2)
    slow = replace(case, topology=replace(case.topology, chip=chip))
    layout = Layout(1, 2, 2, at_once=2)
    assert estimate(slow, layout).step > estimate(case, layout).step
    assert len(search(tiny_case(1e3))) <= len(search(case))


@pytest.mark.parametrize(
    ("rates", "records", "beside", "wanted"),
    [
        (
            {"cpu/0": 0.01, "cpu/2": 0.002},
            10,
            True,
            0,
        ),  # 12.5 records a second in a thread of their own: 0.125 s of CPU
        ({"cpu/0": 0.01, "cpu/2": 0.002}, 10, False, 1),  # but a rollout would wait 0.125 s a second for them
        ({"cpu/0": 0.1, "cpu/2": 0.02}, 16, True, 3),  # 20 x (0.1 + 0.02) s of CPU a second
        ({"cpu/0": 0.0, "cpu/2": 0.0}, 1e9, False, 0),
    ],
)
def test_workers_by_hand(rates: dict[str, Any], records: float, beside: bool, wanted: int) -> None:
    assert workers_needed(records, rates, beside=beside) == wanted


def test_sharing_a_prompt_saves_more_the_more_responses_share_it() -> None:
    saved = [ordinary / shared for shared, ordinary in (prefix_flops(WORK, count) for count in (1, 2, 4, 8))]
    assert saved == sorted(saved)
    assert saved[-1] > 1.5

"""The fastest layout that fits; what is missing where none does."""

from dataclasses import replace

from tests.planning.tiny_plan import tiny_case
from urt_jax.planning.layout import Layout, held_entries
from urt_jax.planning.scaling import efficiency, limits, slices, weak_scaling
from urt_jax.planning.search import MARGIN, estimate, nearest, program_layouts, remedies, resident, search


def test_with_room_for_all_the_fastest_comes_first_and_each_mesh_once() -> None:
    found = search(tiny_case(1e9))
    assert [one.step for one in found] == sorted(one.step for one in found)
    meshes = [tuple(one.layout.mesh().shape.values()) for one in found]
    assert len(meshes) == len(set(meshes)) == 5  # 4 chips at tensor 1 (three ways) and at tensor 2 (two ways)


def test_what_fits_stays_below_the_margin() -> None:
    roomy = search(tiny_case(1e9, programs=("grpo",)))
    least = nearest(tiny_case(1e9, programs=("grpo",)))
    assert least is not None
    memory = (least.bytes + 1) / MARGIN
    found = search(tiny_case(memory, programs=("grpo",)))
    assert 0 < len(found) < len(roomy)
    assert all(one.bytes <= MARGIN * memory for one in found)


def test_where_nothing_fits_the_nearest_tells_what_is_missing() -> None:
    least = nearest(tiny_case(1e9, programs=("grpo",)))
    assert least is not None
    tight = tiny_case((least.bytes - 99) / MARGIN, programs=("grpo",))
    one = nearest(tight)
    assert search(tight) == []
    assert one is not None
    assert 0 < one.missing < 100
    assert sum(one.memory[one.worst].values()) == one.bytes
    texts = remedies(tight)
    assert "prompts of 5 and responses of 1 tokens" in texts
    assert nearest(tiny_case(1e9, shape=(4, 8))) is None  # 8 questions on 32 or 16 parts


def test_what_lies_beside_a_program_counts() -> None:
    case, layout = tiny_case(1e9, reference=True), Layout(1, 4, 1)
    entries = held_entries(case.work.config, layout)
    weights, moments = 4 * sum(entries), 8 * entries.trained
    assert resident(case, layout, "grpo") == {"reference": weights}
    beside_a_copy = {"moments": moments, "reference": weights, "policy": weights}
    assert resident(case, layout, "decode") == beside_a_copy
    assert resident(case, layout, "score") == {"moments": moments, "policy": weights}
    assert resident(case, layout, "sft") == {}
    assert estimate(case, layout).memory["decode"]["moments"] == moments


def test_all_prompts_are_run_at_once_and_as_many_decoded_as_fit() -> None:
    case, layout = tiny_case(1e9), Layout(1, 2, 2, at_once=1)
    assert program_layouts(case, layout)["prefill"].at_once == 4
    assert program_layouts(case, layout)["decode"].at_once == 4
    assert program_layouts(case, layout)["grpo"].at_once == 1
    tight = tiny_case((estimate(case, layout).bytes_of("decode") - 1) / MARGIN)
    assert program_layouts(tight, layout)["decode"].at_once < 4
    assert program_layouts(tight, layout)["prefill"].at_once == 4


def test_rows_that_are_too_long_for_a_chip_are_split_over_several() -> None:
    case = tiny_case(1e9, programs=("sft",), shape=(4, 8))
    assert nearest(case) is None  # 8 rows on 32 chips, or on 16 with the key heads apart
    rows = replace(case.work.rows, new_tokens=4)
    split = search(replace(case, sequences=(1, 2), work=replace(case.work, rows=rows)))
    assert {(one.layout.sequence, one.layout.tensor) for one in split} == {(2, 2)}
    assert all(one.layout.chips == 32 for one in split)
    assert search(replace(case, sequences=(2,))) == []  # responses of 3 tokens


def test_an_update_takes_an_mfu_below_one() -> None:
    one = search(tiny_case(1e9))[0]
    assert 0 < one.mfu("grpo") < 3 / 4  # a quarter of the products is recomputed


def test_the_same_work_a_chip_takes_the_same_time_on_more_of_them() -> None:
    case = tiny_case(1e9)
    found = weak_scaling(case)
    assert [one.chips for one in slices(case.topology)] == [4, 8, 16, 32, 64]
    assert [one and one.case.work.rows.questions for one in found] == [8, 16, 32, 64, 128]
    rates = efficiency(found)
    assert rates[0] == 1.0
    assert all(rate is not None and rate > 0.5 for rate in rates)
    assert efficiency([None, found[0]]) == [None, 1.0]
    assert found[0] is not None
    assert set(limits(found[0])) == set(case.programs)

"""The stages' programs on shapes alone, placed as on a real mesh, compile to what the formulas say they hold."""

import json

import jax
import numpy as np
import pytest

from urt_jax.errors import BadInputError
from urt_jax.families.presets import preset
from urt_jax.planning.aot import Evidence, as_record, check_compiler, fingerprint, first_lines, from_record
from urt_jax.planning.chips import topology
from urt_jax.planning.hlo import collectives
from urt_jax.planning.layout import Layout, held_entries
from urt_jax.planning.memory import PROGRAMS, Program
from urt_jax.planning.programs import Given, frame_slots, prepare
from urt_jax.planning.workloads import RowCounts, Workload, workload
from urt_jax.sharding.mesh import make_mesh

WORK = workload("toy")


ON_FOUR = Layout(1, 2, 2)


def given(layout: Layout = ON_FOUR, work: Workload = WORK) -> Given:
    mesh = make_mesh(layout.data, layout.fsdp, layout.tensor, layout.sequence, devices=jax.devices()[: layout.chips])
    return Given(work, mesh, 2, np.dtype("float32"), 2 // layout.parts)


@pytest.mark.parametrize(
    ("program", "layout"),
    [
        *((program, ON_FOUR) for program in PROGRAMS),
        *(("grpo", Layout(1, 1, 1, 1, 2)), ("decode", Layout(1, 1, 1, 1, 2))),
    ],
)
def test_a_program_compiles_and_holds_what_the_table_of_rules_says(program: Program, layout: Layout) -> None:
    step, arguments = prepare(program, given(layout))
    found = step.lower(*arguments).compile()
    entries = held_entries(WORK.config, layout)
    frozen = 0 if program == "decode" else entries.frozen  # which sees no pictures
    state = 4 * (frozen + (3 if program in ("sft", "grpo") else 1) * entries.trained)
    batch = 200_000  # patches, tokens, caches and masks of two small questions
    assert state <= found.memory_analysis().argument_size_in_bytes <= state + batch
    assert collectives(found.as_text())


@pytest.mark.parametrize("model", ["qwen3_vl_2b", "llava_onevision_0_5b"])
def test_every_family_lowers(model: str) -> None:
    work = Workload(preset(model), RowCounts(2, 2, 64, 1, 64, 8, 2))
    step, arguments = prepare("grpo", given(work=work))
    assert "stablehlo" in step.lower(*arguments).as_text()[:20000]


def test_frames_take_whole_windows() -> None:
    assert frame_slots(preset("qwen2_5_vl_7b").vision, 384) == 16 * 64  # 27 x 27 patches in windows of 8 x 8
    assert frame_slots(preset("llava_onevision_7b").vision, 999) == 27 * 27
    assert frame_slots(preset("qwen3_vl_8b").vision, 384) == 24 * 24


def test_what_was_compiled_is_known_by_everything_it_depends_on() -> None:
    asked = (WORK, topology("v6e:2x4"), Layout(1, 4, 2), "sft")
    same = fingerprint(*asked)  # type: ignore[arg-type]
    assert fingerprint(*asked) == same  # type: ignore[arg-type]
    others = [
        (workload("tiny"), *asked[1:]),
        (asked[0], topology("v6e:4x4"), *asked[2:]),
        (*asked[:2], Layout(1, 4, 2, 2), "sft"),
        (*asked[:2], Layout(1, 2, 2, sequence=2), "sft"),
        (*asked[:3], "grpo"),
    ]
    assert len({same, fingerprint(*asked, "blocks"), *(fingerprint(*other) for other in others)}) == 7  # type: ignore[arg-type]


def test_evidence_comes_back_from_its_record() -> None:
    told = Evidence(
        3.0, arguments=1.0, temporaries=2.0, outputs=4.0, collectives=(("all-gather", 28, 5.0),), kernels=("triton",)
    )
    assert from_record(json.loads(json.dumps(as_record(told))), "here") == told
    assert told.bytes == 7.0


def test_without_the_compiler_it_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = (
        r"v6e:2x4 needs the package libtpu, which is not installed: pip install 'urt-jax\[plan\]', or give --config"
    )
    with pytest.raises(BadInputError, match=message):
        check_compiler(topology("v6e:2x4"))
    with pytest.raises(BadInputError, match="needs the package jax_cuda12_plugin"):
        check_compiler(topology("h100:1x8"))


def test_a_long_error_is_cut_at_a_word() -> None:
    assert first_lines("one\n  two") == "one two"
    assert first_lines("word " * 100, most=20) == "word word word word ..."


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"collectives": None}, "collectives is missing"),
        ({"collectives": [["all-gather", 1]]}, "collectives: 0: bytes is missing"),
        ({"collectives": [7]}, "collectives: 0: kind is missing"),
        ({"collectives": [["all-gather", "x", 1.0]]}, "collectives: 0: runs is 'x'"),
        ({"kernels": "triton"}, "kernels is 'triton'; needed a list"),
        ({"kernels": [1]}, "kernels: 0 is 1"),
        ({"seconds": -1}, "seconds is -1"),
        ({"arguments": "many"}, "arguments is 'many'"),
        ({"failed": []}, "failed is []"),
    ],
)
def test_a_damaged_record_is_refused_by_its_field(change: dict[str, object], told: str) -> None:
    record = json.loads(json.dumps({**as_record(Evidence(3.0)), **change}))
    with pytest.raises(BadInputError) as caught:
        from_record(record, "a.json")
    assert str(caught.value).startswith("a.json: ")
    assert told in str(caught.value)

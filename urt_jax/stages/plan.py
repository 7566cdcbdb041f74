"""Plan what fits on which accelerators and how fast it would be, before paying for them.

1. compute memory, collectives and seconds of every layout of each case by formula, and keep the fastest that fit;
2. compile the stages' own programs for the slice without an accelerator, each in its own process; the evidence is
   cached on disk by a hash of the request, the code and the compiler, so that each program is compiled once;
3. write a table, ``plan.json`` with every figure, and ``report.html`` with bars of the memory.

Compilation is evidence of a program's memory and of the bytes that it moves; nothing is run on the slice.
"""

import dataclasses
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from urt_jax.config import PlanConfig
from urt_jax.errors import BadInputError
from urt_jax.families.presets import preset
from urt_jax.files.json_text import read_object
from urt_jax.planning.aot import (
    Evidence,
    as_record,
    check_compiler,
    compiler_environment,
    fingerprint,
    from_record,
)
from urt_jax.planning.chips import topology
from urt_jax.planning.layout import Layout
from urt_jax.planning.memory import Program
from urt_jax.planning.paired import Program as Process
from urt_jax.planning.paired import ProgramError
from urt_jax.planning.plan_check import check_here
from urt_jax.planning.plan_table import Planned, plan_text, write_plan_page
from urt_jax.planning.scaling import COMPILED, fixed_scaling, weak_scaling
from urt_jax.planning.search import Case, Estimate, nearest, program_layouts, remedies, search
from urt_jax.planning.timing import Attained
from urt_jax.planning.workloads import RowCounts, Workload
from urt_jax.progress import each
from urt_jax.runs.run_folder import write_json, write_result

COMPILE_AGAIN = "delete it, and the program is compiled again"


def run(config: PlanConfig) -> None:
    """Plan all cases, print the table, write the figures and the report."""
    folder = Path(config.workdir)
    jax.config.update("jax_platforms", "cpu")  # this process runs no program, so it must not reserve an accelerator
    cases = [read_case(config, name) for name in config.cases]
    if config.compile:
        for case in cases:
            check_compiler(case.topology)
    (folder / "programs").mkdir(exist_ok=True)
    planned = [plan(config, folder, case) for case in each(cases, title="plan", unit="case")]
    checked = check_here(folder) if config.check else None
    text, records = plan_text(planned, price=config.price, checked=checked)
    write_json(folder / "plan.json", {"cases": records, "check": checked and dataclasses.asdict(checked)})
    write_plan_page(folder / "report.html", planned, price=config.price, checked=checked)
    print(text)
    write_result(folder, text)


def read_case(config: PlanConfig, name: str) -> Case:
    """Return the case that ``MODEL@CHIP:SHAPE`` names.

    Raises:
        BadInputError: the published size or the slice does not exist.
    """
    model, at, slice_ = name.partition("@")
    try:
        if not at:
            raise BadInputError("has no @")
        sizes, where = preset(model), topology(slice_)
    except BadInputError as error:
        raise BadInputError(
            f"config.cases: {name!r}: {error}; a case is MODEL@CHIP:SHAPE, such as qwen2_5_vl_7b@v5p:4x4x4"
        ) from error
    asked = {name: where.chips if value is None else value for name, value in dataclasses.asdict(config.rows).items()}
    kept, attained = config.kl and config.programs != ("sft",), Attained(**dataclasses.asdict(config.attained))
    work = Workload(sizes, RowCounts(**asked))
    return Case(model, work, where, config.programs, kept, attained, config.attention, config.sequence)


def plan(config: PlanConfig, folder: Path, case: Case) -> Planned:
    """Return the best layouts of a case, with the evidence of compiling their programs.

    If no layout fits by formula, the result is the nearest one, whose largest program is compiled as a check.
    """
    found = search(case)[: config.best]
    study = Planned(case, ())
    if config.scaling:
        study = _scaling(config, folder, case)
        config = replace(config, compile=False)  # only the study's programs are compiled
    if found:
        told = [compiled(config, folder, one, (one.worst,) if config.worst else config.programs) for one in found]
        return replace(study, layouts=tuple(zip(found, told, strict=True)))
    least = nearest(case)
    if least is None:
        return replace(study, remedies=("a number of questions per step that the chips divide",))
    told = [compiled(config, folder, least, (least.worst,))]
    return replace(study, layouts=((least, told[0]),), remedies=tuple(remedies(case)))


def _scaling(config: PlanConfig, folder: Path, case: Case) -> Planned:
    """Return the scaling study of a case, with its last program compiled for the slice sizes in ``COMPILED``."""
    scaled = tuple(weak_scaling(case))
    chosen = [one for one in scaled if one is not None and one.case.topology.chips in COMPILED and config.compile]
    updates = {one.case.topology.name: compiled(config, folder, one, config.programs[-1:]) for one in chosen}
    return Planned(case, (), (), scaled, tuple(fixed_scaling(case)), updates)


def compiled(config: PlanConfig, folder: Path, one: Estimate, programs: tuple[Program, ...]) -> dict[Program, Evidence]:
    """Return the evidence of compiling each program; empty if compilation is off."""
    laid = program_layouts(one.case, one.layout)
    return {p: evidence(config, folder, one, laid[p], p) for p in programs} if config.compile else {}


def evidence(config: PlanConfig, folder: Path, one: Estimate, layout: Layout, program: Program) -> Evidence:
    """Return the evidence of compiling a program, from the cache if it was compiled before.

    If the compiler crashed, the evidence has the reason and is not cached, so that the next run compiles again.
    """
    case, attention = one.case, "whole" if program == "decode" else one.attention  # decoding always uses "xla"
    name = fingerprint(case.work, case.topology, layout, program, attention)
    kept = Path(config.cache).expanduser() / f"{name}.json"
    if kept.exists():
        return from_record(read_object(kept, remedy=COMPILE_AGAIN), f"{kept} (if it is damaged, {COMPILE_AGAIN})")
    spec = {
        "model": case.name,
        "rows": dataclasses.asdict(case.work.rows),
        "topology": case.topology.name,
        "layout": dataclasses.asdict(layout),
        "program": program,
        "attention": attention,
    }
    path = folder / "programs" / f"{name}.json"
    write_json(path, spec)
    try:
        found = ask_worker(path)
    except ProgramError as error:
        return Evidence(0.0, failed=str(error))
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_json(kept, {**as_record(found)})
    return found


def ask_worker(spec: Path) -> Evidence:
    """Compile the program of a spec in its own process.

    Raises:
        ProgramError: the process ended without an answer.
    """
    command = [sys.executable, "-m", "urt_jax.planning.plan_worker", str(spec)]
    with Process(command, log=spec.with_suffix(".log"), environment=compiler_environment()) as process:
        answer: dict[str, Any] = process.ready()
    return from_record(answer, "the answer of the compiler")

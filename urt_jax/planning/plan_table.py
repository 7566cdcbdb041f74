"""A plan's figures as text, records and a report: what fits, speed by formula, and the evidence of compilation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from urt_jax.evals.bars import BarChart, make_bars
from urt_jax.evals.report import page_template
from urt_jax.evals.tables import Cell, format_table
from urt_jax.files.whole import write_whole
from urt_jax.planning.aot import Evidence, as_record, compiler_of
from urt_jax.planning.chips import GIB
from urt_jax.planning.memory import Program, pieces_of
from urt_jax.planning.plan_check import Checked
from urt_jax.planning.scaling import efficiency, limits, slices
from urt_jax.planning.search import Case, Estimate, program_layouts, resident

WIDTH = 150
PHASES: dict[str, tuple[Program, ...]] = {  # columns of seconds
    "rollout": ("prefill", "decode"),
    "score": ("score",),
    "update": ("grpo",),
    "SFT": ("sft",),
}
BROKEN = 0.5  # share of the smallest slice's rate per chip below which scaling is reported as broken
Rows = list[dict[str, Cell]]


@dataclass(frozen=True)
class Planned:
    """A case with its layouts, the best first, and the evidence of compiling each of their programs."""

    case: Case
    layouts: tuple[tuple[Estimate, Mapping[Program, Evidence]], ...]
    remedies: tuple[str, ...] = ()  # changes that would make it fit, if it does not fit by formula
    scaled: tuple[Estimate | None, ...] = ()
    fixed: tuple[Estimate | None, ...] = ()
    scaled_evidence: Mapping[str, Mapping[Program, Evidence]] = field(
        default_factory=dict
    )  # by slice, its last program


def compiled_bytes(one: Estimate, program: Program, evidence: Evidence) -> float:
    """Return the memory of a compiled program and of the arrays resident beside it on one chip."""
    layout = program_layouts(one.case, one.layout)[program]
    return evidence.bytes + sum(resident(one.case, layout, program).values())


def compiled_moves(one: Estimate, program: Program, evidence: Evidence) -> float:
    """Return the bytes that one chip receives in a step as compiled; HLO counts the loop over tokens once."""
    times = 1
    if program == "decode":
        times = one.case.work.rows.new_tokens * pieces_of(
            one.case.work, program_layouts(one.case, one.layout)[program], program
        )
    return times * sum(size for _, _, size in evidence.collectives)


def fits(one: Estimate, told: Mapping[Program, Evidence]) -> bool:
    """Return whether a layout fits: by the compiled programs if there are any, otherwise by formula."""
    if not told:
        return one.missing <= 0
    room = one.case.topology.chip.memory
    return all(not e.failed and compiled_bytes(one, program, e) <= room for program, e in told.items())


def plan_text(
    planned: Sequence[Planned], *, price: float | None, checked: Checked | None = None
) -> tuple[str, list[dict[str, Any]]]:
    """Return the printed text and its records."""
    blocks = [*_notes(planned, checked), format_table(plan_rows(planned, price=price), width=WIDTH)]
    blocks += [line for one in planned for line in _trouble(one)]
    if len(planned) == 1:  # for several cases, only the report has it
        blocks.append("GB that one chip receives in a step, by formula and as compiled:")
        blocks.append(format_table(_moved_rows(planned[0]), width=WIDTH))
    for one in planned:
        if one.scaled:
            rows = scaling_rows(one)
            blocks += [f"Weak scaling of {one.case.name}: the same questions per chip; in the last column, in all:"]
            blocks += [format_table(rows, width=WIDTH), _where_it_breaks(one)]
    return "\n\n".join(blocks), [_record(one) for one in planned]


def plan_rows(planned: Sequence[Planned], *, price: float | None) -> Rows:
    """Return one line per layout."""
    return [_row(one, told, price) for case in planned for one, told in case.layouts]


def scaling_rows(planned: Planned) -> Rows:
    """Return one line per slice: the bytes that each chip receives, and its rate relative to the smallest that fits.

    In the last column, all slices have the same questions.
    """
    ones, fixed, update = planned.scaled, planned.fixed, update_of(planned.case)
    few = planned.case.work.rows.questions
    rows: Rows = []
    for one, whole, part, same, kept in zip(
        ones, efficiency(ones), efficiency(ones, update), fixed, efficiency(fixed), strict=True
    ):
        if one is None:
            continue
        row: dict[str, Cell] = {
            "slice": f"{one.case.topology.name} ({one.case.topology.chips})",
            "mesh": _mesh(one),
            "questions": str(one.case.work.rows.questions),
        }
        row |= {f"{p} GB": f"{phase.moved.total / 1e9:,.0f}" for p, phase in one.phases.items()}
        for program, evidence in planned.scaled_evidence.get(one.case.topology.name, {}).items():
            moved = compiled_moves(one, program, evidence)
            row[f"{program} compiled"] = "failed" if evidence.failed else f"{moved / 1e9:,.0f}"
        row |= {"step s": f"{one.step:,.1f}", "efficiency": f"{100 * (whole or 0):.0f} %"}
        row |= {f"of {update}": f"{100 * (part or 0):.0f} %"}
        row[f"{few} in all"] = "no mesh" if same is None or kept is None else f"{_mesh(same)}: {100 * kept:.0f} %"
        rows.append(row)
    return rows


def update_of(case: Case) -> Program:
    """Return the program that trains."""
    return next(p for p in ("grpo", "sft", *case.programs) if p in case.programs)


def write_plan_page(
    path: Path, planned: Sequence[Planned], *, price: float | None, checked: Checked | None = None
) -> None:
    """Write the report with the tables and bars of the memory."""
    tables = {"What fits": plan_rows(planned, price=price)}
    tables["What moves between the chips"] = [row for one in planned for row in _moved_rows(one)]
    tables |= {f"Weak scaling of {one.case.name}": scaling_rows(one) for one in planned if one.scaled}
    page = page_template("plan.html").render(
        title="urt_jax: plan",
        notes=[*_notes(planned, checked), *(line for one in planned for line in _trouble(one))],
        tables={name: _cells(rows) for name, rows in tables.items() if rows},
        charts=[_chart(one, told) for case in planned for one, told in case.layouts],
    )
    write_whole(path, page)


def _notes(planned: Sequence[Planned], checked: Checked | None) -> list[str]:
    case, rows = planned[0].case, planned[0].case.work.rows
    used, each = case.attained, {p.case.work.rows.questions / p.case.topology.chips for p in planned}
    asked = f"{rows.questions} questions" if len(planned) == 1 or each != {1.0} else "One question per chip,"
    with_evidence = (p for p in planned if p.scaled_evidence or any(told for _, told in p.layouts))
    compilers = sorted({compiler_of(p.case.topology) for p in with_evidence})
    told = [str(checked)] if checked else []
    evidence = f"Compiled with {'; '.join(compilers)}: evidence, not runs." if compilers else "By formula only."
    return [
        f"{asked} of {rows.prompt_tokens:,} tokens with {rows.responses} responses of {rows.new_tokens:,}, "
        "float32 state, bfloat16 computation, remat full"
        f"{', a reference policy' if case.reference else ''}. {evidence}",
        f"Seconds are a roofline that assumes {100 * used.flops:.0f} % of the published rates of products, "
        f"{100 * used.bandwidth:.0f} % of memory and {100 * used.links:.0f} % of the links.",
        *told,
    ]


def _row(one: Estimate, told: Mapping[Program, Evidence], price: float | None) -> dict[str, Cell]:
    case, chips = one.case, one.case.topology.chips
    laid = program_layouts(case, one.layout)
    update = update_of(case)
    tokens = case.work.rows.completions
    if update == "sft" and "grpo" not in case.programs:
        tokens = case.work.rows.sft_rows * (case.work.rows.prompt_tokens + case.work.rows.new_tokens)
    row: dict[str, Cell] = {"case": f"{case.name} {case.topology.name} ({chips})", "mesh": _mesh(one)}
    row["at once"] = "/".join(str(laid[p].at_once) for p in (update, "decode") if p in laid)
    row |= {
        "GiB": f"{one.bytes / GIB:.1f}",
        "compiled": _compiled(one, told),
        "of": f"{case.topology.chip.memory / GIB:.1f}",
    }
    row["fits"] = "yes" if fits(one, told) else "no"
    row["in"] = one.worst
    if fits(one, told):
        for name, programs in PHASES.items():
            took = [one.seconds[program] for program in programs if program in one.seconds]
            row |= {f"{name} s": f"{sum(took):,.1f}"} if took else {}
        row |= {"step s": f"{one.step:,.1f}", "MFU %": f"{100 * one.mfu(update):.0f}"}
        row["tokens/s/chip"] = f"{tokens / one.step / chips:,.0f}"
        if price is not None:
            row["1,000 steps"] = f"{1000 * one.step / 3600 * chips * price:,.0f}"
    row["compile s"] = f"{sum(e.seconds for e in told.values()):,.0f}" if told else ""
    return row


def _compiled(one: Estimate, told: Mapping[Program, Evidence]) -> str:
    sizes = [compiled_bytes(one, program, e) for program, e in told.items() if not e.failed]
    if any(e.failed for e in told.values()):
        return "failed"
    return f"{max(sizes) / GIB:.1f}" if sizes else ""


def _trouble(planned: Planned) -> list[str]:
    """Return lines about what does not fit, by how much and with which remedies, and about failed compilations."""
    case, lines = planned.case, []
    for one, told in planned.layouts:
        where = f"{case.name} on {case.topology.name}, mesh {_mesh(one)}"
        if one.missing > 0:
            needs = sorted(one.memory[one.worst].items(), key=lambda item: -item[1])[:2]
            most = ", ".join(f"{name} {size / GIB:.1f}" for name, size in needs)
            lines.append(
                f"{where}: {one.worst} lacks {one.missing / GIB:.1f} GiB on every chip by formula ({most} GiB). "
                + (f"Would fit with: {'; '.join(planned.remedies)}." if planned.remedies else "No single change helps.")
            )
        for program, evidence in told.items():
            over = compiled_bytes(one, program, evidence) - case.topology.chip.memory
            if evidence.failed:
                lines.append(f"{where}: {program} did not compile: {evidence.failed}")
            elif over > 0:
                lines.append(f"{where}: {program} lacks {over / GIB:.1f} GiB on every chip as compiled.")
    if not planned.layouts:
        lines.append(f"{case.name} on {case.topology.name}: no layout; needs {'; '.join(planned.remedies)}")
    return lines


def _moved_rows(planned: Planned) -> Rows:
    rows: Rows = []
    for one, told in planned.layouts[:1]:
        for program, phase in one.phases.items():
            row: dict[str, Cell] = {"program": f"{one.case.name} {one.case.topology.name} {program}"}
            row |= {name: f"{size / 1e9:,.1f}" for name, size in phase.moved._asdict().items() if name != "calls"}
            row["in all"] = f"{phase.moved.total / 1e9:,.1f}"
            if program in told and not told[program].failed:
                evidence = told[program]
                moved = compiled_moves(one, program, evidence)
                row["compiled"] = f"{moved / 1e9:,.1f}"
                all_kinds = sum(size for _, _, size in evidence.collectives)
                row |= {kind: f"{100 * size / all_kinds:.0f} %" for kind, _, size in evidence.collectives}
                row["kernels"] = ", ".join(evidence.kernels) or "none"
            rows.append(row)
    return rows


def _where_it_breaks(planned: Planned) -> str:
    """Return a text of the smallest slice that fits, and of the first on which the fixed questions are too few."""
    fitting = [one for one in planned.scaled if one is not None]
    if not fitting:
        return "None of these slices fits."
    first, asked = fitting[0], planned.case.work.rows.questions
    small = f"Below {first.case.topology.name} nothing fits. " if planned.scaled[0] is None else ""
    told = f"{small}If the questions grow with the chips, a chip receives hardly more bytes and keeps its rate."
    for topology, same, kept in zip(slices(planned.case.topology), planned.fixed, efficiency(planned.fixed)):
        if same is not None and kept is not None and kept < BROKEN:
            waits = max(same.seconds, key=lambda program: same.seconds[program])
            return (
                f"{told} With {asked} questions in all it breaks at {topology.name}: {100 * kept:.0f} % of the rate, "
                f"most of it {waits}, which waits for {limits(same)[waits]}."
            )
        if same is None and topology.chips > first.case.topology.chips:
            return f"{told} With {asked} questions in all it breaks at {topology.name}: no mesh splits them so far."
    return told


def _chart(one: Estimate, told: Mapping[Program, Evidence]) -> BarChart:
    bars = []
    for program, parts in one.memory.items():
        evidence = told.get(program)
        note = ""
        if evidence is not None:
            note = (
                "does not compile"
                if evidence.failed
                else f"{compiled_bytes(one, program, evidence) / GIB:.1f} compiled"
            )
        bars.append((program, {name: size / GIB for name, size in parts.items()}, note))
    memory = one.case.topology.chip.memory / GIB
    title = f"{one.case.name} on {one.case.topology.name}, mesh {_mesh(one)}"
    return make_bars(title, bars, limit=memory, limit_name=f"{memory:.1f} GiB of a {one.case.topology.chip.name}")


def _cells(rows: Rows) -> list[list[str]]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [names, *([str(row.get(name, "")) for name in names] for row in rows)]


def _mesh(one: Estimate) -> str:
    return "x".join(map(str, one.layout.mesh().shape.values()))


def _record(planned: Planned) -> dict[str, Any]:
    return {
        "model": planned.case.name,
        "topology": planned.case.topology.name,
        "remedies": list(planned.remedies),
        "layouts": [
            {
                "mesh": dict(one.layout.mesh().shape),
                "attention": one.attention,
                "at_once": {p: laid.at_once for p, laid in program_layouts(one.case, one.layout).items()},
                "memory": one.memory,
                "seconds": one.seconds,
                "mfu": {program: one.mfu(program) for program in one.seconds},
                "moved": {program: phase.moved._asdict() for program, phase in one.phases.items()},
                "compiled": {program: as_record(e) for program, e in told.items()},
                "fits": fits(one, told),
            }
            for one, told in planned.layouts
        ],
        "scaling": scaling_rows(planned) if planned.scaled else [],
    }

"""A plan's figures as text, as records and as a page: what fits where, how fast by formula, what compiling told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from urt_jax.data.whole_files import write_whole
from urt_jax.evals.bars import BarChart, make_bars
from urt_jax.evals.report import page_template
from urt_jax.evals.tables import Cell, format_table
from urt_jax.planning.aot import Evidence, as_record, compiler_of
from urt_jax.planning.chips import GIB
from urt_jax.planning.memory import Program
from urt_jax.planning.scaling import efficiency, limits
from urt_jax.planning.search import Case, Estimate, program_layouts, resident
from urt_jax.stages.plan_check import Checked

WIDTH = 150
PHASES: dict[str, tuple[Program, ...]] = {  # columns of seconds
    "rollout": ("prefill", "decode"),
    "score": ("score",),
    "update": ("grpo",),
    "SFT": ("sft",),
}
Rows = list[dict[str, Cell]]


@dataclass(frozen=True)
class Planned:
    """A case with its layouts, the best first, and what compiling told of each program of each."""

    case: Case
    layouts: tuple[tuple[Estimate, Mapping[Program, Evidence]], ...]
    remedies: tuple[str, ...]  # of a case that does not fit by formula
    scaled: tuple[Estimate | None, ...] = ()
    scaled_evidence: Mapping[str, Mapping[Program, Evidence]] = field(
        default_factory=dict
    )  # by slice, its last program


def compiled_bytes(one: Estimate, program: Program, evidence: Evidence) -> float:
    """Return what a compiled program and what lies beside it take of one chip."""
    layout = program_layouts(one.case, one.layout)[program]
    return evidence.bytes + sum(resident(one.case, layout, program).values())


def fits(one: Estimate, told: Mapping[Program, Evidence]) -> bool:
    """Return whether a layout fits: where it was compiled by that, otherwise by formula."""
    if not told:
        return one.missing <= 0
    room = one.case.topology.chip.memory
    return all(not e.failed and compiled_bytes(one, program, e) <= room for program, e in told.items())


def plan_text(
    planned: Sequence[Planned], *, price: float | None, checked: Checked | None = None
) -> tuple[str, list[dict[str, Any]]]:
    """Return the printed text and the records behind it."""
    blocks = [*_notes(planned, checked), format_table(plan_rows(planned, price=price), width=WIDTH)]
    blocks += [line for one in planned for line in _trouble(one)]
    if len(planned) == 1:  # of more it stands on the page
        blocks.append("GB that one chip receives for all questions of a step by formula, and for one call as compiled:")
        blocks.append(format_table(_moved_rows(planned[0]), width=WIDTH))
    for one in planned:
        if one.scaled:
            rows = scaling_rows(one)
            blocks += [f"Weak scaling of {one.case.name}, the same questions for every chip:"]
            blocks += [format_table(rows, width=WIDTH), _where_it_breaks(one)]
    return "\n\n".join(blocks), [_record(one) for one in planned]


def plan_rows(planned: Sequence[Planned], *, price: float | None) -> Rows:
    """Return one line a layout."""
    return [_row(one, told, price) for case in planned for one, told in case.layouts]


def scaling_rows(planned: Planned) -> Rows:
    """Return one line a slice: what each chip receives, and its rate of work relative to the smallest that fits."""
    ones = list(planned.scaled)
    update: Program = "grpo" if "grpo" in planned.case.programs else planned.case.programs[-1]
    rows: Rows = []
    for one, whole, part in zip(ones, efficiency(ones), efficiency(ones, update)):
        if one is None:
            continue
        row: dict[str, Cell] = {
            "slice": f"{one.case.topology.name} ({one.case.topology.chips})",
            "mesh": _mesh(one),
            "questions": str(one.case.work.rows.questions),
        }
        row |= {f"{p} GB": f"{phase.moved.total / 1e9:,.0f}" for p, phase in one.phases.items()}
        for program, evidence in planned.scaled_evidence.get(one.case.topology.name, {}).items():
            calls = one.case.work.rows.questions / one.layout.parts / one.layout.at_once
            moved = sum(size for _, _, size in evidence.collectives) * calls / 1e9
            row[f"{program} compiled"] = "failed" if evidence.failed else f"{moved:,.0f}"
        row |= {"step s": f"{one.step:,.1f}", "efficiency": f"{100 * (whole or 0):.0f} %"}
        row |= {f"of {update}": f"{100 * (part or 0):.0f} %", f"{update} waits for": limits(one)[update]}
        rows.append(row)
    return rows


def write_plan_page(
    path: Path, planned: Sequence[Planned], *, price: float | None, checked: Checked | None = None
) -> None:
    """Write the page with the tables and the memory drawn as bars."""
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
    used = case.attained
    compilers = sorted({compiler_of(p.case.topology) for p in planned if any(told for _, told in p.layouts)})
    told = [str(checked)] if checked else []
    evidence = f"Compiled with {'; '.join(compilers)}: evidence, not runs." if compilers else "By formula alone."
    return [
        f"{rows.questions} questions of {rows.prompt_tokens:,} tokens with {rows.responses} responses of "
        f"{rows.new_tokens:,} ({rows.sft_rows} rows in SFT), float32 state, bfloat16 computation, remat full"
        f"{', a reference policy' if case.reference else ''}. {evidence}",
        f"Seconds are a roofline that counts on {100 * used.flops:.0f} % of the published products, "
        f"{100 * used.bandwidth:.0f} % of memory and {100 * used.links:.0f} % of the links, by assumption.",
        *told,
    ]


def _row(one: Estimate, told: Mapping[Program, Evidence], price: float | None) -> dict[str, Cell]:
    case, chips = one.case, one.case.topology.chips
    laid = program_layouts(case, one.layout)
    update: Program = next(p for p in ("grpo", "sft", *case.programs) if p in case.programs)
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
    """Say of a case that does not fit what is missing and what would make it fit; of a failed compilation why."""
    case, lines = planned.case, []
    for one, told in planned.layouts:
        where = f"{case.name} on {case.topology.name}, mesh {_mesh(one)}"
        if one.missing > 0:
            needs = sorted(one.memory[one.worst].items(), key=lambda item: -item[1])[:2]
            most = ", ".join(f"{name} {size / GIB:.1f}" for name, size in needs)
            lines.append(
                f"{where}: {one.worst} misses {one.missing / GIB:.1f} GiB on every chip by formula ({most} GiB). "
                + (f"Would fit with: {'; '.join(planned.remedies)}." if planned.remedies else "No single change helps.")
            )
        for program, evidence in told.items():
            over = compiled_bytes(one, program, evidence) - case.topology.chip.memory
            if evidence.failed:
                lines.append(f"{where}: {program} did not compile: {evidence.failed}")
            elif over > 0:
                lines.append(f"{where}: {program} misses {over / GIB:.1f} GiB on every chip as compiled.")
    if not planned.layouts:
        lines.append(f"{case.name} on {case.topology.name}: no layout; needs {'; '.join(planned.remedies)}")
    return lines


def _moved_rows(planned: Planned) -> Rows:
    rows: Rows = []
    for one, told in planned.layouts[:1]:
        laid = program_layouts(one.case, one.layout)
        for program, phase in one.phases.items():
            row: dict[str, Cell] = {"program": f"{one.case.name} {one.case.topology.name} {program}"}
            names = ("gathered", "scattered", "copied", "summed")
            row |= {name: f"{size / 1e9:,.1f}" for name, size in zip(names, phase.moved[1:])}
            calls = one.case.work.rows.questions / laid[program].parts / laid[program].at_once
            row["calls"] = f"{calls * (one.case.work.rows.new_tokens if program == 'decode' else 1):,.0f}"
            row["a call"] = f"{phase.moved.total / float(str(row['calls']).replace(',', '')) / 1e9:,.2f}"
            if program in told and not told[program].failed:
                evidence = told[program]
                row["compiled"] = f"{sum(size for _, _, size in evidence.collectives) / 1e9:,.2f}"
                row |= {kind: f"{size / 1e9:,.2f}" for kind, _, size in evidence.collectives}
                row["kernels"] = ", ".join(evidence.kernels) or "none"
            rows.append(row)
    return rows


def _where_it_breaks(planned: Planned) -> str:
    """Say below which slice nothing fits, and from which the questions of a step are too few."""
    fitting = [one for one in planned.scaled if one is not None]
    if not fitting:
        return "None of these slices fits."
    first, last, rows = fitting[0], fitting[-1], planned.case.work.rows
    missing = len(planned.scaled) - len(fitting)
    small = f"Below {first.case.topology.name} nothing fits. " if missing else ""
    chips, each = rows.questions * last.layout.tensor, last.layout.parts / last.case.topology.chips
    return (
        f"{small}The bytes a chip receives hardly grow with the slice, so each chip keeps its rate as long as a step "
        f"asks {each:g} questions a chip. There it breaks: {rows.questions} questions cannot be split over more than "
        f"{chips:,} chips at tensor {last.layout.tensor}; {last.case.topology.chips:,} chips need "
        f"{last.layout.parts:,} questions of {rows.responses} responses."
    )


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
    return f"{one.layout.data}x{one.layout.fsdp}x{one.layout.tensor}"


def _record(planned: Planned) -> dict[str, Any]:
    return {
        "model": planned.case.name,
        "topology": planned.case.topology.name,
        "remedies": list(planned.remedies),
        "layouts": [
            {
                "mesh": {"data": one.layout.data, "fsdp": one.layout.fsdp, "tensor": one.layout.tensor},
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

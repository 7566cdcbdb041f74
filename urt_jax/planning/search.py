"""Search of the mesh and the questions at once: the fastest layouts that fit by formula, or the memory that is lacking.

1. compute the memory of each program and the seconds of a step for every layout of a slice;
2. sort the layouts that fit the chip's memory by the seconds of a step;
3. if none fits, report the nearest one, with the changes that would make it fit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from urt_jax.planning.chips import Topology, larger
from urt_jax.planning.layout import Attention, Layout, attention_of, held_entries, layouts
from urt_jax.planning.memory import STORED, Parts, Program, program_memory, questions_of
from urt_jax.planning.timing import Attained, Phase, needed_flops, program_phase, speed_of
from urt_jax.planning.workloads import Workload

MARGIN = 0.93  # share of a chip's memory that a formula may fill: for updates it was up to 7 % off compiled programs


@dataclass(frozen=True)
class Case:
    """A model with its rows on a slice; ``reference``: a second copy of the weights is kept for the KL term.

    ``sequences`` are the sizes of the mesh's sequence axis to search.
    """

    name: str
    work: Workload
    topology: Topology
    programs: tuple[Program, ...]
    reference: bool = False
    attained: Attained = field(default_factory=Attained)
    attention: Attention = "auto"
    sequences: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class Estimate:
    """The formulas' figures of one layout of a case."""

    case: Case
    layout: Layout
    memory: dict[Program, Parts]  # of one chip, with the arrays resident beside the program
    phases: dict[Program, Phase]
    seconds: dict[Program, float]

    @property
    def attention(self) -> Attention:
        """The attention: "whole" or "blocks"."""
        return attention_of(self.case.attention, self.case.topology, self.layout)

    @property
    def worst(self) -> Program:
        """The program that needs the most memory."""
        return max(self.memory, key=self.bytes_of)

    @property
    def bytes(self) -> float:
        """The memory that the worst program needs on one chip."""
        return self.bytes_of(self.worst)

    @property
    def missing(self) -> float:
        """Bytes above the usable memory; 0 or less if the layout fits."""
        return self.bytes - MARGIN * self.case.topology.chip.memory

    @property
    def step(self) -> float:
        """Seconds of one GRPO step, the sum of its programs; of an SFT step if there are no other programs."""
        stages = [seconds for program, seconds in self.seconds.items() if program != "sft"]
        return sum(stages) if stages else self.seconds["sft"]

    def bytes_of(self, program: Program) -> float:
        """Return the memory that a program needs on one chip."""
        return sum(self.memory[program].values())

    def mfu(self, program: Program) -> float:
        """Return the share of the chips' peak that is used for mathematically necessary operations."""
        peak = self.case.topology.chips * self.case.topology.chip.flops
        return needed_flops(self.case.work, program) / self.seconds[program] / peak


def estimate(case: Case, layout: Layout) -> Estimate:
    """Return the formulas' figures of one layout."""
    speed, laid = speed_of(case.topology, layout, case.attained), program_layouts(case, layout)
    attention = attention_of(case.attention, case.topology, layout)
    memory = {program: _memory(case, laid[program], program, attention) for program in case.programs}
    phases = {p: program_phase(case.work, laid[p], p, attention=attention) for p in case.programs}
    seconds = {program: phase.seconds(speed) for program, phase in phases.items()}
    return Estimate(case, layout, memory, phases, seconds)


def program_layouts(case: Case, layout: Layout) -> dict[Program, Layout]:
    """Return each program's layout: all prompts are prefilled at once, and as many questions decoded as fit."""
    questions = questions_of(case.work, "decode")
    sampler = layout.sampling(questions)
    each, room = questions // sampler.parts, MARGIN * case.topology.chip.memory
    choices = [replace(sampler, at_once=count) for count in range(each, 0, -1) if each % count == 0] or [sampler]
    fits = (one for one in choices if sum(_memory(case, one, "decode", "whole").values()) <= room)
    special = {"prefill": choices[0], "decode": next(fits, choices[-1])}
    return {program: special.get(program, layout) for program in case.programs}


def _memory(case: Case, layout: Layout, program: Program, attention: Attention) -> Parts:
    return program_memory(case.work, layout, program, attention=attention) | resident(case, layout, program)


def resident(case: Case, layout: Layout, program: Program) -> Parts:
    """Return the memory of arrays that stay on a chip while a program runs, but are not its arguments."""
    if program == "sft":
        return {}
    entries = held_entries(case.work.config, layout)
    weights = STORED * (entries.trained + entries.frozen)
    return {
        name: size
        for name, size in {
            "moments": 0.0 if program == "grpo" else 2 * STORED * entries.trained,
            "reference": weights * case.reference if program != "score" else 0.0,
            "policy": weights if program in ("score", "prefill", "decode") else 0.0,
        }.items()
        if size
    }


def search(case: Case) -> list[Estimate]:
    """Return the layouts that fit, the fastest first; only the fastest of each mesh."""
    fitting = sorted((one for one in _all(case) if one.missing <= 0), key=lambda one: (one.step, one.bytes))
    found: dict[Layout, Estimate] = {}
    for one in fitting:
        found.setdefault(replace(one.layout, at_once=1), one)
    return list(found.values())


def nearest(case: Case) -> Estimate | None:
    """Return the layout that lacks the least memory; None if the chips cannot even split the questions."""
    return min(_all(case), key=lambda one: one.missing, default=None)


def remedies(case: Case) -> list[str]:
    """Return single changes that make a case fit by formula, the smallest of each kind; empty if there are none."""
    found: dict[str, str] = {}
    for kind, text, other in _changes(case):
        if other != case and kind not in found and search(other):
            found[kind] = text
    return list(found.values())


def _changes(case: Case) -> Iterator[tuple[str, str, Case]]:
    """Yield changes with their kind and their description."""
    rows, tpu = case.work.rows, case.topology.chip.platform == "tpu"

    def asking(**more: int) -> Case:
        return replace(case, work=replace(case.work, rows=replace(rows, **more)))

    yield "attention", "attention in blocks instead of whole score matrices", replace(case, attention="blocks")
    for parts in (2, 4, 8):
        text = f"rows split over sequence={parts}" + (" with attention in blocks" if tpu else "")
        yield "sequence", text, replace(case, sequences=(parts,), attention="blocks" if tpu else case.attention)
    yield "reference", "no reference policy (kl_coef 0)", replace(case, reference=False)
    for part in (2, 4, 8):
        if rows.questions % part == 0:
            yield "questions", f"{rows.questions // part} questions per step", asking(questions=rows.questions // part)
    for part in (2, 4, 8):
        prompt, new = rows.prompt_tokens // part, rows.new_tokens // part
        text = f"prompts of {prompt:,} and responses of {new:,} tokens"
        yield "tokens", text, asking(prompt_tokens=prompt, new_tokens=new)
    for times in (2, 4, 8, 16):
        chips = larger(case.topology, times)
        if chips is not None:
            more = asking(questions=rows.questions * times, sft_rows=rows.sft_rows * times)
            yield "chips", f"{chips.name} ({chips.chips} chips)", replace(more, topology=chips)


def _all(case: Case) -> Sequence[Estimate]:
    rows = case.work.rows
    questions = questions_of(case.work, "sft" if case.programs == ("sft",) else "grpo")
    sizes = [size for size in case.sequences if rows.prompt_tokens % size == 0 and rows.new_tokens % size == 0]
    found = layouts(case.work.config, case.topology, questions=questions, sequences=sizes)
    return [estimate(case, layout) for layout in found]

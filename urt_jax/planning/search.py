"""Which mesh and how many questions at once: every layout by formula, the fastest that fit, or what is missing.

1. every layout of a slice gets its memory, program by program, and the seconds of a step;
2. those within the chip's memory are sorted by the time of a step;
3. where none fits, the one that misses least is told, with the changes that would make it fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from urt_jax.planning.chips import Topology, larger
from urt_jax.planning.layout import Attention, Layout, held_entries, layouts
from urt_jax.planning.memory import STORED, Parts, Program, program_memory
from urt_jax.planning.timing import Attained, Phase, needed_flops, program_phase, questions_of, speed_of
from urt_jax.planning.workloads import Workload

MARGIN = 0.93  # of a chip's memory that a formula may fill: updates were off by up to 7 % against compiled ones


@dataclass(frozen=True)
class Case:
    """A model with its rows on a slice; ``reference``: a second copy of the weights is kept for the KL term."""

    name: str
    work: Workload
    topology: Topology
    programs: tuple[Program, ...]
    reference: bool = False
    attained: Attained = field(default_factory=Attained)
    attention: Attention = "whole"


@dataclass(frozen=True)
class Estimate:
    """One layout of a case by formula."""

    case: Case
    layout: Layout
    memory: dict[Program, Parts]  # of one chip, what lies there beside the program included
    phases: dict[Program, Phase]
    seconds: dict[Program, float]

    @property
    def worst(self) -> Program:
        """The program that needs most memory."""
        return max(self.memory, key=self.bytes_of)

    @property
    def bytes(self) -> float:
        """What that program needs on one chip."""
        return self.bytes_of(self.worst)

    @property
    def missing(self) -> float:
        """Bytes above what may be filled; 0 or less where it fits."""
        return self.bytes - MARGIN * self.case.topology.chip.memory

    @property
    def step(self) -> float:
        """Seconds of one step: all programs after each other, SFT apart."""
        stages = [seconds for program, seconds in self.seconds.items() if program != "sft"]
        return sum(stages) if stages else self.seconds["sft"]

    def bytes_of(self, program: Program) -> float:
        """Return what a program needs on one chip."""
        return sum(self.memory[program].values())

    def mfu(self, program: Program) -> float:
        """Return the share of the chips' peak that goes into operations the mathematics needs."""
        peak = self.case.topology.chips * self.case.topology.chip.flops
        return needed_flops(self.case.work, program) / self.seconds[program] / peak


def estimate(case: Case, layout: Layout) -> Estimate:
    """Return the formulas' figures of one layout."""
    speed, laid = speed_of(case.topology, layout, case.attained), program_layouts(case, layout)
    memory = {program: _memory(case, laid[program], program) for program in case.programs}
    phases = {p: program_phase(case.work, laid[p], p, attention=case.attention) for p in case.programs}
    seconds = {program: phase.seconds(speed) for program, phase in phases.items()}
    return Estimate(case, layout, memory, phases, seconds)


def program_layouts(case: Case, layout: Layout) -> dict[Program, Layout]:
    """Return the layout of each program: a rollout takes as many questions at once as fit, for each gathers weights."""
    each = questions_of(case.work, "decode") // layout.parts
    sampling = [program for program in case.programs if program in ("prefill", "decode")]
    room = MARGIN * case.topology.chip.memory
    choices = [replace(layout, at_once=count) for count in range(each, 0, -1) if each % count == 0] or [layout]
    fits = (one for one in choices if all(sum(_memory(case, one, p).values()) <= room for p in sampling))
    rollout = next(fits, choices[-1])
    return {program: rollout if program in sampling else layout for program in case.programs}


def _memory(case: Case, layout: Layout, program: Program) -> Parts:
    return program_memory(case.work, layout, program, attention=case.attention) | resident(case, layout, program)


def resident(case: Case, layout: Layout, program: Program) -> Parts:
    """Return what lies on a chip in this stage while a program runs that does not have it as its argument."""
    if program == "sft":
        return {}
    entries = held_entries(case.work.config, layout)
    weights = STORED * (entries.trained + entries.frozen)
    return {
        name: size
        for name, size in {
            "moments": 0.0 if program == "grpo" else 2 * STORED * entries.trained,
            "reference": weights * case.reference if program != "score" else 0.0,
            "policy": weights if program == "score" else 0.0,
        }.items()
        if size
    }


def search(case: Case) -> list[Estimate]:
    """Return the layouts that fit, the fastest first; of one mesh only the fastest."""
    fitting = sorted((one for one in _all(case) if one.missing <= 0), key=lambda one: (one.step, one.bytes))
    found: dict[tuple[int, int, int], Estimate] = {}
    for one in fitting:
        found.setdefault((one.layout.data, one.layout.fsdp, one.layout.tensor), one)
    return list(found.values())


def nearest(case: Case) -> Estimate | None:
    """Return the layout that misses least; None where not even the questions can be split over the chips."""
    return min(_all(case), key=lambda one: one.missing, default=None)


def remedies(case: Case) -> list[str]:
    """Return single changes that make a case fit, each by formula; empty where none of them alone does."""
    rows = case.work.rows
    found = []
    changed: list[tuple[str, Case]] = [
        ("attention in blocks in place of whole score matrices", replace(case, attention="blocks")),
        ("no reference policy (kl_coef 0)", replace(case, reference=False)),
    ]
    for part in (2, 4, 8):
        fewer = replace(rows, responses=max(rows.responses // part, 1))
        text = f"updates of {fewer.responses} responses of a question at a time"
        changed.append((text, replace(case, work=replace(case.work, rows=fewer))))
    for part in (2, 4, 8):
        shorter = replace(rows, new_tokens=rows.new_tokens // part, prompt_tokens=rows.prompt_tokens // part)
        text = f"prompts of {shorter.prompt_tokens:,} and responses of {shorter.new_tokens:,} tokens"
        changed.append((text, replace(case, work=replace(case.work, rows=shorter))))
    for times in (2, 4, 8, 16):
        more_chips = larger(case.topology, times)
        if more_chips is not None:
            more = replace(rows, questions=rows.questions * times, sft_rows=rows.sft_rows * times)
            text = f"{more_chips.name} ({more_chips.chips} chips)"
            changed.append((text, replace(case, topology=more_chips, work=replace(case.work, rows=more))))
    kinds: set[str] = set()
    for text, other in changed:
        kind = text.split()[0] if ":" not in text else "chips"
        if other != case and kind not in kinds and search(other):
            kinds.add(kind)
            found.append(text)
    return found


def _all(case: Case) -> Sequence[Estimate]:
    questions = questions_of(case.work, "sft" if case.programs == ("sft",) else "grpo")
    return [estimate(case, layout) for layout in layouts(case.work.config, case.topology, questions=questions)]

"""Scaling by the formulas of ``timing``: slices of 8 to 1,024 chips with the same work per chip, or in total."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from urt_jax.planning.chips import Topology, larger
from urt_jax.planning.memory import Program
from urt_jax.planning.search import Case, Estimate, search
from urt_jax.planning.timing import speed_of

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)  # multiples of the smallest slice
COMPILED = (8, 64, 256, 1024)  # chips of the slices that a study compiles
SEQUENCES = (1, 2, 4, 8)  # sizes of the sequence axis to try if there are few questions


def slices(smallest: Topology) -> Iterator[Topology]:
    """Yield the slice and its doublings, up to the chip's largest slice."""
    for times in SIZES:
        found = larger(smallest, times)
        if found is not None:
            yield found


def weak_scaling(case: Case) -> list[Estimate | None]:
    """Return the fastest layout on each slice from the case's own upwards; None if nothing fits.

    The questions grow with the chips.
    """
    rows, chips = case.work.rows, case.topology.chips
    found: list[Estimate | None] = []
    for topology in slices(case.topology):
        times = topology.chips // chips
        more = replace(rows, questions=rows.questions * times, sft_rows=rows.sft_rows * times)
        fitting = search(replace(case, topology=topology, work=replace(case.work, rows=more)))
        found.append(fitting[0] if fitting else None)
    return found


def fixed_scaling(case: Case) -> list[Estimate | None]:
    """Return the fastest layout of the case's own questions on each slice; None if nothing splits or fits them.

    With more chips than questions, a row is split over several chips, with attention in blocks on TPUs.
    """
    attention = "blocks" if case.topology.chip.platform == "tpu" else case.attention
    more = replace(case, sequences=SEQUENCES, attention=attention)
    fitting = (search(replace(more, topology=topology)) for topology in slices(case.topology))
    return [one[0] if one else None for one in fitting]


def efficiency(estimates: Sequence[Estimate | None], program: Program | None = None) -> list[float | None]:
    """Return each slice's rate per chip, of a step or one program, relative to the smallest slice that fits."""
    rates = [None if one is None else _rate(one, program) for one in estimates]
    first = next((rate for rate in rates if rate is not None), None)
    return [None if rate is None or first is None else rate / first for rate in rates]


def _rate(one: Estimate, program: Program | None) -> float:
    """Return questions per second and chip."""
    seconds = one.step if program is None else one.seconds[program]
    return one.case.work.rows.questions / seconds / one.case.topology.chips


def limits(one: Estimate) -> dict[Program, str]:
    """Return the resource that limits each program."""
    speed = speed_of(one.case.topology, one.layout, one.case.attained)
    return {program: phase.limit(speed) for program, phase in one.phases.items()}

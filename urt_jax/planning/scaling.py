"""Weak scaling on paper: the same work for each chip on slices of 8 to 1,024 chips, by the formulas of ``timing``."""

from collections.abc import Iterator
from dataclasses import replace

from urt_jax.planning.chips import Topology, larger
from urt_jax.planning.memory import Program
from urt_jax.planning.search import Case, Estimate, search
from urt_jax.planning.timing import speed_of

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)  # times the smallest slice


def slices(smallest: Topology) -> Iterator[Topology]:
    """Yield the slice and its doublings, as far as there are such slices."""
    for times in SIZES:
        found = larger(smallest, times)
        if found is not None:
            yield found


def weak_scaling(case: Case) -> list[Estimate | None]:
    """Return the fastest layout on each slice from the case's own upwards; None where nothing fits.

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


def efficiency(estimates: list[Estimate | None], program: Program | None = None) -> list[float | None]:
    """Return each slice's rate of work a chip relative to the smallest that fits, of a step or of one program."""
    seconds = [None if one is None else one.step if program is None else one.seconds[program] for one in estimates]
    first = next((value for value in seconds if value is not None), None)
    return [None if value is None or first is None else first / value for value in seconds]


def limits(one: Estimate) -> dict[Program, str]:
    """Return what each program waits for most."""
    speed = speed_of(one.case.topology, one.layout, one.case.attained)
    return {program: phase.limit(speed) for program, phase in one.phases.items()}

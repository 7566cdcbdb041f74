"""The benchmark's tables of the input: its speed, and the workers that it needs to keep up with a step."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from urt_jax.evals.tables import Cell, format_table
from urt_jax.planning.input_case import COUNTS
from urt_jax.planning.input_needs import Demand, demands

SPARE = 1.25  # records that the input should deliver, over those that a step needs
NO_MATTER = 0.01  # share of a GRPO step that encoding its questions may take
NOTE = f"""\
CPU ms per record in the training process: without workers for all work, with two workers for receiving the result. A
worker takes the sum of both. Workers: the number that, with one core each, delivers {SPARE} times the records that a
step needs. Without workers, SFT encodes in a thread during the step, GRPO before the step."""


def input_text(size: str, measured: Mapping[str, Any], taken: Mapping[str, float]) -> tuple[str, list[dict[str, Any]]]:
    """Return the tables of one size and their records.

    ``taken`` is the number of records per second that the timed steps need. If records of published sizes were encoded
    too, the needs of published models are added, by formula.
    """
    kinds = measured["ready"]["pictures"]
    rates = {kind: _rates(measured["repetitions"], kind, pictures) for kind, pictures in kinds.items()}
    own = next(iter(kinds))
    needs = [Demand(size, "measured here", step, own, records) for step, records in taken.items()]
    if len(kinds) > 1:
        needs += demands()
    rows = [_need(need, rates[need.kind]) for need in needs]
    found: list[dict[str, Any]] = [{"size": size, "input": kind, **rate} for kind, rate in rates.items()]
    tables = [
        format_table([_rate_line(size, kind, rate) for kind, rate in rates.items()], width=120),
        format_table([_need_line(row) for row in rows], width=120) if rows else "",
        NOTE,
    ]
    return "\n\n".join(filter(None, tables)), [*found, *({"size": size, **row} for row in rows)]


def workers_needed(records: float, rate: Mapping[str, float], *, beside: bool) -> int:
    """Return the number of workers that deliver ``SPARE`` times these records per second, by CPU seconds.

    CPU seconds are the same on a busy machine, unlike records per second by the clock. ``beside``: without workers a
    thread encodes during the step; otherwise the step waits for the encoding.
    """
    asked, most = SPARE * records, 1.0 if beside else NO_MATTER
    return 0 if asked * rate["cpu/0"] <= most else math.ceil(asked * (rate["cpu/0"] + rate["cpu/2"]))


def _rates(repetitions: Sequence[Mapping[str, float]], kind: str, pictures: int) -> dict[str, float]:
    rate: dict[str, float] = {"pictures": pictures}
    for count in COUNTS:
        rate[f"per_second/{count}"] = 1 / median(repetition[f"{kind}/{count}/wall"] for repetition in repetitions)
        rate[f"cpu/{count}"] = median(repetition[f"{kind}/{count}/cpu"] for repetition in repetitions)
    return rate


def _need(need: Demand, rate: Mapping[str, float]) -> dict[str, Any]:
    busy, beside = need.records * rate["cpu/0"], not need.step.startswith("GRPO")
    workers = workers_needed(need.records, rate, beside=beside)
    told = "enough" if not workers else f"{1 / busy:.2f} of it" if beside else f"{busy:.0%} longer"
    return {**need._asdict(), "alone": told, "workers": workers}


def _rate_line(size: str, kind: str, rate: Mapping[str, float]) -> dict[str, Cell]:
    line: dict[str, Cell] = {f"input of {size}": kind}
    for count in COUNTS:
        line[f"records/s, {count} workers" if count != 1 else "1 worker"] = f"{rate[f'per_second/{count}']:,.1f}"
    best = max(rate[f"per_second/{count}"] for count in COUNTS)
    line["pictures/s, best"] = f"{best * rate['pictures']:,.0f}"
    line["CPU ms, 0 workers"], line["2 workers"] = (f"{1e3 * rate[f'cpu/{count}']:,.1f}" for count in (0, 2))
    return line


def _need_line(row: Mapping[str, Any]) -> dict[str, Cell]:
    return {
        "step": f"{row['model']} {row['step']}",
        "on": row["host"],
        "records": row["kind"],
        "takes /s": f"{row['records']:,.1f}",
        "without workers": row["alone"],
        "workers": row["workers"],
    }

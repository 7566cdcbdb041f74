"""The benchmark's figures: medians, floors and ratios of the measurements, and their printed text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from urt_jax.evals.tables import Cell, format_table
from urt_jax.planning.input_table import input_text
from urt_jax.planning.prefix import RESPONSES, prefix_flops
from urt_jax.planning.roofline import (
    Rates,
    Work,
    decode_work,
    floor_seconds,
    prefill_work,
    sft_work,
    update_work,
)
from urt_jax.planning.verdict_case import verdict_text
from urt_jax.planning.workloads import Workload, workload

SMALLEST_SET = 2**22  # bytes; with fewer, a traffic probe would measure its own start-up time
TITLES = {
    "sampler": {"prefill": "prefill", "decode": "decode", "wall": "whole rollout"},
    "sft": {"wall": "SFT step"},
    "grpo": {"prompts": "GRPO: prompts", "rollout": "GRPO: rollout", "update": "GRPO: update", "wall": "GRPO step"},
}
NO_PEERS = """\
No peers were timed: config.peers.python is not set. To create their environment (Python 3.11, torch first):
  python3.11 -m venv peers && peers/bin/pip install torch==2.13.0
  peers/bin/pip install trl==1.16.0 transformers==5.23.0 pillow datasets
and give --config.peers.python=peers/bin/python"""


@dataclass(frozen=True)
class Machine:
    """The machine's rates, from which floors are computed; they are those of all devices together."""

    title: str
    platform: str
    flops: float
    itemsize: int
    bandwidth: float
    bandwidth_by_size: Mapping[int, float]

    @classmethod
    def of(cls, probed: Mapping[str, Any]) -> "Machine":
        """Read what ``probe_machine`` returned, with the ``dtype`` of the computation beside it."""
        devices, dtype = probed["devices"], probed["dtype"]
        rates = ", ".join(f"{name} {flops / 1e9:,.0f} GFLOP/s" for name, flops in probed["flops"].items())
        device = "" if probed["platform"] == "cpu" else f"{devices} x {probed['device']}, "
        title = (
            f"{device}{probed['cpu']}, {probed['cores']} cores, jax {probed['jax']}, computing in {dtype}\n"
            f"measured of one device: {rates}, memory {probed['bandwidth'] / 1e9:,.1f} GB/s"
        )
        by_size = {int(size): devices * rate for size, rate in probed["bandwidth_by_size"].items()}
        itemsize = {"float32": 4, "bfloat16": 2}[dtype]
        flops, stream = devices * probed["flops"][dtype], devices * probed["bandwidth"]
        return cls(title, probed["platform"], flops, itemsize, stream, by_size)

    def rates(self, working_set: int) -> Rates:
        """Return the rates for a phase that reads the same ``working_set`` bytes repeatedly."""
        return Rates(self.flops, max(self.bandwidth, self.bandwidth_by_size.get(working_set, 0.0)))


def phase_work(work: Workload, itemsize: int) -> dict[str, tuple[Work, int]]:
    """Return the work of each phase, and its working set in bytes, rounded up to a power of 2."""
    decode = decode_work(work, itemsize=itemsize)
    parts = {
        "prefill": prefill_work(work, itemsize=itemsize),
        "decode": decode,
        "sft": sft_work(work, itemsize=itemsize),
        "update": update_work(work, itemsize=itemsize),
    }
    sizes = {name: part.bytes for name, part in parts.items()} | {"decode": decode.bytes / work.rows.new_tokens}
    return {name: (part, _power_of_2(sizes[name])) for name, part in parts.items()}


def working_sets(sizes: Sequence[str]) -> list[int]:
    """Return the sizes in bytes at which to measure memory traffic, for both dtypes of the computation."""
    found = {s for size in sizes for itemsize in (2, 4) for _, s in phase_work(workload(size), itemsize).values()}
    return sorted(size for size in found if size <= 2**29)


def phase_rows(size: str, case: str, measured: Mapping[str, Any], machine: Machine) -> list[dict[str, Any]]:
    """Return one record per phase: medians of seconds, floor, fractions, and ratios to the peers, pair by pair."""
    work = workload(size)
    floors = _floors(work, machine)
    tokens = _tokens(work)
    ours = measured["ours"]["repetitions"]
    rows = []
    for phase, title in TITLES[case].items():
        seconds = median(repetition[phase] for repetition in ours)
        row: dict[str, Any] = {"size": size, "phase": title, "seconds": seconds}
        if phase == "wall":
            row["cpu"] = median(repetition["cpu"] for repetition in ours)
        if (case, phase) in tokens:
            row["tokens_per_second"] = tokens[case, phase] / seconds
        if (case, phase) in floors:
            least, total = floors[case, phase]
            row |= {"floor": least, "of_floor": least / seconds, "flops": total.flops, "bytes": total.bytes}
            row["of_matrix_rate"] = total.flops / seconds / machine.flops
            row["of_bandwidth"] = total.bytes / seconds / machine.bandwidth
        row["peers"] = {
            name: _against(ours, told["repetitions"], phase)
            for name, told in measured.items()
            if name != "ours" and "repetitions" in told and phase in told["repetitions"][0]
        }
        rows.append(row)
    return rows


def prefix_rows(size: str, measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one record per number of responses: operations by formula and median seconds of both gradients."""
    work, ours = workload(size), measured["ours"]["repetitions"]
    rows = []
    for count in RESPONSES:
        shared, ordinary = prefix_flops(work, count)
        seconds = {
            name: median(repetition[f"{name} {count}"] for repetition in ours) for name in ("shared", "ordinary")
        }
        ratio = median(repetition[f"ordinary {count}"] / repetition[f"shared {count}"] for repetition in ours)
        told = {"shared_flops": shared, "ordinary_flops": ordinary, "ratio": ratio}
        rows.append({"size": size, "phase": f"gradient of {count} responses", "responses": count, **told, **seconds})
    return rows


def bench_text(
    machine: Machine, measured: Mapping[str, Mapping[str, Any]], *, peers: str | None
) -> tuple[str, list[dict[str, Any]]]:
    """Return the printed text and its records; ``measured`` is by size, case and program."""
    blocks, records = [machine.title], []
    for size, cases in measured.items():
        sound = {case: told for case, told in cases.items() if "failed" not in told["ours"]}
        steps = {case: told for case, told in sound.items() if case not in ("input", "verdict")}
        rows = [row for case, told in steps.items() if case in TITLES for row in phase_rows(size, case, told, machine)]
        shared = prefix_rows(size, sound["prefix"]) if "prefix" in sound else []
        records += rows + shared
        tables = ([line for row in rows for line in _lines(size, row)], [_prefix_line(row) for row in shared])
        costs = [_cost(case, told) for case, told in steps.items()]
        blocks += [format_table(lines, width=120) for lines in (*tables, costs) if lines]
        if "input" in sound:
            taken = {phase: asked / row["seconds"] for row in rows for phase, asked in _taken(size, row).items()}
            told, found = input_text(size, sound["input"]["ours"], taken)
            blocks.append(told)
            records += found
        if "verdict" in sound:
            told, found = verdict_text(sound["verdict"]["ours"])
            blocks.append(told)
            records += found
        blocks += [
            f"{size} {case}, {name} failed: {program['failed']}"
            for case, told in cases.items()
            for name, program in told.items()
            if "failed" in program
        ]
    if machine.platform != "cpu":
        blocks.append("The peers are timed on a CPU only.")
    elif peers is None:
        blocks.append(NO_PEERS)
    return "\n\n".join(blocks), records


def _taken(size: str, row: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of records that a whole step reads, by the step's title."""
    rows = workload(size).rows
    taken = {TITLES["sft"]["wall"]: rows.sft_rows, TITLES["grpo"]["wall"]: rows.questions}
    return {title: count for title, count in taken.items() if title == row["phase"]}


def _lines(size: str, row: Mapping[str, Any]) -> list[dict[str, Cell]]:
    """Return a phase's lines of the table: one, and one more for every peer after the first."""
    line: dict[str, Cell] = {size: row["phase"], "seconds": _seconds(row["seconds"])}
    line["CPU s"] = _seconds(row["cpu"]) if "cpu" in row else ""
    if "tokens_per_second" in row:
        line["tokens/s"] = f"{row['tokens_per_second']:,.0f}"
    if "floor" in row:
        line |= {"floor s": _seconds(row["floor"]), "% of floor": row["of_floor"]}
        line |= {"% matrix": row["of_matrix_rate"], "% memory": row["of_bandwidth"]}
    lines = [line]
    for number, (name, peer) in enumerate(row["peers"].items()):
        told: dict[str, Cell] = {"peer": name, "its s": _seconds(peer["seconds"]), "ratio": f"{peer['ratio']:.2f}x"}
        if number:
            lines.append({size: "", **told})
        else:
            line |= told
    return lines


def _prefix_line(row: Mapping[str, Any]) -> dict[str, Cell]:
    return {
        row["size"]: row["phase"],
        "shared GFLOP": f"{row['shared_flops'] / 1e9:,.1f}",
        "ordinary": f"{row['ordinary_flops'] / 1e9:,.1f}",
        "times": f"{row['ordinary_flops'] / row['shared_flops']:.2f}x",
        "shared s": _seconds(row["shared"]),
        "ordinary s": _seconds(row["ordinary"]),
        "ratio": f"{row['ratio']:.2f}x",
    }


def _cost(case: str, measured: Mapping[str, Any]) -> dict[str, Cell]:
    ready, repetitions = measured["ours"]["ready"], measured["ours"]["repetitions"]
    warm = median(repetition["wall"] for repetition in repetitions)
    peak = max(repetition["memory"] for repetition in repetitions)
    return {
        "program": case,
        "parameters": f"{ready['parameters'] / 1e6:,.2f} M",
        "compile s": f"{max(ready['first'] - warm, 0.0):.1f}",
        "peak memory": f"{peak / 1e6:,.0f} MB",
        "before it": f"{ready['memory_before'] / 1e6:,.0f} MB",
    }


def _against(ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]], phase: str) -> dict[str, Any]:
    """Return a peer's median seconds, and the median ratio of its seconds to ours, pair by pair."""
    ratios = [other[phase] / mine[phase] for mine, other in zip(ours, theirs, strict=True)]
    return {"seconds": median(other[phase] for other in theirs), "ratio": median(ratios), "ratios": ratios}


def _floors(work: Workload, machine: Machine) -> dict[tuple[str, str], tuple[float, Work]]:
    """Return the least seconds and the work of each phase; phases in sequence add up."""
    phases = phase_work(work, machine.itemsize)
    least = {name: floor_seconds(part, machine.rates(size)) for name, (part, size) in phases.items()}

    def total(*names: str) -> tuple[float, Work]:
        return sum(least[name] for name in names), sum((phases[name][0] for name in names), Work(0, 0))

    return {
        ("sampler", "prefill"): total("prefill"),
        ("sampler", "decode"): total("decode"),
        ("sampler", "wall"): total("prefill", "decode"),
        ("sft", "wall"): total("sft"),
        ("grpo", "rollout"): total("prefill", "decode"),
        ("grpo", "update"): total("update"),
        ("grpo", "wall"): total("prefill", "decode", "update"),
    }


def _tokens(work: Workload) -> dict[tuple[str, str], int]:
    """Return the number of tokens in each phase's rate: of each prompt once, of responses, or of whole SFT rows."""
    rows = work.rows
    completions = [
        ("sampler", "decode"),
        ("sampler", "wall"),
        ("grpo", "rollout"),
        ("grpo", "update"),
        ("grpo", "wall"),
    ]
    return {
        ("sampler", "prefill"): rows.questions * rows.prompt_tokens,
        ("sft", "wall"): rows.sft_rows * (rows.prompt_tokens + rows.new_tokens),
        **dict.fromkeys(completions, rows.completions),
    }


def _power_of_2(size: float) -> int:
    return max(SMALLEST_SET, 1 << (int(size) - 1).bit_length())


def _seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

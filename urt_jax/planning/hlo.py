"""Analysis of a compiled program's HLO text: its collectives, the bytes that they move in one run, and its kernels.

Loops are counted: a collective in a scan over 28 layers counts 28 times, unlike in ``cost_analysis``.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
KERNELS = ("tpu_custom_call", "__cudnn$fmha", "triton")  # targets of the calls of attention kernels
_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) .*\{$")
_COLLECTIVE = re.compile(rf"= (?P<result>.*?) (?P<kind>{'|'.join(KINDS)})(?P<started>-start)?\(")
_ARRAY = re.compile(r"\b(pred|[suf]\d+|bf16|f8\w*)\[([\d,]*)\]")
_WHILE = re.compile(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_CALLED = re.compile(r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_LIMIT = re.compile(r"[su]32\[\]\S* constant\((\d+)\)")
_KNOWN = re.compile(r'known_trip_count\\?":\s*\{\\?"n\\?":\\?"(\d+)')


@dataclass(frozen=True)
class Collective:
    """Collectives of one kind: the number of runs, and the bytes that each device receives."""

    kind: str
    runs: int
    bytes: float


def collectives(text: str) -> list[Collective]:
    """Return the collectives of an optimised HLO module, one record per kind that occurs.

    A reduction whose result is split at once (the TPU compiler's fused "all-reduce-scatter") counts as a
    reduce-scatter. In a ring of n devices, each receives (n - 1) / n of the gathered or scattered array, and twice that
    in an all-reduce. A loop whose length is not in the text counts once.
    """
    computations, entry = _computations(text)
    totals: dict[str, list[float]] = {}
    for name, times in _runs(computations, entry).items():
        for line in computations[name]:
            found = _COLLECTIVE.search(line)
            if found:
                fused = name.startswith("all-reduce-scatter")
                kind = "reduce-scatter" if fused else found["kind"]
                total = totals.setdefault(kind, [0, 0.0])
                total[0] += times
                total[1] += times * _received(found["kind"], fused, line, found["result"], bool(found["started"]))
    return [Collective(kind, int(runs), moved) for kind, (runs, moved) in sorted(totals.items())]


def kernels(text: str) -> list[str]:
    """Return the kinds of hand-written kernels that are called."""
    targets = re.findall(r'custom_call_target="([^"]+)"', text)
    return sorted({kernel for kernel in KERNELS for target in targets if kernel in target})


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    found: dict[str, list[str]] = {}
    entry = current = ""
    for line in text.splitlines():
        opened = _COMPUTATION.match(line)
        if opened:
            current = opened["name"]
            found[current] = []
            entry = current if opened["entry"] else entry
        elif current:
            found[current].append(line)
    return found, entry


def _runs(computations: dict[str, list[str]], entry: str) -> dict[str, int]:
    """Return the number of runs of each computation, from the entry down."""
    runs: dict[str, int] = {}
    waiting = [(entry, 1)]
    while waiting:
        name, times = waiting.pop()
        runs[name] = runs.get(name, 0) + times
        for line in computations[name]:
            waiting += [(called, times * length) for called, length in _calls(line, computations)]
    return runs


def _calls(line: str, computations: dict[str, list[str]]) -> Iterator[tuple[str, int]]:
    loop = _WHILE.search(line)
    if loop:
        known = _KNOWN.search(line)
        yield loop[2], int(known[1]) if known else _trips(computations[loop[1]], computations[loop[2]])
        return
    branches = _BRANCHES.search(line)
    called = _CALLED.findall(line) + ([part.strip(" %") for part in branches[1].split(",")] if branches else [])
    yield from ((name, 1) for name in called if name in computations)


def _trips(condition: list[str], body: list[str]) -> int:
    """Return a loop's number of iterations: its limit over its step (2 if unrolled by 2); 1 if not in the text."""
    limits = [int(n) for row in condition for n in _LIMIT.findall(row)]
    index = [int(n) for row in condition for n in re.findall(r"get-tuple-element\(.*\), index=(\d+)", row)]
    counters = [row for row in body if " ROOT " in row or row.startswith("  ROOT")]
    if not limits or not index or not counters:
        return max(limits, default=1)
    operands = re.findall(r"%[\w.\-]+", counters[-1].partition(" tuple(")[2].partition(")")[0])
    defined = {found[1]: row for row in body if (found := re.match(r"\s*(?:ROOT )?(%[\w.\-]+) = ", row))}
    added = re.search(r" add\((.*?)\)", defined.get(operands[index[0]], "") if index[0] < len(operands) else "")
    names = re.findall(r"%[\w.\-]+", added[1]) if added else []
    steps = [int(found[1]) for name in names if (found := _LIMIT.search(defined.get(name, "")))]
    return -(-max(limits) // max(steps, default=1))


def _received(kind: str, fused: bool, line: str, result: str, started: bool) -> float:
    arrays = [_array_bytes(*found) for found in _ARRAY.findall(result)]
    # A started collective returns its operand and its result (and counters); in a gather, the result is the larger.
    size = max(arrays, default=0.0) if started or kind == "collective-permute" else sum(arrays)
    devices = _group_size(line)
    share = (devices - 1) / devices
    if kind == "collective-permute":
        return size
    if kind == "reduce-scatter":
        return size * (devices - 1) if not started else size * share
    return size * share * (2 if kind == "all-reduce" and not fused else 1)


def _array_bytes(kind: str, sides: str) -> float:
    bits = 8 if kind == "pred" else int(re.sub(r"^\D+(\d+).*", r"\1", kind))
    return max(bits // 8, 1) * math.prod(int(side) for side in sides.split(",") if side)


def _group_size(line: str) -> int:
    counted = re.search(r"replica_groups=\[(\d+(?:,\d+)*)\]<=", line)
    if counted:
        return int(counted[1].split(",")[-1])
    named = re.search(r"replica_groups=mesh\[([^\]]*)\]\S* \{([^}]*)\}", line)
    if named:  # the sizes of a mesh's axes, then the axes of one group, which may be split, such as 'a':(1)2
        sizes = dict(part.split("=") for part in named[1].split(","))
        return math.prod(
            int(axis.rpartition(")")[2]) if ":(" in axis else int(sizes[axis]) for axis in named[2].split(",")
        )
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
    return len(listed[1].split(",")) if listed else 1

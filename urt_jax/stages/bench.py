"""Time sampler, SFT step and GRPO step against the machine's own limits, and against the peers beside them.

1. measure what the machine can do: matrix products and memory traffic;
2. for each size and case start our program and the peers', each in a process of its own, and warm them up;
3. have them repeat the same work in turn, so that every ratio is one of neighbours in time;
4. print a table a size; write every raw figure to ``bench.json``.
"""

from pathlib import Path
from typing import Any

from urt_jax.config import BenchConfig
from urt_jax.planning.bench_programs import check_peers, measure, probe
from urt_jax.planning.bench_table import Machine, bench_text
from urt_jax.progress import each
from urt_jax.runs.run_folder import write_json, write_result


def run(config: BenchConfig) -> None:
    """Measure, print the tables and write ``bench.json`` and the result."""
    folder = Path(config.workdir)
    (folder / "programs").mkdir(exist_ok=True)
    check_peers(config)
    machine = probe(config, folder)
    measured: dict[str, dict[str, Any]] = {size: {} for size in config.sizes}
    cases = [(size, case) for size in config.sizes for case in config.cases]
    for size, case in each(cases, title="bench", unit="case"):
        measured[size][case] = measure(config, folder, size, case, with_peers=machine["platform"] == "cpu")
    table, rows = bench_text(Machine.of(machine), measured, peers=config.peers.python)
    write_json(folder / "bench.json", {"machine": machine, "measured": measured, "rows": rows})
    print(table)
    write_result(folder, table, rows=rows)

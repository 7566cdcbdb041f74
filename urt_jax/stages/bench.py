"""Time sampler, SFT step and GRPO step, and compare them with the machine's limits and with peers.

1. measure the machine's rates of matrix products and memory traffic;
2. for each size and case start our program and the peers', each in its own process, and warm them up;
3. repeat the same work in each program in turn, so that every ratio is of runs close in time;
4. print a table per size; write every raw figure to ``bench.json``.
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

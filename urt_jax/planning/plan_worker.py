"""One compilation in its own process: ``python -m urt_jax.planning.plan_worker SPEC.json``.

A compiler that crashes ends only this process, and its memory is freed. The answer is one line of JSON.
"""

import json
import sys
from typing import TextIO

from urt_jax.families.presets import preset
from urt_jax.files.json_text import read_object
from urt_jax.planning.aot import as_record, compile_program
from urt_jax.planning.chips import topology
from urt_jax.planning.layout import Layout
from urt_jax.planning.workloads import RowCounts, Workload


def main(path: str, answers: TextIO) -> None:
    """Compile the spec's program and answer with the evidence."""
    spec = read_object(path)
    work = Workload(preset(spec["model"]), RowCounts(**spec["rows"]))
    layout = Layout(**spec["layout"])
    evidence = compile_program(work, topology(spec["topology"]), layout, spec["program"], spec["attention"])
    print(json.dumps(as_record(evidence)), file=answers, flush=True)


if __name__ == "__main__":
    answers, sys.stdout = sys.stdout, sys.stderr  # only the answer goes to the pipe
    main(sys.argv[1], answers)

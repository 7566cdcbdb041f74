"""One case of the benchmark in its own process: ``python -m urt_jax.planning.bench_worker SPEC.json``.

A new process has its own peak memory and compiles its own programs. It speaks the protocol of ``planning.paired``.
"""

import json
import os
import sys
import time
from contextlib import closing
from typing import Any, TextIO

import jax

from urt_jax.files.json_text import read_object
from urt_jax.models.vlm import abstract_params
from urt_jax.planning.cases import CASES, Setting
from urt_jax.planning.input_case import InputCase
from urt_jax.planning.prefix import PrefixCase
from urt_jax.planning.probes import peak_memory, probe_machine
from urt_jax.planning.verdict_case import VerdictCase
from urt_jax.planning.workloads import workload
from urt_jax.sharding.mesh import compute_dtype, make_mesh


def main(path: str, asked: TextIO, answers: TextIO) -> None:
    """Build the spec's case, run it once to compile it, then repeat it for every line read."""
    spec = read_object(path)

    def answer(**figures: Any) -> None:
        print(json.dumps(figures), file=answers, flush=True)

    dtype = compute_dtype(spec["dtype"])
    if spec["case"] == "probe":
        answer(**probe_machine(spec["working_sets"], quick=spec["quick"]), dtype=dtype.name)
        return
    work = workload(spec["size"])
    if spec["case"] == "input":
        with closing(InputCase(work.rows, seed=spec["seed"], quick=spec["size"] == "toy")) as records:
            records.repeat()
            answer(pictures=records.pictures)
            for _ in asked:
                answer(**records.repeat())
        return
    if spec["case"] == "verdict":
        with closing(VerdictCase(os.environ)) as verdicts:
            answer(cold=verdicts.cold)
            for _ in asked:
                answer(**verdicts.repeat())
        return
    before = peak_memory()
    setting = Setting(work, make_mesh(**spec["mesh"]), dtype, spec["remat"], spec["seed"])
    case = {**CASES, "prefix": PrefixCase}[spec["case"]](setting)
    started = time.perf_counter()
    case.repeat()
    parameters = sum(leaf.size for leaf in jax.tree.leaves(abstract_params(work.config)))
    answer(first=time.perf_counter() - started, parameters=parameters, memory_before=before)
    for _ in asked:
        answer(**case.repeat(), memory=peak_memory())


if __name__ == "__main__":
    answers, sys.stdout = sys.stdout, sys.stderr  # only answers go to the pipe
    main(sys.argv[1], sys.stdin, answers)

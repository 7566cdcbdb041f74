"""The programs of a benchmark, ours and the peers': each in its own process, repeating the same work in turn."""

import dataclasses
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from urt_jax.config import BenchConfig
from urt_jax.errors import BadInputError
from urt_jax.families.qwen2_5_vl import write_config
from urt_jax.planning.bench_table import working_sets
from urt_jax.planning.paired import Program, ProgramError, in_turn
from urt_jax.planning.workloads import PAD, TURN_END, suppressed_ids, workload

PACKAGE = Path(__file__).parents[1]
# Peers of each case: name in the table -> (script, whether it is compiled).
PEERS = {
    "sampler": {"transformers": ("hf_generate.py", False), "transformers compiled": ("hf_generate.py", True)},
    "sft": {"torch": ("torch_sft.py", False)},
    "grpo": {"TRL": ("trl_grpo.py", False)},
    "input": {},
    "verdict": {},
}
# Our programs import this package, and compile without the cache of earlier runs.
OUR_ENVIRONMENT = {"PYTHONPATH": str(PACKAGE.parent), "JAX_ENABLE_COMPILATION_CACHE": "false"}


def check_peers(config: BenchConfig) -> None:
    """Check that the configured peers exist.

    Raises:
        BadInputError: the interpreter or the scripts do not exist.
    """
    peers = config.peers
    if peers.python is not None and not os.access(peers.python, os.X_OK):
        raise BadInputError(f"config.peers.python: {peers.python} is not a program; give their environment's python")
    if peers.python is not None and not (Path(peers.folder) / "hf_generate.py").is_file():
        raise BadInputError(
            f"config.peers.folder: {peers.folder} holds no hf_generate.py; run in a checkout of the project, whose "
            "tests/peers holds the peers' scripts, or leave config.peers.python unset"
        )


def probe(config: BenchConfig, folder: Path) -> dict[str, Any]:
    """Return the machine's description and measured rates; another process uses the device."""
    sets, quick = working_sets(config.sizes), set(config.sizes) == {"toy"}
    with _ours(config, folder, "machine", case="probe", working_sets=sets, quick=quick) as program:
        return program.ready()


def measure(config: BenchConfig, folder: Path, size: str, case: str, *, with_peers: bool) -> dict[str, Any]:
    """Return the raw figures of one case by program (``ours`` and the peers' names), or the reasons of failures.

    ``ready`` holds a program's answer when it was warm, ``repetitions`` its repetitions; a failed one has ``failed``
    instead. A peer that fails is left out; the others are still timed.
    """
    peers = config.peers
    asked = PEERS.get(case, {}) if with_peers and peers.python else {}
    names = ["ours", *(name for name, (_, compiled) in asked.items() if peers.compiled or not compiled)]
    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        programs: dict[str, Program] = {}
        for name in names:  # one at a time, because warming up uses all cores
            ours = name == "ours"
            started = _ours(config, folder, f"{size}-{case}", size=size, case=case) if ours else None
            program = stack.enter_context(started or _peer(config, folder, size, case, name))
            try:
                figures[name] = {"ready": program.ready()}
                programs[name] = program
            except ProgramError as error:
                figures[name] = {"failed": str(error)}
                if ours:
                    return figures
        try:
            for name, repetitions in in_turn(programs, config.repetitions).items():
                figures[name]["repetitions"] = repetitions
        except ProgramError as error:
            return {name: {**told, "failed": str(error)} for name, told in figures.items()}
    return figures


def _ours(config: BenchConfig, folder: Path, name: str, **asked: Any) -> Program:
    """Start our worker with a spec."""
    spec: dict[str, Any] = {"dtype": config.dtype, "remat": config.remat, "seed": config.seed}
    spec |= {"mesh": dataclasses.asdict(config.mesh), **asked}
    path = _write_spec(folder, f"{name}-ours", spec)
    command = [sys.executable, "-m", "urt_jax.planning.bench_worker", str(path)]
    return Program(command, log=path.with_suffix(".log"), environment=OUR_ENVIRONMENT)


def _peer(config: BenchConfig, folder: Path, size: str, case: str, name: str) -> Program:
    """Start a peer's script on the same model and rows; its threads sleep while they wait, as ours do."""
    script, compiled = PEERS[case][name]
    work = workload(size)
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    ids = {"bos_token_id": PAD, "pad_token_id": PAD, "eos_token_id": TURN_END}
    spec = {
        "model": write_config(work.config, ids),
        "rows": dataclasses.asdict(work.rows),
        "words": work.text_tokens(),
        "suppressed": suppressed_ids(work.config),
        "threads": threads,
        "compiled": compiled,
        "seed": config.seed,
    }
    path = _write_spec(folder, f"{size}-{case}-{name.replace(' ', '-')}", spec)
    command = [str(config.peers.python), str(Path(config.peers.folder) / script), str(path)]
    environment = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    return Program(command, log=path.with_suffix(".log"), environment=environment)


def _write_spec(folder: Path, name: str, spec: dict[str, Any]) -> Path:
    path = folder / "programs" / f"{name}.json"
    path.write_text(json.dumps(spec, indent=2) + "\n", encoding="utf-8")
    return path

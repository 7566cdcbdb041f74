"""Ahead-of-time compilation for a TPU slice or GPU nodes from the compiler's device descriptions, without hardware.

It needs libtpu (TPU) or JAX's CUDA plugin with nvcc's libraries (GPU), from the extra ``plan``, but no accelerator and
no driver. The result is evidence of compilation: the memory needed and the bytes moved, but no measured speed.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental.topologies import get_topology_desc

from urt_jax.errors import BadInputError
from urt_jax.files.fields import Fields
from urt_jax.planning.chips import Topology
from urt_jax.planning.hlo import collectives, kernels
from urt_jax.planning.layout import Attention, Layout
from urt_jax.planning.memory import Program, questions_of
from urt_jax.planning.programs import Given, prepare
from urt_jax.planning.workloads import Workload
from urt_jax.sharding.mesh import make_mesh

# Set before jax is imported: the host's device is a CPU, no metadata server is queried, two compilers may run.
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
INSTALL = {
    "tpu": ("libtpu", "pip install 'urt-jax[plan]'"),
    "cuda": ("jax_cuda12_plugin", "pip install 'urt-jax[plan]' (Linux with glibc only)"),
}
# With Triton, the GPU compiler would choose the tiles of matrix products by timing kernels on the device.
OPTIONS: dict[str, dict[str, Any]] = {"tpu": {}, "cuda": {"xla_gpu_enable_triton_gemm": False}}
PACKAGE = Path(__file__).parents[1]
# One H100 or H200, as its driver would describe it (text of XLA's GpuTargetConfigProto).
_GPU = """
gpu_device_info {{ threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: {bandwidth}
  l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: {memory} shared_memory_per_block_optin: 232448
  cuda_compute_capability {{ major: 9 }} registers_per_core_limit: 65536 registers_per_block_limit: 65536 }}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 }} runtime_version {{ major: 12 minor: 9 patch: 0 }}
device_description_str: "{title}"
"""

MAX_TOLD = 4096  # most kinds of collectives, and of kernels, in a record; a program has a few dozen


@dataclass(frozen=True)
class Evidence:
    """The evidence of compiling one program; bytes are per chip. ``failed`` is the compiler's reason, if it failed."""

    seconds: float  # CPU seconds of all cores, which do not depend on other work of the machine
    failed: str = ""
    arguments: float = 0.0
    temporaries: float = 0.0
    outputs: float = 0.0  # without those that reuse the memory of arguments
    collectives: tuple[tuple[str, int, float], ...] = ()  # kind, runs, bytes received
    kernels: tuple[str, ...] = ()

    @property
    def bytes(self) -> float:
        """All memory that the program needs."""
        return self.arguments + self.temporaries + self.outputs


def check_compiler(topology: Topology) -> None:
    """Check that the compiler for a slice is installed.

    Raises:
        BadInputError: it is not; the message says how to install it, or how to plan by formula only.
    """
    module, command = INSTALL[topology.chip.platform]
    if importlib.util.find_spec(module) is None:
        raise BadInputError(
            f"compiling for {topology.name} needs the package {module}, which is not installed: {command}, "
            "or give --config.compile=False to plan by formula only"
        )


def devices_of(topology: Topology) -> Sequence[Any]:
    """Return the devices of a slice from the compiler's description, one per chip."""
    chip = topology.chip
    if chip.platform == "tpu":
        more = {"chip_config_name": "megacore"} if chip.name == "v4" else {}
        return get_topology_desc(platform="tpu", topology_name=topology.name, **more).devices
    told = _GPU.format(bandwidth=int(chip.bandwidth), memory=int(chip.memory), title=f"NVIDIA {chip.name.upper()}")
    nodes, each = topology.shape
    return get_topology_desc(platform="cuda", target_config=told, topology=f"1x{nodes}x{each}").devices


def compile_program(
    work: Workload, topology: Topology, layout: Layout, program: Program, attention: Attention = "whole"
) -> Evidence:
    """Compile one program over all questions of a step for a slice; a failed compilation is evidence too.

    Attention in "blocks" is the kernel of ``models.attention`` for the chip.
    """
    started, kernel = time.process_time(), {"tpu": "splash", "cuda": "cudnn"}[topology.chip.platform]
    questions = questions_of(work, program)
    try:
        mesh = make_mesh(layout.data, layout.fsdp, layout.tensor, layout.sequence, devices=devices_of(topology))
        pieces = questions // (layout.parts * layout.at_once)
        given = Given(work, mesh, questions, np.dtype("bfloat16"), pieces)
        given = replace(given, attention=kernel) if attention == "blocks" else given
        step, arguments = prepare(program, given)
        compiled = step.lower(*arguments).compile(compiler_options=OPTIONS[topology.chip.platform])
    except jax.errors.JaxRuntimeError as error:
        return Evidence(time.process_time() - started, failed=first_lines(str(error)))
    seconds, memory, text = time.process_time() - started, compiled.memory_analysis(), compiled.as_text()
    return Evidence(
        seconds,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        collectives=tuple((one.kind, one.runs, one.bytes) for one in collectives(text)),
        kernels=tuple(kernels(text)),
    )


def fingerprint(
    work: Workload, topology: Topology, layout: Layout, program: Program, attention: Attention = "whole"
) -> str:
    """Return a hash of everything that a compilation depends on: the request, our code, and the compiler's version."""
    told = hashlib.sha256(repr((work, topology, layout, program, attention)).encode())
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent.name in ("models", "towers", "ops", "losses", "training", "generation", "sharding"):
            told.update(path.read_bytes())
    told.update((PACKAGE / "planning" / "programs.py").read_bytes())
    for package in ("jax", "jaxlib", "flax", "optax", "libtpu", "jax-cuda12-plugin"):
        told.update(f"{package}{_version(package)}".encode())
    return told.hexdigest()[:32]


def compiler_of(topology: Topology) -> str:
    """Return the compiler's name and version."""
    package = "libtpu" if topology.chip.platform == "tpu" else "jax-cuda12-plugin"
    return f"jax {_version('jax')}, {package} {_version(package)}"


def as_record(evidence: Evidence) -> dict[str, Any]:
    """Return evidence as plain JSON values."""
    told = {name: value for name, value in asdict(evidence).items() if not isinstance(value, tuple)}
    return {**told, "collectives": list(map(list, evidence.collectives)), "kernels": list(evidence.kernels)}


def from_record(record: Mapping[str, Any], where: str) -> Evidence:
    """Return the evidence of a record from ``as_record``; ``where`` names its source in errors.

    Raises:
        BadInputError: the record is of another program or damaged.
    """
    fields = Fields(record, where)
    moved = []
    for n, item in enumerate(fields.values_of("collectives", at_most=MAX_TOLD)):
        given = dict(zip(("kind", "runs", "bytes"), item)) if isinstance(item, list) else {}
        one = Fields(given, f"{where}: collectives: {n}")
        moved.append((one.text("kind"), one.integer("runs", at_most=2**53), one.number("bytes", at_least=0)))
    return Evidence(
        seconds=fields.number("seconds", at_least=0),
        failed=fields.text("failed", ""),
        arguments=fields.number("arguments", at_least=0),
        temporaries=fields.number("temporaries", at_least=0),
        outputs=fields.number("outputs", at_least=0),
        collectives=tuple(moved),
        kernels=fields.texts("kernels", at_most=MAX_TOLD),
    )


def first_lines(message: str, *, most: int = 300) -> str:
    """Return the beginning of a compiler's error, which may be pages long."""
    text = " ".join(message.split())
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0] + " ..."


def compiler_environment() -> dict[str, str]:
    """Return the environment of a compiling process; it must be set before jax is imported."""
    return {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"

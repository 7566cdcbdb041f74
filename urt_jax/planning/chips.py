"""Published figures of accelerators, and slices of them by name: ``v5p:4x4x4``, ``h100:1x8`` (nodes x GPUs)."""

import math
from dataclasses import dataclass

from urt_jax.errors import BadInputError, unknown_choice

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One chip. ``link`` is bytes/s in one direction of one link; a GPU has one link to its node's switch."""

    name: str
    platform: str  # of the compiler: "tpu" or "cuda"
    flops: float  # peak operations/s of dense bfloat16 matrix products
    memory: float  # bytes available to programs
    bandwidth: float  # bytes/s of that memory
    link: float
    axes: int  # axes of the torus, with two links each; 0 = a switch
    ring_from: int  # least number of chips along an axis whose ends are connected to a ring
    most: int  # most chips of one slice (GPUs: up to which these figures apply)
    network: float  # bytes/s per chip to other nodes
    source: str

    def slice_bandwidth(self, chips: int, *, axes: int, length: int) -> float:
        """Return the bytes/s that one chip receives in a collective of ``chips`` chips along ``axes`` torus axes.

        An axis whose ends are connected moves data in both directions at once; otherwise a ring over it folds back, and
        one direction is lost. ``length`` is the longest of those axes. GPUs of several nodes share the network.
        """
        if not self.axes:
            return self.link if chips <= length else self.network
        return self.link * axes * (2 if length >= self.ring_from else 1)


# A TPU's memory is what the compiler of libtpu 0.0.42 allows a program; all other figures are from the sources.
# Peaks: dense bfloat16. Links: bidirectional bandwidth per chip / 2 directions / ports (v4: arXiv 2304.01433, table 4).
_TPU = "https://cloud.google.com/tpu/docs/"
_NVIDIA = "https://www.nvidia.com/en-us/data-center/"
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", "tpu", 275e12, 30.75 * GIB, 1200e9, 50e9, 3, 4, 4096, 6.25e9, _TPU + "v4"),
        Chip("v5e", "tpu", 197e12, 15.75 * GIB, 819e9, 50e9, 2, 16, 256, 3.125e9, _TPU + "v5e"),
        Chip("v5p", "tpu", 459e12, 95.74 * GIB, 2765e9, 100e9, 3, 4, 6144, 6.25e9, _TPU + "v5p"),
        Chip("v6e", "tpu", 918e12, 31.25 * GIB, 1600e9, 100e9, 2, 16, 256, 12.5e9, _TPU + "v6e"),
        Chip("h100", "cuda", 989e12, 79.1 * GIB, 3350e9, 450e9, 0, 8, 1024, 50e9, _NVIDIA + "h100/"),
        Chip("h200", "cuda", 989e12, 139.4 * GIB, 4800e9, 450e9, 0, 8, 1024, 50e9, _NVIDIA + "h200/"),
    )
}


@dataclass(frozen=True)
class Topology:
    """A slice: the chip and the number of chips along each axis (GPUs: nodes, GPUs of a node)."""

    chip: Chip
    shape: tuple[int, ...]

    @property
    def chips(self) -> int:
        """Total number of chips."""
        return math.prod(self.shape)

    @property
    def name(self) -> str:
        """Its name in a config."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"


def topology(name: str) -> Topology:
    """Read ``<chip>:<n>x<n>[x<n>]``.

    Raises:
        BadInputError: the chip is unknown, or its torus cannot have the shape.
    """
    kind, _, sizes = name.partition(":")
    if kind not in CHIPS:
        raise BadInputError(f"topology {name!r}: chip {unknown_choice(kind, CHIPS)}")
    chip, wanted = CHIPS[kind], CHIPS[kind].axes or 2
    parts = sizes.split("x")
    if not all(part.isdecimal() and int(part) for part in parts) or len(parts) != wanted:
        example = {2: "2x4" if chip.axes else "1x8", 3: "2x2x4"}[wanted]
        axes = f"{wanted} numbers of chips" if chip.axes else "nodes x GPUs of a node"
        raise BadInputError(f"topology {name!r}: {kind} takes {axes}, such as {kind}:{example}")
    found = Topology(chip, tuple(int(part) for part in parts))
    if found.chips > chip.most:
        raise BadInputError(f"topology {name!r} has {found.chips} chips, a slice of {kind} has at most {chip.most}")
    return found


def larger(topology: Topology, times: int) -> Topology | None:
    """Return a slice with ``times`` (a power of 2) as many chips, its shortest axes doubled; GPUs: more nodes.

    None if a slice cannot have so many chips.
    """
    if topology.chips * times > topology.chip.most:
        return None
    shape = list(topology.shape)
    while times > 1:
        axis = shape.index(min(shape)) if topology.chip.axes else 0
        shape[axis] *= 2
        times //= 2
    return Topology(topology.chip, tuple(sorted(shape) if topology.chip.axes else shape))

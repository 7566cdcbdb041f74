"""How a model and its rows are laid out on a slice, and what of its weights one chip holds."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import jax
from jax.sharding import AbstractMesh, AxisType

from urt_jax.models.config import ModelConfig
from urt_jax.models.vlm import abstract_params
from urt_jax.planning.chips import Topology
from urt_jax.sharding.mesh import AXES
from urt_jax.sharding.rules import spec_for

Attention = Literal["whole", "blocks"]
TRAINED = (r"^(decoder/|embedding$|head$)",)  # the language model, as in every stage by default


@dataclass(frozen=True)
class Layout:
    """Chips along each axis of the mesh, and the questions (rows, in SFT) that each data part works on at once."""

    data: int
    fsdp: int
    tensor: int
    at_once: int = 1

    @property
    def parts(self) -> int:
        """Parts that the rows of a batch are split into."""
        return self.data * self.fsdp

    @property
    def chips(self) -> int:
        """Chips in all."""
        return self.parts * self.tensor

    def mesh(self) -> AbstractMesh:
        """Return the mesh without devices, for the table of rules."""
        return AbstractMesh((self.data, self.fsdp, 1, self.tensor), AXES, (AxisType.Auto,) * len(AXES))

    def __str__(self) -> str:
        return f"{self.data} x {self.fsdp} x {self.tensor}, {self.at_once} at once"


class Entries(NamedTuple):
    """Numbers that one chip holds of a model's weights."""

    trained: float
    frozen: float


@cache
def held_entries(config: ModelConfig, layout: Layout) -> Entries:
    """Return what one chip holds by the table of rules: exact, leaf by leaf."""
    mesh, found = layout.mesh(), {True: 0.0, False: 0.0}
    for path, leaf in _leaves(config):
        split = 1
        for axis in spec_for(path, leaf, mesh):
            split *= mesh.shape[axis] if axis else 1
        size = 1
        for side in leaf:
            size *= side
        found[any(re.search(pattern, path) for pattern in TRAINED)] += size / split
    return Entries(found[True], found[False])


@cache
def total_entries(config: ModelConfig) -> Entries:
    """Return what the whole model has."""
    return held_entries(config, Layout(1, 1, 1))


def layouts(config: ModelConfig, topology: Topology, *, questions: int) -> list[Layout]:
    """Return the layouts worth a look: rows split evenly, key heads whole on a chip, copies of the state last.

    ``questions`` are those of one step. The tensor axis divides the key heads and stays inside a node of GPUs and
    along one axis of a torus.
    """
    found = []
    longest = max(topology.shape) if topology.chip.axes else topology.shape[-1]
    for tensor in _divisors(topology.chips):
        if config.decoder.kv_heads % tensor or tensor > longest:
            continue
        parts = topology.chips // tensor
        if questions % parts:
            continue
        for fsdp in _divisors(parts):
            found += [Layout(parts // fsdp, fsdp, tensor, at_once) for at_once in _divisors(questions // parts)]
    return found


def _divisors(number: int) -> list[int]:
    return [side for side in range(1, number + 1) if number % side == 0]


@cache
def _leaves(config: ModelConfig) -> tuple[tuple[str, tuple[int, ...]], ...]:
    flat = jax.tree_util.tree_leaves_with_path(abstract_params(config))
    return tuple((jax.tree_util.keystr(path, simple=True, separator="/"), tuple(leaf.shape)) for path, leaf in flat)

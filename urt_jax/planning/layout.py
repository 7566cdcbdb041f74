"""Layouts of a model and its rows on a slice, and the number of weights that one chip holds."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Literal, NamedTuple

import jax
from jax.sharding import AbstractMesh, AxisType

from urt_jax.models.config import ModelConfig
from urt_jax.models.vlm import abstract_params
from urt_jax.planning.chips import Topology
from urt_jax.sharding.mesh import AXES
from urt_jax.sharding.rules import name_of, spec_for

Attention = Literal["auto", "whole", "blocks"]  # whole score matrices, or the chip's kernel in blocks
TRAINED = (r"^(decoder/|embedding$|head$)",)  # the language model, as in every stage by default


@dataclass(frozen=True)
class Layout:
    """Chips along each axis of the mesh, and the questions (rows, in SFT) that each part computes at once.

    Updates and scores compute more questions in ``micro_batches``; in decoding, the others wait.
    """

    data: int
    fsdp: int
    tensor: int
    at_once: int = 1
    sequence: int = 1

    @property
    def parts(self) -> int:
        """Parts that the rows of a batch are split into."""
        return self.data * self.fsdp

    @property
    def shards(self) -> int:
        """Parts that weights are split into, without ``tensor``."""
        return self.fsdp * self.sequence

    @property
    def chips(self) -> int:
        """Total number of chips."""
        return self.parts * self.sequence * self.tensor

    def mesh(self) -> AbstractMesh:
        """Return the mesh without devices, for the table of rules."""
        return AbstractMesh((self.data, self.fsdp, self.sequence, self.tensor), AXES, (AxisType.Auto,) * len(AXES))

    def __str__(self) -> str:
        return f"{self.data} x {self.fsdp} x {self.sequence} x {self.tensor}, {self.at_once} at once"

    def sampling(self, questions: int) -> "Layout":
        """Return the sampler's layout, which splits questions over ``sequence`` too if they divide evenly."""
        if self.sequence == 1 or questions % (self.parts * self.sequence):
            return self
        return replace(self, fsdp=self.shards, sequence=1)


class Entries(NamedTuple):
    """Numbers of a model's weights that one chip holds."""

    trained: float
    frozen: float


def held_entries(config: ModelConfig, layout: Layout) -> Entries:
    """Return the exact numbers of weights that one chip holds, leaf by leaf, by the table of rules."""
    return _held(config, layout.mesh())


@cache
def _held(config: ModelConfig, mesh: AbstractMesh) -> Entries:
    found = {True: 0.0, False: 0.0}
    for path, leaf in _leaves(config):
        spec = spec_for(path, leaf, mesh)
        axes = [axis for entry in spec for axis in ((entry,) if isinstance(entry, str) else entry or ())]
        held = math.prod(leaf) / math.prod(mesh.shape[axis] for axis in axes)
        found[any(re.search(pattern, path) for pattern in TRAINED)] += held
    return Entries(found[True], found[False])


def total_entries(config: ModelConfig) -> Entries:
    """Return the numbers of weights of the whole model."""
    return held_entries(config, Layout(1, 1, 1))


def layouts(
    config: ModelConfig, topology: Topology, *, questions: int, sequences: Sequence[int] = (1,)
) -> list[Layout]:
    """Return the candidate layouts: rows split evenly, key heads whole on a chip, more replicas of the state last.

    ``questions`` counts those of one step; ``sequences`` are the sizes of that axis to try. The sequence axis and the
    tensor axis, which divides the key heads, stay inside a node of GPUs, or each along one axis of a torus.
    """
    found = []
    longest = max(topology.shape) if topology.chip.axes else topology.shape[-1]
    for tensor, sequence in product(_divisors(topology.chips), sequences):
        parts = topology.chips // (tensor * sequence)
        beyond = max(tensor, sequence) > longest or (not topology.chip.axes and tensor * sequence > longest)
        if config.decoder.kv_heads % tensor or topology.chips % (tensor * sequence) or beyond or questions % parts:
            continue
        for fsdp in _divisors(parts):
            for at_once in _divisors(questions // parts):
                found.append(Layout(parts // fsdp, fsdp, tensor, at_once, sequence))
    return found


def attention_of(asked: Attention, topology: Topology, layout: Layout) -> Attention:
    """Return the given attention; for "auto" that of the stages: a TPU's kernel in blocks, unless rows are split."""
    if asked != "auto":
        return asked
    return "blocks" if topology.chip.platform == "tpu" and layout.sequence == 1 else "whole"


def _divisors(number: int) -> list[int]:
    return [side for side in range(1, number + 1) if number % side == 0]


@cache
def _leaves(config: ModelConfig) -> tuple[tuple[str, tuple[int, ...]], ...]:
    flat = jax.tree_util.tree_leaves_with_path(abstract_params(config))
    return tuple((name_of(path), tuple(leaf.shape)) for path, leaf in flat)

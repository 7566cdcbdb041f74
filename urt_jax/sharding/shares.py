"""The share of a process: the rows of a batch on its devices, the only rows it reads and makes.

Rows are split into parts over ``data`` and ``fsdp``. A process holds some of the parts, mostly adjacent ones::

    parts       0 1 | 2 3 | 4 5 | 6 7       8 devices of 4 processes, data=8
    shares       0     1     2     3

Where ``sequence`` x ``tensor`` spans several processes, they hold the same share and all of them make it.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from urt_jax.types import Batch, FeatureBlend, VisionInput


@dataclass(frozen=True)
class Share:
    """One of ``of`` equal shares of all rows, and its parts."""

    number: int = 0
    of: int = 1
    parts: tuple[int, ...] = (0,)  # numbers of this share's parts
    order: tuple[int, ...] = (0,)  # parts of all shares, share by share
    leads: bool = True  # this process is the first of those that hold the share, and writes it to files
    spans: bool = False  # the mesh spans several processes

    def cut(self, items: Any) -> Any:
        """Return this share of a list or array; if its length does not divide, shares differ by one item."""
        size = len(items)
        return items[self.number * size // self.of : (self.number + 1) * size // self.of]

    def cuts(self, items: Any) -> list[Any]:
        """Return all shares of a list or array, in order."""
        return [replace(self, number=number).cut(items) for number in range(self.of)]

    def size_of(self, total: int, name: str) -> int:
        """Return this share's part of ``total`` rows, which must divide evenly among all parts.

        Raises:
            ValueError: they do not divide.
        """
        if self.spans and total % len(self.order):
            raise ValueError(
                f"{name} is {total}, and {self.of} processes split it into {len(self.order)} parts (data x fsdp of "
                f"the mesh); give a multiple of {len(self.order)}, or a mesh with a wider tensor axis"
            )
        return total // self.of

    @property
    def step(self) -> int:
        """The number that this share's row count must be a multiple of; 1 unless the mesh spans several processes."""
        return len(self.parts) if self.spans else 1


WHOLE = Share()


@lru_cache(16)
def share_of(mesh: Mesh | None) -> Share:
    """Return this process's share of the rows on a mesh; all of them if the mesh has no other process.

    Raises:
        ValueError: as ``share_among``.
    """
    if mesh is None:
        return WHOLE
    owners = np.vectorize(lambda device: device.process_index, otypes=[int])(mesh.devices)
    return share_among(owners, next(iter(mesh.local_devices)).process_index)


def share_among(owners: Int[np.ndarray, "data fsdp sequence tensor"], this: int) -> Share:
    """Return the share of process ``this`` on a mesh whose devices belong to these processes.

    Raises:
        ValueError: the shares of two processes overlap without being equal.
    """
    if (owners == this).all():
        return WHOLE
    data, fsdp, sequence, tensor = owners.shape
    by_part = owners.reshape(data * fsdp, sequence * tensor)
    held = {int(owner): tuple(np.flatnonzero((by_part == owner).any(axis=1)).tolist()) for owner in np.unique(by_part)}
    shares = sorted(set(held.values()))
    if sum(map(len, shares)) != len(by_part) or len(set(map(len, shares))) > 1:
        raise ValueError(
            f"a mesh of data={data} x fsdp={fsdp} x sequence={sequence} x tensor={tensor} gives its processes rows "
            "that overlap; let sequence x tensor divide the devices of a process, or be a multiple of them"
        )
    return Share(
        number=shares.index(held[this]),
        of=len(shares),
        parts=held[this],
        order=tuple(part for parts in shares for part in parts),
        leads=this == min(owner for owner, parts in held.items() if parts == held[this]),
        spans=True,
    )


def shown_by_all(batch: Batch, share: Share, *, merge: int) -> Batch:
    """Return a share's rows with their vision indices renumbered for the joined frames of all shares.

    ``merge`` is the number of patches in one merged patch.
    """
    if share.of == 1:
        return batch
    assert isinstance(batch.vision, VisionInput)
    frames, patches = np.shape(batch.vision.mask_IP)
    size = max(frames * (patches // merge) // len(share.parts), 1)  # merged patches of one part

    def moved(index: np.ndarray) -> np.ndarray:
        place = np.maximum(index, 0)
        return np.where(index < 0, index, np.array(share.parts, index.dtype)[place // size] * size + place % size)

    blend = batch.blend
    return batch._replace(
        vision_index_BT=moved(np.asarray(batch.vision_index_BT)),
        blend=None if blend is None else FeatureBlend(moved(np.asarray(blend.index_BTK)), blend.weight_BTK),
    )

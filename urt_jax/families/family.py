"""What a family module must provide, and the record a loaded checkpoint's host side is kept in."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from urt_jax.data.images import PictureGeometry
from urt_jax.models.config import ModelConfig
from urt_jax.types import FramePatches


class WeightRule(NamedTuple):
    """One tensor name of the published layout and where it lives in our parameter tree.

    ``{}`` in ``name`` stands for the layer number, which is our stacked axis 0. ``kernel`` tensors are stored
    ``[out, in...]`` there and ``[in, out]`` here; ``stored_tail`` gives the ``in...`` axes where they are not one.
    """

    name: str
    path: tuple[str, ...]
    kernel: bool = False
    stored_tail: tuple[int, ...] | None = None

    def from_stored(self, tensor: np.ndarray) -> np.ndarray:
        """Return one layer's tensor in our layout."""
        return tensor.reshape(tensor.shape[0], -1).T if self.kernel else tensor

    def to_stored(self, array: np.ndarray) -> np.ndarray:
        """Return one layer's array in the published layout."""
        if not self.kernel:
            return array
        tail = self.stored_tail or (array.shape[0],)
        return np.ascontiguousarray(array.T).reshape(array.shape[1], *tail)


class MediaLayout(NamedTuple):
    """One picture or clip, ready for the tower and for the prompt."""

    frames: tuple[FramePatches, ...]
    slots_E2: np.ndarray  # int [tokens, 2]: (frame of this medium, merged slot) of each placeholder, raster order
    offsets_3E: np.ndarray  # int [3, tokens]: M-RoPE offsets from the position where the medium starts
    advance: int  # positions the medium takes


@dataclass(frozen=True)
class Family:
    """A published model family as data: everything that differs between families goes through these."""

    model_type: str
    read_config: Callable[[dict[str, Any]], ModelConfig]
    write_config: Callable[[ModelConfig, dict[str, Any]], dict[str, Any]]
    weight_rules: Callable[[ModelConfig], tuple[WeightRule, ...]]
    name_aliases: tuple[tuple[str, str], ...]  # (regex, replacement): other key layouts the family was saved in
    lay_out: Callable[[np.ndarray, tuple[int, int, int], ModelConfig, float | None], MediaLayout]
    default_geometry: PictureGeometry

"""The interface of a family module, and the records that describe its pictures and weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from urt_jax.models.config import ModelConfig
from urt_jax.types import FramePatches

Json = dict[str, Any]


class WeightRule(NamedTuple):
    """One tensor name of the published layout and its path in our parameter tree.

    ``{}`` in ``name`` stands for the layer number, from 0 to ``stack - 1``, which is our stacked axis 0. ``kernel``
    tensors are ``[out, in...]`` in the published layout and ``[in, out]`` in ours; ``stored_tail`` gives the ``in...``
    axes if there are several.
    """

    name: str
    path: tuple[str, ...]
    kernel: bool = False
    stored_tail: tuple[int, ...] | None = None
    stack: int = 0

    def stored_names(self) -> list[str]:
        """Return the tensor names of the rule, in the order of the stacked axis."""
        return [self.name.format(i) for i in range(self.stack)] if self.stack else [self.name]

    def stored_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one stored tensor for the shape of our leaf."""
        own = shape[1:] if self.stack else shape
        return (own[1], *(self.stored_tail or own[:1])) if self.kernel else own

    def from_stored(self, tensor: np.ndarray) -> np.ndarray:
        """Return one layer's tensor in our layout."""
        return tensor.reshape(tensor.shape[0], -1).T if self.kernel else tensor

    def to_stored(self, array: np.ndarray) -> np.ndarray:
        """Return one layer's array in the published layout."""
        if not self.kernel:
            return array
        tail = self.stored_tail or (array.shape[0],)
        return np.ascontiguousarray(array.T).reshape(array.shape[1], *tail)


def linear_rules(name: str, path: tuple[str, ...], *, bias: bool = True, stack: int = 0) -> list[WeightRule]:
    """Return the rules of one linear layer."""
    rules = [WeightRule(f"{name}.weight", (*path, "kernel"), True, stack=stack)]
    return rules + ([WeightRule(f"{name}.bias", (*path, "bias"), stack=stack)] if bias else [])


def norm_rules(name: str, path: tuple[str, ...], *, stack: int = 0) -> list[WeightRule]:
    """Return the rules of one layer norm."""
    return [WeightRule(f"{name}.{theirs}", (*path, ours), stack=stack) for theirs, ours in
            (("weight", "scale"), ("bias", "bias"))]  # fmt: skip


class Piece(NamedTuple):
    """The E tokens that replace one placeholder of the prompt: each a merged patch, a blend of patches, or a line end.

    ``blend`` is (sources int [E, K, 2], weights float [E, K]); see ``types.FrameBlend``.
    """

    slots_E2: np.ndarray  # int [E, 2]: (frame of this medium, merged slot) of each token; (-2, -2) is a line end
    offsets_3E: np.ndarray  # int [3, E]: positions relative to the start of the piece
    advance: int  # positions that the piece occupies
    blend: tuple[np.ndarray, np.ndarray] | None = None


class MediaLayout(NamedTuple):
    """One picture or clip, laid out for the tower and for the prompt."""

    frames: tuple[FramePatches, ...]
    pieces: tuple[Piece, ...]
    text: str | None = None  # replacement of its placeholder in the prompt, with one placeholder per piece; None = same
    instead_of: str | None = None  # wrapped placeholder that ``text`` replaces where the prompt has it


@runtime_checkable
class Geometry(Protocol):
    """The picture settings of a checkpoint; each family has its own record."""

    def within(self, min_pixels: int | None, max_pixels: int | None) -> "Geometry":
        """Return settings with the given pixel bounds of a picture; None keeps a bound.

        Raises:
            BadInputError: no picture can meet the bounds.
        """

    def smaller(self, images: list[np.ndarray], clips: list[np.ndarray]) -> "Geometry | None":
        """Return settings under which these media have fewer tokens, or None if there are none."""


@dataclass(frozen=True)
class PictureSettings:
    """The parsed picture settings files of a model folder; empty where a file is missing."""

    image: Json
    video: Json
    config: Json


@dataclass(frozen=True)
class Family:
    """A published model family as data: these fields hold everything that differs between families."""

    model_type: str
    read_config: Callable[[Json], ModelConfig]
    write_config: Callable[[ModelConfig, Json], Json]
    weight_rules: Callable[[ModelConfig], tuple[WeightRule, ...]]
    name_aliases: tuple[tuple[str, str], ...]  # (regex, replacement): other published tensor names of the family
    module_names: tuple[tuple[str, str], ...]  # (regex, replacement): from our rules' names to transformers' modules
    read_geometry: Callable[[PictureSettings], Any]
    picture_files: Callable[[Any], dict[str, Json]]  # geometry -> settings files by name
    lay_out_image: Callable[..., MediaLayout]  # (image, geometry, config, *, alone, name)
    lay_out_clip: Callable[..., MediaLayout]  # (clip, geometry, config, *, name)
    image_placeholder: str = "<|image_pad|>"
    video_placeholder: str = "<|video_pad|>"
    kept_settings: tuple[str, ...] = ()  # further keys of config.json that are saved unchanged
    unused_tensors: str = r"(?!)"  # regex of stored tensors that a checkpoint may have and no model uses
    chat_template: str | None = None  # for folders without one
    original_model_type: str | None = None  # model_type of a layout older than transformers; translated by the next
    complete_config: Callable[[Json, Mapping[str, tuple[int, ...]], tuple[int, int]], Json] | None = None

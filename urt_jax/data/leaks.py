"""Records of a training source that stand in a benchmark: they share a picture, a clip or a prompt with it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import UInt8

from urt_jax.data.examples import DEFAULT_FRAMES, Example, FramePicking, Media
from urt_jax.data.images import load_image
from urt_jax.data.prompts import all_media
from urt_jax.data.video import load_clip

_NO_WORD = re.compile(r"[\W_]+")


def normalised(text: str) -> str:
    """Return a prompt without case, punctuation and repeated space."""
    return _NO_WORD.sub(" ", text.casefold()).strip()


def decoded(item: Media, *, name: str) -> UInt8[np.ndarray, "*frames H W 3"]:
    """Return the pixels of a picture, or of the 8 frames that a judge is shown of a clip.

    Raises:
        BadInputError: the medium cannot be read; ``name`` stands in the message.
    """
    if item.kind == "image":
        return load_image(item, name=name)
    return load_clip(item, name=name, picking=FramePicking(DEFAULT_FRAMES)).frames


def media_hash(pixels: UInt8[np.ndarray, "*frames H W 3"]) -> str:
    """Return a hash of the size and the pixels."""
    return hashlib.sha256(f"{pixels.shape}".encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()[:32]


@dataclass(frozen=True)
class Benchmark:
    """The prompts and the media of the records that training must not see."""

    prompts: set[str] = field(default_factory=set)
    media: set[str] = field(default_factory=set)

    def add(self, examples: Iterable[Example]) -> Benchmark:
        """Add records, and return the benchmark."""
        for example in examples:
            if asked := normalised(example.prompt or example.text or ""):
                self.prompts.add(asked)
            self.media.update(media_hash(decoded(item, name=f"record {example.id}")) for item in all_media(example))
        return self

    def shared_with(self, example: Example) -> str | None:
        """Return what a record shares with the benchmark, or None."""
        if normalised(example.prompt or example.text or "") in self.prompts:
            return "its prompt"
        for place, item in enumerate(all_media(example), start=1):
            if media_hash(decoded(item, name=f"record {example.id}")) in self.media:
                return f"its {'picture' if item.kind == 'image' else 'clip'} {place}"
        return None

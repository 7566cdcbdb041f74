"""The built-in teacher's knowledge of ``scenes``: a lookup from the pictures of a request to their scene."""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from urt_jax.data.examples import Example, Media
from urt_jax.scenes import make_example


@dataclass(frozen=True)
class OracleSettings:
    """The teacher's pool of scenes, and its rates of errors.

    ``counts`` is the number of scenes per task (indices from 0). ``error_rate`` is the chance to misread one attribute.
    ``busy_rate`` and ``broken_rate`` are the shares of attempts answered 429 and 500; ``latency_s`` delays each answer.
    """

    counts: Mapping[str, int]
    seed: int = 0
    error_seed: int = 0
    split: Literal["train", "heldout"] = "train"
    difficulty: float = 0.45
    error_rate: float = 0.0
    busy_rate: float = 0.0
    broken_rate: float = 0.0
    latency_s: float = 0.0


class RefusalError(Exception):
    """A request the teacher answers with an HTTP error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ScenePool:
    """All scenes of the pool by the hashes of their pictures, generated only as far as requests need them."""

    def __init__(self, settings: OracleSettings, make: Callable[..., Example] = make_example) -> None:
        self._remaining = _all_scenes(settings, make)
        self._by_pictures: dict[tuple[str, ...], list[Example]] = defaultdict(list)
        self._lock = threading.Lock()

    def find(self, pictures: tuple[str, ...], prompt: str) -> Example:
        """Return the scene of ``pictures`` (hashes in the order shown), its candidates in that order.

        Raises:
            RefusalError: 422 when no scene of the pool has these pictures, or the prompt lacks its texts.
        """
        with self._lock:
            while not any(_asked_in(example, prompt) for example in self._by_pictures.get(pictures, ())):
                example = next(self._remaining, None)
                if example is None:
                    break
                self._by_pictures[picture_hashes(example)].append(example)
                if not isinstance(example.candidates[0], str):  # a request may show a pair in either order
                    self._by_pictures[picture_hashes(example.swapped())].append(example.swapped())
            scenes = list(self._by_pictures.get(pictures, ()))
        if not scenes:
            raise RefusalError(422, f"the {len(pictures)} pictures are no scene of this pool, or in no known order")
        for example in scenes:
            if _asked_in(example, prompt):
                return _in_shown_order(example, prompt)
        raise RefusalError(422, "the prompt holds neither the caption nor the question and answers of these pictures")


def _all_scenes(settings: OracleSettings, make: Callable[..., Example]) -> Iterator[Example]:
    for task, count in settings.counts.items():
        for index in range(count):
            yield make(task, split=settings.split, seed=settings.seed, index=index, difficulty=settings.difficulty)


def _asked_in(example: Example, prompt: str) -> bool:
    needed = [example.prompt, *(candidate for candidate in example.candidates if isinstance(candidate, str))]
    return all(text in prompt for text in needed)


def _in_shown_order(example: Example, prompt: str) -> Example:
    """Return the scene with its written answers in the order of the prompt; pictures are already in order."""
    first, second = example.candidates
    if not isinstance(first, str) or not isinstance(second, str):
        return example
    # The longer answer is found first and removed, since it may contain the shorter one.
    longer, shorter = sorted((first, second), key=len, reverse=True)
    place = {longer: prompt.find(longer)}
    place[shorter] = prompt.replace(longer, "\0" * len(longer)).find(shorter)
    if place[shorter] < 0:
        raise RefusalError(422, "the prompt holds only one of the two answers")
    return example if place[first] < place[second] else example.swapped()


def picture_hashes(example: Example) -> tuple[str, ...]:
    """Return the hashes of all pictures of a scene in prompt order: context, then candidates."""
    media = [*example.context, *(item for item in example.candidates if isinstance(item, Media))]
    frames = [frame for item in media for frame in (item.source if item.kind == "video" else [item.source])]
    return tuple(pixel_hash(frame) for frame in frames)


def pixel_hash(picture: np.ndarray) -> str:
    """Return the digest of a decoded picture, ``uint8 [H, W, 3]``."""
    return hashlib.sha256(repr(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()).hexdigest()

"""What the parity tests of all families share: random media in a prompt, and a torch model of every family."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from urt_jax.checkpoints.hf_weights import load_weights
from urt_jax.families.family import Family, MediaLayout
from urt_jax.families.processor import expand_placeholders
from urt_jax.models.config import ModelConfig
from urt_jax.models.vlm import VisionLanguageModel
from urt_jax.types import EncodedChat

IMAGE, VIDEO, START, END, EOS, PAD = 90, 91, 92, 93, 2, 0


@dataclass(frozen=True)
class Medium:
    """Random pixels of a picture or clip, as transformers takes them and as we lay them out."""

    video: bool
    inputs: dict[str, Any]
    layout: MediaLayout


@dataclass(frozen=True)
class Reference:
    """One family as the parity tests see it; a trait is one small configuration."""

    family: Family
    traits: tuple[Any, ...]
    hf_model: Callable[[Any], Any]
    rows: Callable[[np.random.Generator, Any, ModelConfig], list[list[Medium]]]
    media_inputs: Callable[[list[list[Medium]]], dict[str, Any]]


def add_noise(model: Any) -> Any:
    """Move every weight of a torch model, norms and biases too, so that none is 0 or 1."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def load_ours(
    reference: Reference, model: Any, folder: Path
) -> tuple[ModelConfig, VisionLanguageModel, dict[str, Any]]:
    """Save a torch model and load it as ours."""
    model.save_pretrained(folder)
    config = reference.family.read_config(json.loads((folder / "config.json").read_text()))
    return config, VisionLanguageModel(config), load_weights(folder, reference.family, config)


def random_chat(rng: np.random.Generator, config: ModelConfig, media: Sequence[Medium], text: int = 7) -> EncodedChat:
    """Interleave media with random words; every piece of a medium stands between start and end, words before it."""
    ids: list[int] = list(rng.integers(3, 80, text))
    for medium in media:
        for _ in medium.layout.pieces:
            ids += [*rng.integers(3, 80, 2), START, VIDEO if medium.video else IMAGE, END]
        ids += [*rng.integers(3, 80, 3)]
    images = [m.layout for m in media if not m.video]
    videos = [m.layout for m in media if m.video]
    return expand_placeholders(config, np.array(ids, np.int32), images, videos, name="random")


def hf_inputs(reference: Reference, chats: list[EncodedChat], media: list[list[Medium]], *, left: bool = False) -> dict:
    """Build the keyword arguments of the transformers model for a padded batch."""
    import torch

    width = max(len(chat.tokens_T) for chat in chats)
    ids = np.full((len(chats), width), PAD, np.int64)
    mask = np.zeros_like(ids)
    for row, chat in enumerate(chats):
        place = slice(width - len(chat.tokens_T), width) if left else slice(0, len(chat.tokens_T))
        ids[row, place], mask[row, place] = chat.tokens_T, 1
    return {
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.tensor(mask),
        **reference.media_inputs(media),
    }


def of_kind(media: list[list[Medium]], *, video: bool) -> list[Medium]:
    """Return the pictures or clips of a batch in order."""
    return [medium for row in media for medium in row if medium.video == video]

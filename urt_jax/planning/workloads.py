"""Workloads of the measurements: model sizes with their rows, and random inputs, without files or weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from urt_jax.families.presets import preset
from urt_jax.families.processor import Processor, expand_placeholders
from urt_jax.families.qwen2_5_vl import DEFAULT_GEOMETRY, FAMILY, read_config
from urt_jax.files.json_text import read_object
from urt_jax.models.config import DecoderConfig, ModelConfig, WindowedVisionConfig
from urt_jax.types import EncodedChat

ASSETS = Path(__file__).parent.parent / "assets"
SPECIAL = ("<|endoftext|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
PAD, TURN_END, VISION_START, VISION_END, IMAGE, VIDEO = range(len(SPECIAL))  # ids of every synthetic vocabulary
IDS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
}


@dataclass(frozen=True)
class RowCounts:
    """The rows of one call; every prompt has ``pictures`` square pictures, every response reaches its token limit."""

    questions: int
    responses: int  # to each question
    prompt_tokens: int  # of one prompt, pictures included
    pictures: int  # in one prompt
    picture_side: int  # in pixels
    new_tokens: int  # of one response
    sft_rows: int  # of an SFT step, each a prompt and a response

    @property
    def completions(self) -> int:
        """Response tokens of one rollout."""
        return self.questions * self.responses * self.new_tokens


@dataclass(frozen=True)
class Workload:
    """A model's sizes and the rows it is measured on."""

    config: ModelConfig
    rows: RowCounts

    def text_tokens(self) -> int:
        """Return the number of text tokens of a prompt, without its pictures and the tokens around them.

        Raises:
            ValueError: the pictures leave no room for text.
        """
        tower, rows = self.config.vision, self.rows
        merged = (rows.picture_side // tower.patch_size // tower.merge_size) ** 2
        words = rows.prompt_tokens - rows.pictures * (merged + 2)
        if words < 1:
            raise ValueError(
                f"{rows.pictures} pictures of {rows.picture_side} pixels per side take {rows.prompt_tokens - words} "
                f"tokens, the prompt has {rows.prompt_tokens}; give more tokens or smaller pictures"
            )
        return words


def workload(size: str) -> Workload:
    """Return the workload of a named size.

    Raises:
        KeyError: the size does not exist.
    """
    published = {"3b": "qwen2_5_vl_3b", "7b": "qwen2_5_vl_7b"}
    if size in published:
        return Workload(preset(published[size]), ROWS[size])
    shapes = {"toy": _toy, "tiny": _shipped, "small": _small}
    return Workload(shapes[size](), ROWS[size])


# ``tiny``: the shapes of configs/grpo.py for urt-tiny. ``small``: two pictures of 64 tokens each in a prompt of 256.
ROWS = {
    "toy": RowCounts(2, 2, 24, 1, 56, 6, sft_rows=2),
    "tiny": RowCounts(16, 8, 128, 2, 112, 96, sft_rows=32),
    "small": RowCounts(4, 8, 256, 2, 224, 128, sft_rows=8),
    "3b": RowCounts(8, 8, 1024, 2, 448, 256, sft_rows=8),
    "7b": RowCounts(8, 8, 1024, 2, 448, 256, sft_rows=8),
}
SIZES = tuple(ROWS)


def _toy() -> ModelConfig:
    decoder = DecoderConfig(64, 32, 2, 4, 2, 8, 48, mrope_section=(2, 1, 1), rope_theta=1e4, tied_head=True)
    tower = WindowedVisionConfig(2, 32, 2, 48, out_width=32, full_attention_layers=(1,))
    return ModelConfig(decoder, tower, **IDS)


def _shipped() -> ModelConfig:
    """Return the sizes of urt-tiny."""
    return read_config(read_object(ASSETS / "urt-tiny" / "config.json"))


def _small() -> ModelConfig:
    """Return a model of 63 M parameters in the proportions of Qwen2.5-VL."""
    decoder = DecoderConfig(32000, 512, 8, 8, 2, 64, 1536, mrope_section=(8, 12, 12))
    tower = WindowedVisionConfig(6, 256, 4, 704, out_width=512, full_attention_layers=(2, 5))
    return ModelConfig(decoder, tower, **IDS)


class BlankTokenizer:
    """The tokenizer methods that the sampler calls, for models without a tokenizer: token ``n`` decodes to "wn".

    No id is an end token and every special id is suppressed, so that every response reaches its token limit.
    """

    pad_token_id: int

    def __init__(self, config: ModelConfig) -> None:
        self._size = config.decoder.vocab_size
        self.all_special_ids = suppressed_ids(config)
        self.pad_token_id = self.all_special_ids[0]
        self.added_tokens_decoder: dict[int, Any] = {}

    def __len__(self) -> int:
        return self._size

    def convert_tokens_to_ids(self, name: str) -> int | None:
        """Return None: the vocabulary has no token of that name."""
        return None

    def batch_decode(self, rows: Sequence[Sequence[int]], *, skip_special_tokens: bool) -> list[str]:
        """Return the text of each row."""
        return [" ".join(f"w{token}" for token in row) for row in rows]


def suppressed_ids(config: ModelConfig) -> tuple[int, ...]:
    """Return the ids that are never sampled: pictures, the tokens around them, padding and the end of a turn."""
    ids = {config.image_token_id, config.video_token_id, config.vision_start_token_id, config.vision_end_token_id}
    return tuple(sorted({PAD, TURN_END, *(i for i in ids if i is not None)}))


def blank_processor(config: ModelConfig) -> Processor:
    """Return a processor for a model without a folder."""
    return Processor(FAMILY, config, DEFAULT_GEOMETRY, BlankTokenizer(config))


def random_pictures(work: Workload, rng: np.random.Generator, prompts: int) -> list[list[np.ndarray]]:
    """Return the pictures, uint8 ``[side, side, 3]``, of ``prompts`` prompts."""
    rows = work.rows
    shape = (prompts, rows.pictures, rows.picture_side, rows.picture_side, 3)
    return [list(prompt) for prompt in rng.integers(0, 256, shape, np.uint8)]


def random_ids(work: Workload, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return random int32 ids of ordinary tokens."""
    allowed = np.setdiff1d(np.arange(work.config.decoder.vocab_size), suppressed_ids(work.config))
    return rng.choice(allowed, shape).astype(np.int32)


def encode(work: Workload, words: np.ndarray, pictures: Sequence[np.ndarray], *, name: str) -> EncodedChat:
    """Return one encoded prompt: its pictures, cut into patches by the family, then its text tokens int32 [words]."""
    config = work.config
    marks = [config.vision_start_token_id, config.image_token_id, config.vision_end_token_id]
    layouts = [FAMILY.lay_out_image(p, DEFAULT_GEOMETRY, config, alone=len(pictures) == 1, name=name) for p in pictures]
    ids = np.concatenate([np.array(marks * len(pictures), np.int32), words])
    return expand_placeholders(config, ids, layouts, [], name=name)

"""A very small model with random weights and chats for it, shared by the tests that run a model."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from urt_jax.data.collate import Need, collate, collate_prompts, length_of
from urt_jax.families.processor import Processor, expand_placeholders
from urt_jax.families.qwen2_5_vl import DEFAULT_GEOMETRY, FAMILY, lay_out
from urt_jax.models.config import DecoderConfig, ModelConfig, WindowedVisionConfig
from urt_jax.models.vlm import VisionLanguageModel, abstract_params
from urt_jax.types import Batch, EncodedChat, PromptedRows

PAD, TURN, EOS, START, END, IMAGE, VIDEO = range(7)  # PAD is <|endoftext|>, as in the published tokenizers
WORDS = range(7, 38)  # the vocabulary has 40 rows, the last two unused

CONFIG = ModelConfig(
    decoder=DecoderConfig(
        vocab_size=40,
        width=32,
        layers=2,
        query_heads=4,
        kv_heads=2,
        head_width=8,
        feed_forward=24,
        mrope_section=(2, 1, 1),
        rope_theta=1e4,
    ),
    vision=WindowedVisionConfig(
        depth=2,
        width=16,
        heads=2,
        feed_forward=24,
        out_width=32,
        patch_size=2,
        temporal_patch_size=1,
        window_size=8,  # windows of 2 x 2 merged patches = 16 patch slots
        full_attention_layers=(1,),
    ),
    image_token_id=IMAGE,
    video_token_id=VIDEO,
    vision_start_token_id=START,
    vision_end_token_id=END,
)
MODEL = VisionLanguageModel(CONFIG)
FEATURES, MERGE = CONFIG.vision.patch_features, 4
NO_ANSWER = np.zeros(0, np.int32)


class WordTokenizer:
    """What the sampler needs of a tokenizer: word ``n`` is written "wn"."""

    pad_token_id = PAD
    all_special_ids = (PAD, TURN, EOS, START, END, IMAGE, VIDEO)
    added_tokens_decoder: dict[int, Any] = {}  # noqa: RUF012

    def __len__(self) -> int:
        return WORDS.stop

    def convert_tokens_to_ids(self, name: str) -> int:
        return {"<|im_end|>": EOS, "<|endoftext|>": PAD}[name]

    def batch_decode(self, rows: Sequence[Sequence[int]], *, skip_special_tokens: bool) -> list[str]:
        assert skip_special_tokens
        return [" ".join(f"w{i}" for i in row if i in WORDS) for row in rows]


PROCESSOR = Processor(FAMILY, CONFIG, DEFAULT_GEOMETRY, WordTokenizer())


@cache
def tiny_params(seed: int = 0) -> dict[str, Any]:
    """Return random weights as numpy arrays, norms and biases included; not to be changed in place."""
    return random_leaves(abstract_params(CONFIG), seed)


def random_leaves(shapes: Any, seed: int) -> Any:
    """Draw numpy arrays of these shapes, norms around 1 and everything else around 0."""
    rng = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], leaf: Any) -> np.ndarray:
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return (centre + 0.25 * rng.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@cache
def jitted(method: str = "__call__") -> Any:
    """Return a jitted method of the tiny model, ``(params, *arguments)``."""
    return jax.jit(lambda params, *arguments: MODEL.apply({"params": params}, *arguments, method=method))


def make_chat(
    seed: int,
    *,
    text: int = 5,
    pictures: Sequence[tuple[int, int]] = (),
    clip: tuple[int, int, int] | None = None,
) -> EncodedChat:
    """Write random words around pictures (rows, columns in merged patches) and a clip (frames, rows, columns)."""
    rng = np.random.default_rng([7, seed])

    def layout(steps: int, rows: int, cols: int, seconds: float | None) -> Any:
        patches = rng.standard_normal((steps * rows * cols * MERGE, FEATURES)).astype(np.float32)
        return lay_out(patches, (steps, 2 * rows, 2 * cols), CONFIG, seconds)

    ids = [int(i) for i in rng.integers(WORDS.start, WORDS.stop, text)]
    for token in [IMAGE] * len(pictures) + [VIDEO] * (clip is not None):
        ids += [START, token, END, int(rng.integers(WORDS.start, WORDS.stop))]
    images = [layout(1, *size, None) for size in pictures]
    videos = [layout(*clip, 1.0)] if clip is not None else []
    return expand_placeholders(CONFIG, np.array(ids, np.int32), images, videos, name=f"chat {seed}")


def need(chats: Sequence[EncodedChat], *, answer: int = 0, **larger: int) -> Need:
    """Return the smallest shape that holds the chats, one a row, or a larger one where an axis is given."""
    lengths = [length_of(chat, answer) for chat in chats]
    smallest = Need(
        rows=len(chats),
        tokens=max(length.tokens for length in lengths),
        frames=sum(length.frames for length in lengths),
        patches=max(length.patches for length in lengths),
    )
    return smallest._replace(**larger)


def batch_of(
    chats: Sequence[EncodedChat],
    answers: Sequence[Sequence[int]] | None = None,
    *,
    left: bool = False,
    packed: Sequence[Sequence[int]] | None = None,
    parts: int = 1,
    **larger: int,
) -> Batch:
    """Collate chats, with answers where given, in the smallest shape or a larger one."""
    responses = [NO_ANSWER] * len(chats) if answers is None else [np.array(answer, np.int32) for answer in answers]
    longest = max(len(response) for response in responses)
    shape = {"bucket": need(chats, answer=longest, **larger), "pad_id": PAD, "patch_features": FEATURES, "merge": MERGE}
    if left:
        return collate_prompts(chats, **shape)
    return collate(chats, responses, packed=packed, parts=parts, **shape)


def as_jnp(tree: Any) -> Any:
    """Copy a tree to the default device."""
    return jax.tree.map(lambda x: jnp.array(x, copy=True), tree)


def write_judge(folder: Path) -> Path:
    """Write a small model folder with a real tokenizer and random weights, and return it."""
    from urt_jax.checkpoints.hf_weights import save_weights
    from urt_jax.checkpoints.model_folder import load_processor
    from urt_jax.config import ShapeConfig
    from urt_jax.stages import base

    small = {"width": 32, "layers": 2, "heads": 2, "kv_heads": 1, "feed_forward": 48}
    vision = {"vision_width": 32, "vision_layers": 2, "vision_heads": 2, "vision_feed_forward": 48}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "CORPUS_RECORDS", 8)
        base.write_empty_model(folder, ShapeConfig(**small, **vision), pixels=(56 * 56, 4 * 56 * 56))
    processor, _ = load_processor(str(folder))
    save_weights(folder, random_leaves(abstract_params(processor.config), 0), processor.family, processor.config)
    return folder


def first_groups(rows: PromptedRows, count: int) -> PromptedRows:
    """Return the first questions with their responses, and the frames of all."""
    asked, responses = np.arange(count), slice(0, count * rows.group_size)
    prompts, positions = rows.prompts.take_groups(asked), rows.next_position_Q[:count]
    return PromptedRows(prompts, positions, rows.tokens_BU[responses], rows.mask_BU[responses])

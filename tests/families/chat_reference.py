"""Model folders without weights that hold real tokenizers, transformers' processors of them, and chats with media."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import transformers
from PIL import Image
from transformers.video_utils import VideoMetadata

from urt_jax.data.anyres import TileGeometry
from urt_jax.data.examples import Chat, Media
from urt_jax.families import llava_onevision
from urt_jax.families.presets import preset

# Media one after another, in the order of the message, with a line end each.
TILE_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['content'] is string %}{{ message['content'] }}
{%- else %}
{%- for part in message['content'] %}
{%- if part['type'] == 'text' %}{{ part['text'] }}{% else %}{{ '<' + part['type'] + '>\\n' }}{% endif %}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
TILES = TileGeometry(tile_size=56, grids=tuple((56 * row, 56 * col) for row in (1, 2, 3) for col in (1, 2, 3)))


@dataclass(frozen=True)
class ChatFamily:
    """One family as the chat tests see it."""

    name: str
    write_folder: Callable[[Path, Path], None]
    processor: type
    image_processor: type
    chat_template: Callable[[Path], str]


def write_qwen2_5(folder: Path, data: Path) -> None:
    for file in (data / "vocab.json", data / "merges.txt", *(data / "qwen2_5_vl_7b").iterdir()):
        shutil.copyfile(file, folder / file.name)


def write_qwen3(folder: Path, data: Path, *, version: str = "5.23.0") -> None:
    """Write the published files of a Qwen3-VL model as that version of transformers would have made them."""
    for file in (data / "vocab.json", data / "merges.txt", *(data / "qwen3_vl_8b_embedding").iterdir()):
        shutil.copyfile(file, folder / file.name)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"transformers_version": version}))


def write_onevision(folder: Path, data: Path) -> None:
    """Write the vocabulary with the two placeholders of LLaVA-OneVision after its first three special tokens."""
    for file in (data / "vocab.json", data / "merges.txt"):
        shutil.copyfile(file, folder / file.name)
    added = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": {str(151643 + i): {"content": token, **plain} for i, token in enumerate(added)},
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "bos_token": None,
        "unk_token": None,
    }
    config = llava_onevision.write_config(preset("llava_onevision_0_5b"), {})
    config["vision_config"]["image_size"] = TILES.tile_size
    files = llava_onevision.picture_files(TILES) | {"tokenizer_config.json": settings, "config.json": config}
    for name, written in files.items():
        (folder / name).write_text(json.dumps(written))
    (folder / "chat_template.jinja").write_text(TILE_TEMPLATE)


def read_jinja(folder: Path) -> str:
    return (folder / "chat_template.jinja").read_text()


QWEN2_5 = ChatFamily(
    "qwen2_5_vl",
    write_qwen2_5,
    transformers.Qwen2_5_VLProcessor,
    transformers.Qwen2VLImageProcessorPil,
    lambda folder: json.loads((folder / "chat_template.json").read_text())["chat_template"],
)
QWEN3 = ChatFamily(
    "qwen3_vl", write_qwen3, transformers.Qwen3VLProcessor, transformers.Qwen2VLImageProcessorPil, read_jinja
)
QWEN3_OLDER = ChatFamily(
    "qwen3_vl_of_4_57", partial(write_qwen3, version="4.57.1"), QWEN3.processor, QWEN3.image_processor, read_jinja
)
ONEVISION = ChatFamily(
    "llava_onevision",
    write_onevision,
    transformers.LlavaOnevisionProcessor,
    transformers.LlavaOnevisionImageProcessorPil,
    read_jinja,
)
CHAT_FAMILIES = (QWEN2_5, QWEN3, ONEVISION)


def picture_processor(family: ChatFamily, folder: Path) -> Any:
    """Return transformers' processor of a folder for text and pictures.

    Its check of classes wants torchvision's and is left out. What stands for its video processor only counts tokens.
    """

    def any_class(self: Any, name: str, argument: Any) -> type:
        return type(argument)

    relaxed = type("ImageOnly", (family.processor,), {"check_argument_for_proper_class": any_class})
    more = {"num_image_tokens": TILES.side**2, "vision_feature_select_strategy": "full"} if family is ONEVISION else {}
    return relaxed(
        image_processor=family.image_processor.from_pretrained(folder),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
        video_processor=SimpleNamespace(merge_size=2, temporal_patch_size=2),
        chat_template=family.chat_template(folder),
        **more,
    )


def picture(height: int, width: int) -> Media:
    return Media("image", np.random.default_rng([height, width]).integers(0, 256, (height, width, 3), np.uint8))


def clip(frames: int, height: int, width: int, fps: float | None) -> Media:
    array = np.random.default_rng([frames, height, width]).integers(0, 256, (frames, height, width, 3), np.uint8)
    return Media("video", array, fps)


def turn(role: str, *parts: str | Media) -> dict[str, Any]:
    """Return a message of text and media in order."""
    content: list[dict[str, Any]] = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": part.kind, part.kind: part}
        for part in parts
    ]
    return {"role": role, "content": content}


PICTURES = {
    "text alone": [turn("user", "Who painted it? \u00e9t\u00e9 \u5e74 2024\n\n  in  two   words.")],
    "one picture": [turn("user", picture(90, 130), "Describe it.")],
    "system and three pictures": [
        turn("system", "You judge pictures."),
        turn("user", "First: ", picture(64, 64), "\nsecond:", picture(200, 61), "third: ", picture(57, 300), " Which?"),
    ],
    "several turns": [
        turn("user", picture(150, 97), "And this?"),
        turn("assistant", "A cat.\n"),
        turn("user", "Now ", picture(333, 120), picture(71, 70)),
        turn("assistant", "Two."),
        turn("user", "Why?"),
    ],
}
# Clips whose sizes are on the grid of both Qwen families, so that their grids are known by hand.
VIDEOS = {
    "one clip": [turn("user", clip(4, 448, 672, 2.0), "What happens?")],
    "odd frames, unknown rate": [turn("system", "Judge."), turn("user", "See: ", clip(5, 448, 448, None), "!")],
    "clips and pictures": [
        turn("user", picture(90, 130), "then", clip(2, 448, 448, 1.0), clip(7, 448, 672, 3.5), "which?"),
        turn("assistant", "The first."),
        turn("user", "Sure? ", clip(3, 224, 672, 0.5)),
    ],
}


def media_of(messages: list[dict[str, Any]], kind: str) -> list[Media]:
    return [part[kind] for message in messages for part in message["content"] if part["type"] == kind]


def our_chat(messages: list[dict[str, Any]]) -> Chat:
    """Return the chat as ours is given: media apart, in order."""
    return Chat(without_media(messages), tuple(media_of(messages, "image")), tuple(media_of(messages, "video")))


def without_media(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def bare(part: dict[str, Any]) -> dict[str, Any]:
        return part if part["type"] == "text" else {"type": part["type"]}

    return [{**message, "content": [bare(part) for part in message["content"]]} for message in messages]


def hf_messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages in transformers' format, pictures as PIL images in their places."""

    def filled(part: dict[str, Any]) -> dict[str, Any]:
        return {**part, "image": Image.fromarray(part["image"].source)} if part["type"] == "image" else part

    return [{**message, "content": [filled(part) for part in message["content"]]} for message in messages]


def counted_clip(family: ChatFamily, medium: Media, processor: Any) -> str:
    """Return what transformers writes for a clip, told the grid that its video processor would have found."""
    frames, height, width = medium.source.shape[:3]
    grid = np.array([[-(-frames // 2), height // processor_patch(family), width // processor_patch(family)]])
    metadata = VideoMetadata(total_num_frames=frames, fps=medium.fps, frames_indices=list(range(frames)))
    inputs = {"video_grid_thw": grid, "video_metadata": [metadata], "pixel_values_videos": [[None] * frames]}
    return processor.replace_video_token(inputs, 0)


def processor_patch(family: ChatFamily) -> int:
    return 14 if family is QWEN2_5 else 16

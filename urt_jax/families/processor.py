"""Turn a chat into token ids, positions and frames: template, placeholder expansion, M-RoPE positions.

1. media are decoded, resized and cut into patches by one rule for training, rollout, scoring and export;
2. the checkpoint's chat template writes one placeholder per medium;
3. each placeholder id is repeated for the merged patches it stands for, and gets their positions.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from urt_jax.data.examples import BadInputError, Chat
from urt_jax.data.images import PictureGeometry, image_patches, load_image
from urt_jax.data.tokenizer import chat_text
from urt_jax.data.video import load_frames, video_patches
from urt_jax.families.family import Family, MediaLayout
from urt_jax.models.config import ModelConfig
from urt_jax.types import EncodedChat, FramePatches

SHRINK = 0.8  # each retry of a too long prompt keeps this share of the pixels


@dataclass(frozen=True)
class Processor:
    """What is needed to encode chats for one checkpoint."""

    family: Family
    config: ModelConfig
    geometry: PictureGeometry
    tokenizer: Any

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Ids that end a response: the end of a turn and the end of a text."""
        names = ("<|im_end|>", "<|endoftext|>")
        return tuple(i for i in map(self.tokenizer.convert_tokens_to_ids, names) if i is not None)

    @property
    def pad_id(self) -> int:
        """Id that fills padded slots; never seen by attention."""
        return int(self.tokenizer.pad_token_id)

    @property
    def suppressed_ids(self) -> tuple[int, ...]:
        """Ids that must never be sampled: every special token but the end of a turn or text, and unused rows."""
        special = set(self.tokenizer.all_special_ids) | {
            self.config.image_token_id,
            self.config.video_token_id,
            self.config.vision_start_token_id,
            self.config.vision_end_token_id,
        }
        special |= {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        unused = range(len(self.tokenizer), self.config.decoder.vocab_size)
        return tuple(sorted((special | set(unused)) - set(self.end_ids)))


def encode_chat(
    processor: Processor, chat: Chat, *, name: str, max_tokens: int | None = None, generation_prompt: bool = True
) -> EncodedChat:
    """Encode one chat; pictures of a prompt longer than ``max_tokens`` are shrunk until it fits.

    Raises:
        BadInputError: more pictures than placeholders or fewer, an unreadable medium, or a prompt whose text alone, or
            with its pictures at their smallest, is longer than ``max_tokens``. ``name`` says which record it was.
    """
    text = chat_text(processor.tokenizer, chat, add_generation_prompt=generation_prompt)
    ids = np.asarray(processor.tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)
    images = [load_image(media, name=f"{name}: image {i + 1}") for i, media in enumerate(chat.images)]
    videos = [(load_frames(media, name=f"{name}: video {i + 1}"), media.fps) for i, media in enumerate(chat.videos)]
    geometry = processor.geometry
    while True:
        layouts = (
            [_lay_out_image(processor, geometry, image, name) for image in images],
            [_lay_out_video(processor, geometry, frames, fps, name) for frames, fps in videos],
        )
        encoded = expand_placeholders(processor.config, ids, *layouts, name=name)
        if max_tokens is None or len(encoded.tokens_T) <= max_tokens:
            return encoded
        smaller = _shrunk(geometry, images, videos)
        if smaller is None:
            raise BadInputError(
                f"{name}: the prompt has {len(encoded.tokens_T)} tokens with its pictures at their smallest, "
                f"max_prompt_tokens is {max_tokens}; shorten the text, drop a picture or raise max_prompt_tokens"
            )
        geometry = smaller


def _shrunk(geometry: PictureGeometry, images: list, videos: list) -> PictureGeometry | None:
    """Return a geometry with fewer pixels a picture, or None when every picture is at the minimum already."""
    largest_image = max((image.shape[0] * image.shape[1] for image in images), default=0)
    largest_video = max((frames.shape[1] * frames.shape[2] for frames, _ in videos), default=0)
    image_pixels = min(geometry.max_pixels, largest_image) if largest_image else geometry.min_pixels
    video_pixels = min(geometry.video_max_pixels, largest_video) if largest_video else geometry.video_min_pixels
    if image_pixels <= geometry.min_pixels and video_pixels <= geometry.video_min_pixels:
        return None
    return replace(
        geometry,
        max_pixels=max(int(image_pixels * SHRINK), geometry.min_pixels),
        video_max_pixels=max(int(video_pixels * SHRINK), geometry.video_min_pixels),
    )


def _lay_out_image(processor: Processor, geometry: PictureGeometry, image: np.ndarray, name: str) -> MediaLayout:
    patches, grid = image_patches(image, geometry=geometry, name=name)
    return processor.family.lay_out(patches, grid, processor.config, None)


def _lay_out_video(
    processor: Processor, geometry: PictureGeometry, frames: np.ndarray, fps: float | None, name: str
) -> MediaLayout:
    patches, grid = video_patches(frames, geometry=geometry, name=name)
    seconds = geometry.temporal_patch_size / fps if fps else 1.0
    return processor.family.lay_out(patches, grid, processor.config, seconds)


def expand_placeholders(
    config: ModelConfig, ids: np.ndarray, images: list[MediaLayout], videos: list[MediaLayout], *, name: str
) -> EncodedChat:
    """Repeat each placeholder for its merged patches and lay positions along the whole prompt."""
    for kind, token_id, media in (("image", config.image_token_id, images), ("video", config.video_token_id, videos)):
        count = int((ids == token_id).sum())
        if count != len(media):
            raise BadInputError(
                f"{name}: {len(media)} {kind}s for {count} {kind} placeholders in the prompt; give one for each"
            )
    queues = {config.image_token_id: iter(images), config.video_token_id: iter(videos)}
    tokens: list[np.ndarray] = []
    positions: list[np.ndarray] = []
    shown: list[np.ndarray] = []
    frames: list[FramePatches] = []
    here = 0
    for token in ids.tolist():
        if token not in queues:
            tokens.append(np.array([token], np.int32))
            positions.append(np.full((3, 1), here, np.int32))
            shown.append(np.full((1, 2), -1, np.int32))
            here += 1
            continue
        medium = next(queues[token])
        tokens.append(np.full(len(medium.slots_E2), token, np.int32))
        positions.append(medium.offsets_3E + np.int32(here))
        shown.append(medium.slots_E2 + np.array([len(frames), 0], np.int32))
        frames.extend(medium.frames)
        here += medium.advance
    return EncodedChat(
        tokens_T=np.concatenate(tokens) if tokens else np.zeros(0, np.int32),
        positions_3T=np.concatenate(positions, axis=1) if positions else np.zeros((3, 0), np.int32),
        vision_T2=np.concatenate(shown) if shown else np.zeros((0, 2), np.int32),
        frames=tuple(frames),
    )

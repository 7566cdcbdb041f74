"""Encode a chat as token ids, positions and frames: template, placeholder expansion, M-RoPE positions.

1. media are decoded, resized and cut into patches by one rule for training, rollout, scoring and export;
2. the checkpoint's chat template writes one placeholder per medium, which the family's own text replaces;
3. each placeholder id is repeated once per feature, with the features' positions.

It also encodes a response to learn, which continues the prompt.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from urt_jax.data.control_words import ControlWords, control_words
from urt_jax.data.examples import Chat
from urt_jax.data.images import PixelBudget, load_image
from urt_jax.data.tokenizer import END_OF_TEXT, TURN_END, opening_of, without_end, write_chat
from urt_jax.data.video import Clip, load_clip
from urt_jax.data.workers import Workers
from urt_jax.errors import BadInputError, shown
from urt_jax.families.family import Family, Geometry, Json, MediaLayout, Piece
from urt_jax.models.config import ModelConfig
from urt_jax.types import TEXT, EncodedChat, FrameBlend, FramePatches


@dataclass(frozen=True)
class Processor:
    """Encodes chats for one checkpoint: family, sizes, picture settings and tokenizer."""

    family: Family
    config: ModelConfig
    geometry: Geometry
    tokenizer: Any
    kept_settings: Json = field(default_factory=dict)  # keys of config.json that are saved unchanged

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Ids that end a response: the end of a turn and the end of a text."""
        names = (TURN_END, END_OF_TEXT)
        return tuple(i for i in map(self.tokenizer.convert_tokens_to_ids, names) if i is not None)

    @cached_property
    def control_words(self) -> ControlWords:
        """The names of the tokenizer's control tokens; inside a text they are plain text, not tokens."""
        return control_words(self.tokenizer)

    @property
    def pad_id(self) -> int:
        """Id of padding tokens, which attention masks."""
        stored = self.tokenizer.pad_token_id
        return self.end_ids[-1] if stored is None else int(stored)

    @property
    def suppressed_ids(self) -> tuple[int, ...]:
        """Ids that must never be sampled: every special token but the end of a turn or text, and unused rows."""
        config = self.config
        around = {config.vision_start_token_id, config.vision_end_token_id} - {None}
        special = {*self.tokenizer.all_special_ids, config.image_token_id, config.video_token_id, *around}
        special |= {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        unused = range(len(self.tokenizer), self.config.decoder.vocab_size)
        return tuple(sorted((special | set(unused)) - set(self.end_ids)))


def padding_of(processor: Processor) -> dict[str, int]:
    """Return the checkpoint's padding arguments of ``collate``."""
    vision = processor.config.vision
    return {
        "pad_id": processor.pad_id,
        "patch_features": vision.patch_features,
        "merge": vision.merge_size**2,
        "blend_sources": vision.blend_sources,
    }


def encode_chat(
    processor: Processor, chat: Chat, *, name: str, max_tokens: int | None = None, generation_prompt: bool = True
) -> EncodedChat:
    """Encode one chat; the pictures of a prompt longer than ``max_tokens`` are shrunk until it fits.

    Raises:
        BadInputError: more pictures than placeholders or fewer, an unreadable medium, media of more pixels than
            ``MAX_RECORD_PIXELS``, or a prompt whose text alone, or with its pictures at their smallest, is longer than
            ``max_tokens``. ``name`` is the record's name in the message.
    """
    try:
        text = write_chat(processor.tokenizer, chat, processor.control_words, add_generation_prompt=generation_prompt)
    except BadInputError as error:
        raise BadInputError(f"{name}: {error}") from None
    opening = opening_of(text) if generation_prompt else ""
    left = PixelBudget()
    images = [load_image(media, name=f"{name}: image {i + 1}", budget=left) for i, media in enumerate(chat.images)]
    clips = [load_clip(media, name=f"{name}: video {i + 1}", budget=left) for i, media in enumerate(chat.videos)]
    geometry = processor.geometry
    while True:
        layouts = _lay_out(processor, geometry, images, clips, name=name)
        encoded = _encode(processor, text, *layouts, name=name)._replace(opening=opening)
        if max_tokens is None or len(encoded.tokens_T) <= max_tokens:
            return encoded
        smaller = geometry.smaller(images, [clip.frames for clip in clips])
        if smaller is None:
            raise BadInputError(
                f"{name}: the prompt has {len(encoded.tokens_T)} tokens with its pictures at their smallest, "
                f"max_prompt_tokens is {max_tokens}; shorten the text, drop a picture or raise max_prompt_tokens"
            )
        geometry = smaller


def encode_response(processor: Processor, text: str, *, name: str, opening: str = "") -> Int[np.ndarray, " U"]:
    """Return the ids of a response to learn, followed by the end token.

    The opening that the prompt already holds (``EncodedChat.opening``) is removed from its start, and one end token
    from its end.

    Raises:
        BadInputError: it contains a control token elsewhere, opens its reasoning differently from the prompt, or holds
            half of a surrogate pair. ``name`` is the record's name in the message.
    """
    text = without_end(text)
    if found := processor.control_words.pattern.search(text):
        raise BadInputError(
            f"{name}: its response holds {found[0]!r}, which the tokenizer reads as a control token; remove it"
        )
    if opening:
        text = _after_opening(text, opening, name)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInputError(
            f"{name}: its response holds half of a surrogate pair, as a cut emoji leaves it: "
            f"{shown(text[max(error.start - 20, 0) : error.end])}; remove it"
        ) from None
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    return _known_ids(processor, [*ids, processor.end_ids[0]], name)


def _after_opening(text: str, opening: str, name: str) -> str:
    """Return a response without the opening that the prompt already holds."""
    body = text.lstrip()
    for start in (opening, opening.rstrip()):
        if body.startswith(start):
            text = body.removeprefix(start)
            break
    if "<think>" in text:
        raise BadInputError(
            f"{name}: the chat template ends the prompt with {opening!r} and the response has a <think> of its own "
            f"({shown(body[:40])}); give a response that starts so, or another chat template"
        )
    return text


def _known_ids(processor: Processor, ids: list[int], name: str) -> Int[np.ndarray, " T"]:
    """Return the ids as an array; raise a BadInputError for an id beyond the embedding."""
    largest, rows = max(ids, default=0), processor.config.decoder.vocab_size
    if largest >= rows:
        raise BadInputError(
            f"{name}: the tokenizer gives a word the id {largest}, the embedding has {rows} rows; the tokenizer "
            "files and config.json do not belong together"
        )
    return np.asarray(ids, np.int32)


class NamedChat(NamedTuple):
    """A chat to encode; ``name`` is the record's name in errors."""

    chat: Chat
    name: str


def encoding_workers(processor: Processor, *, max_tokens: int | None, count: int) -> Workers[NamedChat, EncodedChat]:
    """Return ``count`` worker processes that run ``encode_chat`` (0: it runs in this process)."""
    return Workers(partial(_encode_named, processor, max_tokens), count)


def _encode_named(processor: Processor, max_tokens: int | None, named: NamedChat) -> EncodedChat:
    return encode_chat(processor, named.chat, name=named.name, max_tokens=max_tokens)


def _lay_out(
    processor: Processor, geometry: Geometry, images: list[np.ndarray], clips: list[Clip], *, name: str
) -> tuple[list[MediaLayout], list[MediaLayout]]:
    family, config, alone = processor.family, processor.config, len(images) == 1
    return (
        [
            family.lay_out_image(image, geometry, config, alone=alone, name=f"{name}: image {i + 1}")
            for i, image in enumerate(images)
        ],
        [family.lay_out_clip(clip, geometry, config, name=f"{name}: video {i + 1}") for i, clip in enumerate(clips)],
    )


def _encode(
    processor: Processor, text: str, images: list[MediaLayout], videos: list[MediaLayout], *, name: str
) -> EncodedChat:
    """Write the media's texts into the prompt, tokenise it, and expand each placeholder."""
    family = processor.family
    placeholders = (("image", family.image_placeholder, images), ("video", family.video_placeholder, videos))
    for kind, placeholder, media in placeholders:
        count = text.count(placeholder)
        if count != len(media):
            raise BadInputError(
                f"{name}: {len(media)} {kind}s for {count} {kind} placeholders in the prompt; give one for each"
            )
    for _, placeholder, media in placeholders:
        text = write_media(text, placeholder, media)
    ids = _known_ids(processor, processor.control_words.token_ids(text), name)
    return expand_placeholders(processor.config, ids, images, videos, name=name)


def write_media(text: str, placeholder: str, media: Sequence[MediaLayout]) -> str:
    """Replace each placeholder by its medium's ``text``, in order of appearance."""
    if all(medium.text is None for medium in media):
        return text
    longer = {medium.instead_of for medium in media if medium.instead_of}
    pattern = "|".join(re.escape(form) for form in (*sorted(longer), placeholder))
    queue = iter(media)
    return re.sub(pattern, lambda _: next(queue).text or placeholder, text)


def expand_placeholders(
    config: ModelConfig, ids: np.ndarray, images: list[MediaLayout], videos: list[MediaLayout], *, name: str
) -> EncodedChat:
    """Repeat each placeholder for the tokens of its piece, and assign positions to the whole prompt.

    Raises:
        BadInputError: placeholders and pieces differ in number.
    """
    places: dict[int, Iterator[tuple[Piece, MediaLayout, bool]]] = {}
    for kind, token_id, media in (("image", config.image_token_id, images), ("video", config.video_token_id, videos)):
        queue = [(piece, medium, n == 0) for medium in media for n, piece in enumerate(medium.pieces)]
        count = int((ids == token_id).sum())
        if count != len(queue):
            raise BadInputError(
                f"{name}: {len(queue)} {kind}s for {count} {kind} placeholders in the prompt; give one for each"
            )
        places[token_id] = iter(queue)
    rows, frames, start = _Rows(config.vision.blend_sources), list[FramePatches](), 0
    first_frame = dict.fromkeys(places, 0)
    for place in np.flatnonzero(np.isin(ids, list(places))).tolist():
        rows.add_text(ids[start:place])
        token, start = int(ids[place]), place + 1
        piece, medium, opens = next(places[token])
        if opens:
            first_frame[token] = len(frames)
            frames.extend(medium.frames)
        rows.add(np.full(len(piece.slots_E2), token, np.int32), piece, first_frame[token])
    rows.add_text(ids[start:])
    return rows.encoded(tuple(frames))


class _Rows:
    """Collects the tokens of a prompt piece by piece."""

    def __init__(self, sources: int) -> None:
        self._sources, self._here = sources, 0  # position of the next token
        self._tokens: list[np.ndarray] = [np.zeros(0, np.int32)]
        self._positions: list[np.ndarray] = [np.zeros((3, 0), np.int32)]
        self._shown: list[np.ndarray] = [np.zeros((0, 2), np.int32)]
        self._blends = [(np.zeros((0, sources, 2), np.int32), np.zeros((0, sources), np.float32))]

    def add_text(self, tokens: np.ndarray) -> None:
        """Append a run of text, which may be empty."""
        count = len(tokens)
        places = np.tile(np.arange(count, dtype=np.int32), (3, 1))
        self.add(tokens, Piece(np.full((count, 2), TEXT, np.int32), places, count), 0)

    def add(self, tokens: np.ndarray, piece: Piece, first_frame: int) -> None:
        """Append the tokens of a piece, whose frames are numbered from ``first_frame``."""
        length, frame = len(tokens), np.array([first_frame, 0], np.int32)
        self._tokens.append(tokens)
        self._positions.append(piece.offsets_3E + np.int32(self._here))
        self._here += piece.advance
        self._shown.append(np.where(piece.slots_E2 >= 0, piece.slots_E2 + frame, piece.slots_E2))
        if self._sources and piece.blend is not None:
            sources, weights = piece.blend
            self._blends.append((np.where(weights[..., None] > 0, sources + frame, 0), weights))
        elif self._sources:
            shape = (length, self._sources)
            self._blends.append((np.zeros((*shape, 2), np.int32), np.zeros(shape, np.float32)))

    def encoded(self, frames: tuple[FramePatches, ...]) -> EncodedChat:
        """Return the collected rows as an encoded chat."""
        blend = FrameBlend(*(np.concatenate(part) for part in zip(*self._blends))) if self._sources else None
        return EncodedChat(
            tokens_T=np.concatenate(self._tokens),
            positions_3T=np.concatenate(self._positions, axis=1),
            vision_T2=np.concatenate(self._shown),
            frames=frames,
            blend=blend,
        )

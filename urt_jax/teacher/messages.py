"""Conversion of a chat with its media to messages of the OpenAI chat-completions protocol."""

from __future__ import annotations

from typing import Any

import numpy as np

from urt_jax.data.examples import Chat
from urt_jax.data.images import PixelBudget, encode_data_url, load_image
from urt_jax.data.video import load_clip


def openai_messages(chat: Chat, *, name: str) -> list[dict[str, Any]]:
    """Return the chat in the OpenAI form, pictures as PNG data URLs and clips as their frames in order.

    With several clips, a line of text precedes each.

    Raises:
        BadInputError: a picture or clip cannot be read, or all together have more pixels than ``MAX_RECORD_PIXELS``;
            ``name`` is in the message.
    """
    images, videos = iter(chat.images), iter(enumerate(chat.videos, start=1))
    messages, left = [], PixelBudget()
    for message in chat.messages:
        content = message["content"]
        parts: list[dict[str, Any]] = []
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "image":
                parts.append(_picture_part(load_image(next(images), name=name, budget=left)))
            elif part["type"] == "video":
                number, clip = next(videos)
                frames = load_clip(clip, name=name, budget=left).frames
                if len(chat.videos) > 1:
                    parts.append({"type": "text", "text": f"Video {number}, {len(frames)} frames in order:"})
                parts.extend(_picture_part(frame) for frame in frames)
            else:
                parts.append(part)
        messages.append({"role": message["role"], "content": parts})
    return messages


def _picture_part(picture: np.ndarray) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": encode_data_url(picture)}}

"""Chats in the OpenAI form: pictures in order, clips as frames."""

import numpy as np
import pytest

from urt_jax.data import images
from urt_jax.data.examples import Chat, Media
from urt_jax.data.images import load_image
from urt_jax.errors import BadInputError
from urt_jax.teacher.messages import openai_messages


def picture(value: int) -> np.ndarray:
    return np.full((4, 6, 3), value, np.uint8)


def shown(parts: list) -> list:
    """Return texts as they are and pictures as the grey value they decode to."""
    return [
        part["text"]
        if part["type"] == "text"
        else int(load_image(Media("image", part["image_url"]["url"]), name="part")[0, 0, 0])
        for part in parts
    ]


def test_pictures_and_clips_stand_where_the_chat_has_them() -> None:
    clips = tuple(Media("video", np.stack([picture(value), picture(value + 1)])) for value in (10, 20))
    text = {"type": "text", "text": "compare"}
    content = [{"type": "image"}, {"type": "video"}, text, {"type": "video"}, {"type": "image"}]
    images = tuple(Media("image", picture(value)) for value in (1, 2))
    (message,) = openai_messages(Chat([{"role": "user", "content": content}], images, clips), name="r")
    assert message["role"] == "user"
    assert shown(message["content"]) == [
        *(1, "Video 1, 2 frames in order:", 10, 11),
        *("compare", "Video 2, 2 frames in order:", 20, 21),
        2,
    ]


def test_a_chat_has_a_budget_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_RECORD_PIXELS", 3 * 24 - 1)
    content, clip = [{"type": "image"}, {"type": "video"}], Media("video", np.stack([picture(1), picture(2)]))
    chat = Chat([{"role": "user", "content": content}], (Media("image", picture(1)),), (clip,))
    with pytest.raises(BadInputError, match="have 72 pixels up to here, at most 71 are decoded"):
        openai_messages(chat, name="r")


def test_a_single_clip_is_its_frames_alone() -> None:
    clip = Media("video", np.stack([picture(1), picture(2), picture(3)]))
    (message,) = openai_messages(Chat([{"role": "user", "content": [{"type": "video"}]}], videos=(clip,)), name="r")
    assert shown(message["content"]) == [1, 2, 3]


def test_a_content_that_is_text_becomes_one_part() -> None:
    messages = openai_messages(Chat([{"role": "system", "content": "be fair"}]), name="r")
    assert messages == [{"role": "system", "content": [{"type": "text", "text": "be fair"}]}]


def test_an_unreadable_picture_is_named_by_its_record() -> None:
    chat = Chat([{"role": "user", "content": [{"type": "image"}]}], images=(Media("image", "nowhere.png"),))
    with pytest.raises(BadInputError, match="record r7"):
        openai_messages(chat, name="record r7")

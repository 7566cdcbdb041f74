"""Chats become tokens, positions and frames: hand positions, missing pictures, too long prompts, forbidden ids."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.tiny import CONFIG, END, FEATURES, IMAGE, PROCESSOR, START, VIDEO
from urt_jax.checkpoints.model_folder import load_processor
from urt_jax.data import images
from urt_jax.data.examples import Chat, Media
from urt_jax.errors import BadInputError
from urt_jax.families import FAMILIES
from urt_jax.families.family import MediaLayout
from urt_jax.families.processor import (
    NamedChat,
    Processor,
    encode_chat,
    encoding_workers,
    expand_placeholders,
)
from urt_jax.families.qwen2_5_vl import lay_out


@pytest.fixture(scope="module")
def processor(tiny_judge: Path) -> Processor:
    return load_processor(str(tiny_judge))[0]


def layout(steps: int, rows: int, cols: int, seconds: float | None = None) -> MediaLayout:
    patches = np.zeros((steps * rows * cols * 4, FEATURES), np.float32)
    return lay_out(patches, (steps, 2 * rows, 2 * cols), CONFIG, seconds)


def expand(ids: list[int], images: list[MediaLayout], videos: list[MediaLayout]) -> Any:
    return expand_placeholders(CONFIG, np.array(ids, np.int32), images, videos, name="record 7")


def picture(height: int, width: int) -> Media:
    return Media("image", np.full((height, width, 3), 90, np.uint8))


def chat_of(text: str, *media: Media) -> Chat:
    content: list[dict[str, Any]] = [{"type": medium.kind} for medium in media]
    return Chat(
        [{"role": "user", "content": [*content, {"type": "text", "text": text}]}],
        tuple(medium for medium in media if medium.kind == "image"),
        tuple(medium for medium in media if medium.kind == "video"),
    )


def test_a_worker_encodes_a_picture_and_a_clip_as_this_process_does(processor: Processor) -> None:
    rng = np.random.default_rng(0)
    shown = Media("image", rng.integers(0, 256, (90, 70, 3), np.uint8))
    clip = Media("video", rng.integers(0, 256, (5, 60, 80, 3), np.uint8), fps=2.0)
    named = NamedChat(chat_of("which?", shown, clip), "record 7")
    with encoding_workers(processor, max_tokens=60, count=1) as workers:
        there = workers.begin(named)()
        with pytest.raises(BadInputError, match=r"^record 7: 1 images for 2 image placeholders in the prompt"):
            workers.begin(named._replace(chat=replace(named.chat, messages=chat_of("?", shown, shown).messages)))()
    here = encode_chat(processor, named.chat, name=named.name, max_tokens=60)
    assert len(here.frames) == 4
    assert jax.tree.structure(there) == jax.tree.structure(here)
    for one, other in zip(jax.tree.leaves(there), jax.tree.leaves(here)):
        np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_can_be_sent_to_a_worker(name: str) -> None:
    sent = pickle.dumps(FAMILIES[name])
    assert pickle.dumps(pickle.loads(sent)) == sent


def test_positions_along_a_prompt_by_hand() -> None:
    """A word, a picture of 2 x 3 merged patches, a word: it starts at 2 and text goes on 3 later."""
    encoded = expand([10, START, IMAGE, END, 11], [layout(1, 2, 3)], [])
    np.testing.assert_array_equal(encoded.tokens_T, [10, START, *[IMAGE] * 6, END, 11])
    np.testing.assert_array_equal(
        encoded.positions_3T,
        [
            [0, 1, 2, 2, 2, 2, 2, 2, 5, 6],
            [0, 1, 2, 2, 2, 3, 3, 3, 5, 6],
            [0, 1, 2, 3, 4, 2, 3, 4, 5, 6],
        ],
    )
    assert encoded.next_position == 7
    assert (encoded.vision_T2[[0, 1, 8, 9]] == -1).all()


def test_media_are_taken_in_order_and_their_frames_counted_on() -> None:
    encoded = expand([VIDEO, 10, IMAGE], [layout(1, 1, 1)], [layout(2, 1, 2, 1.0)])
    np.testing.assert_array_equal(encoded.tokens_T, [VIDEO] * 4 + [10, IMAGE])
    np.testing.assert_array_equal(encoded.positions_3T[0], [0, 0, 2, 2, 2, 3])
    np.testing.assert_array_equal(encoded.vision_T2, [[0, 0], [0, 1], [1, 0], [1, 1], [-1, -1], [2, 0]])
    assert len(encoded.frames) == 3


def test_an_empty_prompt_starts_at_0() -> None:
    assert expand([], [], []).next_position == 0


@pytest.mark.parametrize(
    ("ids", "pictures", "clips", "message"),
    [
        ([10, IMAGE], 0, 0, "^record 7: 0 images for 1 image placeholders in the prompt; give one for each"),
        ([10, IMAGE], 2, 0, "2 images for 1 image placeholders"),
        ([10], 0, 1, "1 videos for 0 video placeholders"),
    ],
)
def test_placeholders_and_media_must_match(ids: list[int], pictures: int, clips: int, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        expand(ids, [layout(1, 1, 1)] * pictures, [layout(1, 1, 1, 1.0)] * clips)


def test_a_chat_ends_where_the_answer_starts(processor: Processor) -> None:
    encoded = encode_chat(processor, chat_of("Which is better?", picture(56, 84)), name="r")
    text = processor.tokenizer.decode(encoded.tokens_T)
    assert text.endswith("<|im_start|>assistant\n")
    assert (encoded.tokens_T == processor.config.image_token_id).sum() == 2 * 3
    closed = encode_chat(processor, chat_of("Which is better?", picture(56, 84)), name="r", generation_prompt=False)
    assert processor.tokenizer.decode(closed.tokens_T).endswith("<|im_end|>\n")


def test_a_prompt_has_a_budget_of_pixels(processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = Media("video", np.zeros((2, 56, 84, 3), np.uint8), fps=2.0)
    monkeypatch.setattr(images, "MAX_RECORD_PIXELS", 4 * 56 * 84)
    encode_chat(processor, chat_of("which?", picture(56, 84), picture(56, 84), clip), name="r")
    with pytest.raises(BadInputError, match=r"^r: video 1: the pictures and frames of the record have 23520 pixels"):
        encode_chat(processor, chat_of("which?", *(picture(56, 84) for _ in range(3)), clip), name="r")


def test_a_too_long_prompt_shrinks_its_pictures(processor: Processor) -> None:
    chat = chat_of("Which?", picture(112, 112), picture(112, 112))
    full = encode_chat(processor, chat, name="r")
    text = len(full.tokens_T) - 2 * 16
    shrunk = encode_chat(processor, chat, name="r", max_tokens=text + 2 * 9)
    assert len(shrunk.tokens_T) == text + 2 * 9
    same = encode_chat(processor, chat, name="r", max_tokens=len(full.tokens_T))
    np.testing.assert_array_equal(same.tokens_T, full.tokens_T)


def test_a_too_long_clip_shrinks_too(processor: Processor) -> None:
    clip = Media("video", np.zeros((4, 112, 112, 3), np.uint8), 2.0)
    full = encode_chat(processor, chat_of("Which?", clip), name="r")
    shrunk = encode_chat(processor, chat_of("Which?", clip), name="r", max_tokens=len(full.tokens_T) - 10)
    assert len(full.frames) == len(shrunk.frames) == 2
    assert len(shrunk.tokens_T) < len(full.tokens_T)


def test_a_prompt_too_long_with_its_smallest_pictures_is_refused(processor: Processor) -> None:
    chat = chat_of("Which?", picture(112, 112))
    full = encode_chat(processor, chat, name="r")
    least = len(full.tokens_T) - 16 + 4
    with pytest.raises(
        BadInputError,
        match=rf"^r: the prompt has {least} tokens with its pictures at their smallest, "
        rf"max_prompt_tokens is {least - 1}; shorten the text, drop a picture or raise max_prompt_tokens",
    ):
        encode_chat(processor, chat, name="r", max_tokens=least - 1)
    with pytest.raises(BadInputError, match="r: the prompt has"):
        encode_chat(processor, chat_of("word " * 50), name="r", max_tokens=20)


def test_an_unreadable_picture_is_named_by_record_and_number(processor: Processor, tmp_path: Path) -> None:
    gone = Media("image", str(tmp_path / "gone.png"))
    with pytest.raises(BadInputError, match=r"record 3: image 2: .*gone\.png"):
        encode_chat(processor, chat_of("Which?", picture(56, 56), gone), name="record 3")
    with pytest.raises(BadInputError, match="record 3: image 1: the picture is 4x1000"):
        encode_chat(processor, chat_of("Which?", picture(4, 1000)), name="record 3")


def test_forbidden_ids_are_special_or_unused_but_never_an_end(processor: Processor) -> None:
    tokenizer, forbidden = processor.tokenizer, set(processor.suppressed_ids)
    assert processor.end_ids == tuple(tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]))
    for name in (
        "<|im_start|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|vision_pad|>",
        "<|image_pad|>",
        "<|video_pad|>",
    ):
        assert tokenizer.convert_tokens_to_ids(name) in forbidden
    assert not forbidden & set(processor.end_ids)
    assert not forbidden & set(tokenizer("Image 1 is better")["input_ids"])
    assert set(PROCESSOR.suppressed_ids) == {1, 3, 4, 5, 6, 38, 39}, "the rows that no token uses, too"

"""Chats become the token ids and positions that transformers' processors and models give them, for every family."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.families.chat_reference import (
    CHAT_FAMILIES,
    ONEVISION,
    PICTURES,
    QWEN2_5,
    QWEN3,
    QWEN3_OLDER,
    VIDEOS,
    ChatFamily,
    counted_clip,
    hf_messages,
    media_of,
    our_chat,
    picture_processor,
    processor_patch,
    without_media,
)
from tests.torchvision_process import run_with_torchvision
from urt_jax.checkpoints.model_folder import load_processor
from urt_jax.data.frame_picking import even_timeline
from urt_jax.families.processor import Processor, encode_chat
from urt_jax.families.qwen3_vl import patch_times

every_family = pytest.mark.parametrize("family", CHAT_FAMILIES, ids=lambda family: family.name)

# Writes the ids that the whole processors give each chat with clips.
REFERENCE = """
import json
from PIL import Image
from transformers.video_utils import VideoMetadata
chats = json.loads(str(given["chats"]))
for family, (folder, name) in json.loads(str(given["folders"])).items():
    processor = getattr(transformers, name).from_pretrained(folder)
    for chat, (messages, pictures, rates) in chats.items():
        images = [Image.fromarray(given[f"{chat}/image/{i}"]) for i in range(pictures)]
        clips = [given[f"{chat}/video/{i}"] for i in range(len(rates))]
        metadata = [
            VideoMetadata(total_num_frames=len(clip), fps=fps, frames_indices=list(range(len(clip))))
            for clip, fps in zip(clips, rates)
        ]
        made = processor(
            text=[processor.apply_chat_template(messages, add_generation_prompt=True)],
            images=[images] if images else None,
            videos=[[torch.from_numpy(clip.transpose(0, 3, 1, 2).copy()) for clip in clips]],
            video_metadata=[metadata],
            do_sample_frames=False,
        )
        results[f"{family}/{chat}"] = np.array(made["input_ids"][0])
        if "second_per_grid_ts" in made:
            results[f"{family}/{chat}/seconds"] = np.array(made["second_per_grid_ts"])
"""


@pytest.fixture(scope="module")
def folders(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for family in (*CHAT_FAMILIES, QWEN3_OLDER):
        made[family.name] = tmp_path_factory.mktemp(family.name)
        family.write_folder(made[family.name], test_data / "qwen-tokenizer")
    return made


@pytest.fixture(scope="module")
def ours(folders: dict[str, Path]) -> dict[str, Processor]:
    return {name: load_processor(str(folder))[0] for name, folder in folders.items()}


@pytest.fixture(scope="module")
def theirs(folders: dict[str, Path]) -> dict[str, Any]:
    return {family.name: picture_processor(family, folders[family.name]) for family in CHAT_FAMILIES}


@pytest.mark.parametrize("chat", PICTURES)
@every_family
def test_ids_of_pictures_equal_transformers(
    family: ChatFamily, chat: str, ours: dict[str, Processor], theirs: dict[str, Any]
) -> None:
    for prompt in (True, False):
        expected = theirs[family.name].apply_chat_template(
            hf_messages(PICTURES[chat]), tokenize=True, return_dict=True, add_generation_prompt=prompt
        )
        encoded = encode_chat(ours[family.name], our_chat(PICTURES[chat]), name="r", generation_prompt=prompt)
        np.testing.assert_array_equal(encoded.tokens_T, expected["input_ids"][0])
        if family is not ONEVISION:
            np.testing.assert_array_equal(encoded.vision_T2[:, 0] >= 0, np.array(expected["mm_token_type_ids"][0]) > 0)
        pixels = expected.get("pixel_values", np.zeros((0, 1)))
        if family is QWEN3:  # whose patches keep transformers' order
            patches = [frame.patches_PC for frame in encoded.frames]
            np.testing.assert_allclose(np.concatenate(patches or [np.zeros((0, 1))]), pixels, atol=1e-6)


@pytest.mark.parametrize("chat", VIDEOS)
@every_family
def test_ids_of_clips_equal_what_transformers_writes_for_their_grids(
    family: ChatFamily, chat: str, ours: dict[str, Processor], theirs: dict[str, Any]
) -> None:
    """Clips lie on the grid already, so that the part of transformers which needs torchvision is not asked."""
    messages, processor = VIDEOS[chat], theirs[family.name]
    text = processor.apply_chat_template(without_media(messages), add_generation_prompt=True)
    images = [Image.fromarray(medium.source) for medium in media_of(messages, "image")]
    pictures = processor._process_images([images])[1] if images else []
    clips = [counted_clip(family, medium, processor) for medium in media_of(messages, "video")]
    (text,), _ = processor.get_text_with_replacements([text], pictures, clips)
    encoded = encode_chat(ours[family.name], our_chat(messages), name="r")
    np.testing.assert_array_equal(encoded.tokens_T, processor.tokenizer(text)["input_ids"])


def test_clips_of_checkpoints_from_transformers_4_have_no_outer_start_and_end(ours: dict[str, Processor]) -> None:
    """4.57 put the stamped blocks in the place of the template's whole <|vision_start|><|video_pad|><|vision_end|>."""
    newer, older = (
        ours[name].tokenizer.decode(encode_chat(ours[name], our_chat(VIDEOS["one clip"]), name="r").tokens_T)
        for name in (QWEN3.name, QWEN3_OLDER.name)
    )
    block = "<|vision_start|>" + "<|video_pad|>" * (14 * 21) + "<|vision_end|>"
    stamped = f"<0.2 seconds>{block}<1.2 seconds>{block}"
    before, after = "<|im_start|>user\n", "What happens?<|im_end|>\n<|im_start|>assistant\n"
    assert older.endswith(f"{before}{stamped}{after}")
    assert newer.endswith(f"{before}<|vision_start|>{stamped}<|vision_end|>{after}")
    assert newer.replace(f"<|vision_start|>{stamped}<|vision_end|>", stamped) == older


@pytest.fixture(scope="module")
def whole(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, np.ndarray]:
    """Return the ids that transformers' processors give the chats with clips where torchvision is."""
    chats, given = {}, {}
    for chat, messages in VIDEOS.items():
        for kind in ("image", "video"):
            given |= {f"{chat}/{kind}/{i}": medium.source for i, medium in enumerate(media_of(messages, kind))}
        rates = [medium.fps for medium in media_of(messages, "video")]
        chats[chat] = (without_media(messages), len(media_of(messages, "image")), rates)
    places = {family.name: (str(folders[family.name]), family.processor.__name__) for family in CHAT_FAMILIES}
    given |= {"chats": np.array(json.dumps(chats)), "folders": np.array(json.dumps(places))}
    return run_with_torchvision(REFERENCE, given, tmp_path_factory.mktemp("whole"))


@pytest.mark.parity
@pytest.mark.parametrize("chat", VIDEOS)
@every_family
def test_ids_of_clips_equal_the_whole_processor(
    family: ChatFamily, chat: str, ours: dict[str, Processor], whole: Mapping[str, np.ndarray]
) -> None:
    encoded = encode_chat(ours[family.name], our_chat(VIDEOS[chat]), name="r")
    np.testing.assert_array_equal(encoded.tokens_T, whole[f"{family.name}/{chat}"])


def test_times_of_temporal_patches_equal_transformers() -> None:
    for fps in (0.5, 1.0, 2.0, 3.5, 12.0, 23.976, 24.0, 29.97, 30.0):
        for frames in range(1, 60):
            for step in (1, 2, 3):
                expected = QWEN3.processor._calculate_timestamps(None, list(range(frames)), fps, step)
                assert patch_times(even_timeline(frames, fps).seconds, step) == expected


def grids(family: ChatFamily, medium: Any, processor: Any) -> list[int]:
    """Return the grid (t, h, w) of a picture by transformers, of a clip on the grid by hand."""
    patch = processor_patch(family)
    if medium.kind == "video":
        return [-(-len(medium.source) // 2), medium.source.shape[1] // patch, medium.source.shape[2] // patch]
    made = processor.image_processor(images=[Image.fromarray(medium.source)], return_tensors="np")
    return made["image_grid_thw"][0].tolist()


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """Return small torch models; what they know of positions is not in their sizes."""
    pytest.importorskip("torch", reason="positions are compared with those of torch models")
    from tests.families.qwen_reference import DEEP_TRAITS, WINDOW_TRAITS, deep_model, window_model

    return {QWEN2_5.name: window_model(WINDOW_TRAITS[0]), QWEN3.name: deep_model(DEEP_TRAITS[0])}


@pytest.mark.parity
@pytest.mark.parametrize("chat", [*PICTURES, *VIDEOS])
@pytest.mark.parametrize("family", [QWEN2_5, QWEN3, QWEN3_OLDER], ids=lambda family: family.name)
def test_positions_equal_those_of_transformers(
    family: ChatFamily, chat: str, ours: dict[str, Processor], theirs: dict[str, Any], models: dict[str, Any]
) -> None:
    import torch

    newest = QWEN3 if family is QWEN3_OLDER else family
    messages, processor = (PICTURES | VIDEOS)[chat], theirs[newest.name]
    encoded = encode_chat(ours[family.name], our_chat(messages), name="r")
    ids, config = torch.tensor(encoded.tokens_T[None], dtype=torch.long), ours[family.name].config
    inputs: dict[str, Any] = {"mm_token_type_ids": (ids == config.image_token_id) + 2 * (ids == config.video_token_id)}
    for kind in ("image", "video"):
        if media := media_of(messages, kind):
            inputs[f"{kind}_grid_thw"] = torch.tensor([grids(newest, medium, processor) for medium in media])
    rates = [medium.fps for medium in media_of(messages, "video")]
    if family is QWEN2_5 and rates:
        inputs["second_per_grid_ts"] = [2 / (fps or 24) for fps in rates]
    expected, delta = models[newest.name].model.get_rope_index(ids, **inputs)
    np.testing.assert_array_equal(encoded.positions_3T, expected[:, 0])
    assert encoded.next_position == len(encoded.tokens_T) + int(delta)


@pytest.mark.parity
@pytest.mark.parametrize("chat", VIDEOS)
def test_clips_are_spaced_as_the_whole_processor_says(chat: str, whole: Mapping[str, np.ndarray]) -> None:
    rates = [medium.fps for medium in media_of(VIDEOS[chat], "video")]
    for fps, seconds in zip(rates, whole[f"{QWEN2_5.name}/{chat}/seconds"]):
        assert seconds == pytest.approx(2 / (fps or 24))

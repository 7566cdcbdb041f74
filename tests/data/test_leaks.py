"""Training records that stand in a benchmark are found by prompt and by decoded pixels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from urt_jax.data.examples import Example, Media
from urt_jax.data.leaks import Benchmark, decoded, media_hash, normalised

RNG = np.random.default_rng(0)


def picture() -> np.ndarray:
    return RNG.integers(0, 255, (8, 8, 3), dtype=np.uint8)


def pair(name: str, prompt: str, *pictures: np.ndarray) -> Example:
    media = tuple(Media("image", one) for one in (*pictures, picture(), picture()))[:2]
    return Example(name, task="image_gen", prompt=prompt, candidates=media, label=1)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("A red dot.", "a  RED dot", True), ("Straße, nachts!", "STRASSE nachts", True), ("a dot", "a dots", False),
     ("?!", "...", True)],
)  # fmt: skip
def test_a_prompt_without_case_punctuation_and_space(one: str, other: str, same: bool) -> None:
    assert (normalised(one) == normalised(other)) is same


def test_a_shared_picture_or_prompt_is_told() -> None:
    mine = picture()
    benchmark = Benchmark().add([pair("b", "A cat!", mine)])
    assert benchmark.shared_with(pair("x", "a dog")) is None
    assert benchmark.shared_with(pair("x", "a  cat")) == "its prompt"
    assert benchmark.shared_with(pair("x", "a dog", picture(), mine)) == "its picture 2"
    clip = Media("video", np.stack([mine, picture()]))
    clips = Benchmark().add([Example("b", task="video_gen", prompt="a", candidates=(clip, clip))])
    assert clips.shared_with(Example("x", task="video_gen", prompt="b", candidates=(clip, clip))) == "its clip 1"
    assert Benchmark().add([Example("b", text="...")]).shared_with(Example("x", text="?")) is None


def test_the_hash_is_of_pixels_and_not_of_bytes(tmp_path: Path) -> None:
    pixels = picture()
    for name in ("a.png", "b.bmp", "c.tiff"):
        Image.fromarray(pixels).save(tmp_path / name)
    found = {media_hash(decoded(Media("image", str(tmp_path / name)), name="x")) for name in ("a.png", "b.bmp")}
    assert found == {media_hash(pixels)}
    assert media_hash(pixels.reshape(4, 16, 3)) != media_hash(pixels)

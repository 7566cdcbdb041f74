"""Clips of every supported form arrive as the same frames; everything else is a clear error."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from urt_jax.data import animations, video
from urt_jax.data.examples import FramePicking, Media
from urt_jax.data.images import encode_data_url
from urt_jax.data.patches import PictureGeometry, normalize
from urt_jax.data.video import load_clip, load_frames, video_patches
from urt_jax.errors import BadInputError

GEOMETRY = PictureGeometry(
    min_pixels=28 * 28,
    max_pixels=28 * 28,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.25, 0.5),
    video_min_pixels=28 * 28 * 2,
    video_max_pixels=28 * 28 * 6,
)


def noise(frames: int = 3, height: int = 6, width: int = 9) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), np.uint8)


def flat(frames: int) -> np.ndarray:
    """Return frames of one colour each, which a palette of a GIF holds without loss."""
    levels = np.arange(frames, dtype=np.uint8) * np.uint8(20)
    return np.broadcast_to(levels[:, None, None, None], (frames, 6, 9, 3)).copy()


def animation(frames: np.ndarray, form: str, **options: object) -> bytes:
    first, *rest = [Image.fromarray(frame) for frame in frames]
    stream = BytesIO()
    first.save(stream, format=form, save_all=True, append_images=rest, **{"duration": 100, **options})
    return stream.getvalue()


def refusal(source: object, **options: int) -> str:
    with pytest.raises(BadInputError) as error:
        load_frames(source, name="record 7: video 1", **options)
    assert str(error.value).startswith("record 7: video 1: ")
    return str(error.value)


def write_frames(folder: Path, frames: np.ndarray) -> list[Path]:
    paths = [folder / f"frame_{8 + i}.png" for i in range(len(frames))]  # 8, 9, 10: by text 10 would come first
    for path, frame in zip(paths, frames):
        Image.fromarray(frame).save(path)
    return paths


def test_array_list_and_folder_give_the_same_frames(tmp_path: Path) -> None:
    frames = noise()
    paths = write_frames(tmp_path, frames)
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / "._frame_8.png").write_bytes(b"left by a file manager")
    mixed = [str(paths[0]), Image.fromarray(frames[1]), encode_data_url(frames[2])]
    for source in (frames, list(frames), tuple(paths), mixed, tmp_path, str(tmp_path)):
        np.testing.assert_array_equal(load_frames(source, name="x"), frames)
        np.testing.assert_array_equal(load_frames(Media("video", source, fps=2.0), name="x"), frames)


@pytest.mark.parametrize(("form", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_animations_give_their_frames(tmp_path: Path, form: str, options: dict) -> None:
    frames = flat(4)
    data = animation(frames, form, **options)
    path = tmp_path / f"clip.{form.lower()}"
    path.write_bytes(data)
    for source in (data, path, str(path), Image.open(BytesIO(data))):
        np.testing.assert_array_equal(load_frames(source, name="x"), frames)
    np.testing.assert_array_equal(load_frames(data, name="x", max_frames=2), frames[[0, 3]])


@pytest.mark.parametrize(("form", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_animations_give_their_rate(form: str, options: dict) -> None:
    frames = flat(7)
    clip = load_clip(animation(frames, form, **options), name="x", picking=FramePicking(fps=5))
    assert (clip.fps, clip.times.tolist()) == (10 * 4 / 7, [0, 0.2, 0.4, 0.6])  # 4 of 7 frames, 100 ms each
    np.testing.assert_array_equal(clip.frames, frames[::2])
    uneven = load_clip(animation(frames, form, duration=[50, 50, 300, 100, 100, 100, 70], **options), name="x")
    assert uneven.fps == pytest.approx(6 / 0.7)
    np.testing.assert_allclose(uneven.times, [0, 0.05, 0.1, 0.4, 0.5, 0.6, 0.7])
    still = load_clip(animation(frames, form, duration=0, **options), name="x")
    assert (len(still.frames), still.fps, still.times) == (7, None, None)


def test_clips_carry_their_rate(tmp_path: Path) -> None:
    frames = noise(9)
    for source in (frames, list(frames), write_frames(tmp_path, frames), tmp_path):
        unknown = load_clip(source, name="x")
        assert (unknown.fps, unknown.times) == (None, None)
        media = Media("video", source, fps=29.97, picking=FramePicking(max_frames=3))
        clip = load_clip(media, name="x")
        np.testing.assert_array_equal(clip.frames, frames[[0, 4, 8]])
        assert clip.fps == pytest.approx(29.97 * 3 / 9)
        np.testing.assert_allclose(clip.times, np.array([0, 4, 8]) / 29.97)
        assert load_clip(media, name="x", picking=FramePicking()).fps == 29.97
        assert "its 9 frames have no times, so they cannot be picked at 2 a second; give the clip's own fps" in refusal(
            Media("video", source, picking=FramePicking(fps=2))
        )


def test_a_limit_thins_what_was_picked() -> None:
    frames = noise(25)
    media = Media("video", frames, fps=8, picking=FramePicking(fps=2))  # frames 0, 4, ..., 24
    np.testing.assert_array_equal(load_frames(media, name="x"), frames[::4])
    np.testing.assert_array_equal(load_frames(media, name="x", max_frames=3), frames[[0, 12, 24]])


def test_a_gif_of_many_colours_keeps_its_own_colours() -> None:
    frames = flat(2)
    frames[:, :, :, 0] = 200
    frames[1, 2, 3] = (0, 90, 10)  # a frame that differs in one pixel is stored as that pixel over the one before
    np.testing.assert_array_equal(load_frames(animation(frames, "GIF"), name="x"), frames)


def test_a_still_picture_is_a_clip_of_one_frame() -> None:
    frame = noise(1)
    stream = BytesIO()
    Image.fromarray(frame[0]).save(stream, format="PNG")
    np.testing.assert_array_equal(load_frames(stream.getvalue(), name="x"), frame)


def test_pages_of_a_document_are_no_frames() -> None:
    assert len(load_frames(animation(flat(3), "TIFF"), name="x")) == 1


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_shares_its_container_with_videos_and_is_a_picture() -> None:
    stream = BytesIO()
    Image.new("RGB", (16, 16), "red").save(stream, format="AVIF")
    assert load_frames(stream.getvalue(), name="x").shape == (1, 16, 16, 3)


@pytest.mark.parametrize(
    ("limit", "kept"), [(1, [0]), (3, [0, 3, 6]), (5, [0, 2, 3, 4, 6]), (7, range(7)), (9, range(7))]
)
def test_long_clips_are_thinned_evenly_from_the_first_frame_to_the_last(
    tmp_path: Path, limit: int, kept: list[int]
) -> None:
    frames = noise(7)
    for source in (frames, write_frames(tmp_path, frames)):
        np.testing.assert_array_equal(load_frames(source, name="x", max_frames=limit), frames[list(kept)])


def test_a_limit_below_one_frame_is_refused() -> None:
    assert "max_frames is 0; give at least 1, or None for all frames" in refusal(noise(), max_frames=0)


def test_frames_of_several_sizes_are_refused() -> None:
    frames = [np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6, 3), np.uint8), np.zeros((5, 6, 3), np.uint8)]
    message = refusal(frames)
    assert "frame 3 is 5x6 (height x width) and frame 1 is 4x6; all frames of a clip need one size" in message


def test_a_bad_frame_is_named_by_its_number(tmp_path: Path) -> None:
    paths = write_frames(tmp_path, noise())
    paths[1].write_bytes(b"")
    assert "record 7: video 1: frame 2: " in refusal(paths)
    assert "is empty (0 bytes)" in refusal(tmp_path)
    assert "frame 4: there is no file" in refusal([paths[0], paths[0], paths[0], tmp_path / "gone.png"])


def test_clips_without_frames_are_refused(tmp_path: Path) -> None:
    assert "the list of frames is empty; a clip needs at least one" in refusal([])
    message = refusal(tmp_path)
    assert "holds no frames; it needs pictures (.bmp, .gif, .jpeg, .jpg, .png" in message
    assert "array of uint8 [0, 4, 4, 3] was given, a clip is uint8 [F, H, W, 3]" in refusal(
        np.zeros((0, 4, 4, 3), np.uint8)
    )


def test_other_sources_are_refused(tmp_path: Path) -> None:
    assert "array of float64 [2, 4, 4, 3] was given" in refusal(np.zeros((2, 4, 4, 3)))
    assert "array of uint8 [4, 4, 3] was given" in refusal(np.zeros((4, 4, 3), np.uint8))
    assert "a clip cannot be read from int; give a uint8 array" in refusal(5)
    assert "an image was given where a clip is needed" in refusal(Media("image", noise()))
    assert "there is no file" in refusal(tmp_path / "gone")
    assert "not a readable picture" in refusal(b"neither picture nor video")
    assert "cannot be read (" in refusal("a\x00b")


def test_a_cut_animation_names_the_frame_or_the_format() -> None:
    data = animation(noise(4, 40, 40), "GIF")
    message = refusal(data[: len(data) * 5 // 8])
    assert "breaks off at frame" in message or "not a readable picture" in message


def test_clips_of_too_many_pixels_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(video, "MAX_CLIP_PIXELS", 3 * 6 * 9 - 1)
    expected = "3 frames of 6x9 are 162 pixels, at most 161 are decoded; give fewer frames (max_frames) or smaller ones"
    assert expected in refusal(write_frames(tmp_path, noise()))
    data = animation(flat(3), "GIF")
    monkeypatch.setattr(animations, "decode_picture", lambda *_, **__: pytest.fail("decoded"))
    assert expected in refusal(data)


def test_a_clip_at_grid_size_is_not_resampled() -> None:
    frames = noise(3, 28, 56)
    patches, grid = video_patches(frames, geometry=GEOMETRY)
    assert grid == (2, 2, 4)
    normal = normalize(frames, GEOMETRY.mean, GEOMETRY.std).transpose(3, 0, 1, 2)
    np.testing.assert_array_equal(patches[0], normal[:, [0, 1], :14, :14].ravel())
    np.testing.assert_array_equal(patches[8], normal[:, [2, 2], :14, :14].ravel())


def test_the_budget_is_for_each_frame_not_for_the_clip() -> None:
    for count in (1, 2, 9):
        patches, grid = video_patches(noise(count, 100, 150), geometry=GEOMETRY)
        assert grid == ((count + 1) // 2, 4, 6)
        assert patches.shape == (int(np.prod(grid)), 3 * 2 * 14 * 14)


def test_each_frame_is_resized_alone() -> None:
    frames = noise(4, 40, 70)
    whole, _ = video_patches(frames, geometry=GEOMETRY)
    tail, _ = video_patches(frames[2:], geometry=GEOMETRY)
    np.testing.assert_array_equal(whole[len(whole) // 2 :], tail)


def test_too_long_strips_are_refused_by_name() -> None:
    with pytest.raises(BadInputError, match=r"^video 2: the picture is 1x300 .*; crop or pad it"):
        video_patches(noise(2, 1, 300), geometry=GEOMETRY, name="video 2")

"""Media promise much: formats, pixels, frames and times are checked before they are believed."""

import base64
import os
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests.data.video_samples import LEVELS, grey_frames, write_video
from urt_jax.data import pictures, video_files
from urt_jax.data.animations import MAX_ANIMATION_FRAMES
from urt_jax.data.examples import Chat, FramePicking, Media
from urt_jax.data.pictures import load_image
from urt_jax.data.video import load_clip
from urt_jax.errors import BadInputError
from urt_jax.families import processor as processors


def encoded(form: str, size: tuple[int, int] = (40, 30), mode: str = "RGB", **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(
        0, 256, (size[1], size[0], len(Image.new(mode, (1, 1)).getbands())), np.uint8
    )
    stream = BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, mode).save(stream, form, **options)
    return stream.getvalue()


def told(media: Any, load: Any = load_image) -> str:
    with pytest.raises(BadInputError) as caught:
        load(media, name="record 7: image 1")
    message = str(caught.value)
    assert message.startswith("record 7: image 1: ")
    assert " at 0x" not in message
    return message


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a PostScript file"),
        (b"\xc5\xd0\xd3\xc6" + bytes(40), "a PostScript file"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture"),
        (b"<?xml version='1.0'?><svg/>", "an SVG drawing"),
        (b"\n <svg xmlns='x'/>", "an SVG drawing"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"PK\x03\x04" + bytes(30), "a packed file"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "a video (mp4)"),
        (encoded("ICO"), "not a readable picture"),
        (encoded("TGA"), "not a readable picture"),
        (b"P6 9", "picture"),
    ],
)
def test_only_the_formats_that_are_meant_are_opened(content: bytes, kind: str) -> None:
    assert kind in told(content)
    assert repr(content[:8])[2:-1] not in told(content) or content[:2] == b"P6"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM"])
def test_every_format_that_is_meant_is_read(form: str) -> None:
    assert load_image(encoded(form), name="x").shape == (30, 40, 3)


@pytest.mark.parametrize("path", ["/dev/zero", "fifo"])
def test_pipes_and_devices_are_refused_at_once(tmp_path: Path, path: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    for load in (load_image, load_clip):
        assert "pipe, socket or device" in told(str(tmp_path / path), load)


def test_base64_without_its_head_is_told() -> None:
    for form in ("PNG", "JPEG", "GIF", "WEBP"):
        assert "looks like base64" in told(base64.b64encode(encoded(form)).decode())


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
@pytest.mark.parametrize("turn", [None, *range(1, 9)])
def test_bands_and_turns_change_nothing(monkeypatch: pytest.MonkeyPatch, mode: str, turn: int | None) -> None:
    exif = Image.Exif()
    if turn is not None:
        exif[0x0112] = turn
    content = encoded("PNG", mode=mode, exif=exif)
    whole = load_image(content, name="x")
    monkeypatch.setattr(pictures, "WHOLE_PIXELS", 10)
    monkeypatch.setattr(pictures, "BAND_ROWS", 7)
    np.testing.assert_array_equal(load_image(content, name="x"), whole)
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(Image.open(BytesIO(content)))
    if mode == "RGB":
        np.testing.assert_array_equal(whole, np.asarray(upright))
    assert whole.shape[:2] == (upright.height, upright.width)


def test_a_transparent_colour_of_a_palette_is_white_in_bands_too(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.effect_noise((20, 30), 90).convert("P")
    stream = BytesIO()
    picture.save(stream, "PNG", transparency=int(np.asarray(picture)[3, 3]))
    whole = load_image(stream.getvalue(), name="x")
    assert whole[3, 3].tolist() == [255, 255, 255]
    monkeypatch.setattr(pictures, "WHOLE_PIXELS", 10)
    monkeypatch.setattr(pictures, "BAND_ROWS", 7)
    np.testing.assert_array_equal(load_image(stream.getvalue(), name="x"), whole)


def test_a_jpeg_beyond_the_limit_is_decoded_smaller_and_others_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_DECODED_PIXELS", 40 * 30 - 1)
    monkeypatch.setattr(pictures, "MAX_DRAFTED_PIXELS", 40 * 30)
    assert load_image(encoded("JPEG"), name="x").shape == (15, 20, 3)
    assert "the picture is 30x40 pixels" in told(encoded("PNG"))
    assert "the picture is 30x40 pixels" in told(encoded("JPEG", progressive=True))
    assert "the picture is 31x40 pixels" in told(encoded("JPEG", (40, 31)))


def test_a_file_of_many_bytes_is_not_read_as_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_PICTURE_BYTES", 50)
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    assert "more than 50 bytes" in told(str(tmp_path / "a.png"))


def test_a_record_has_a_budget_of_pixels(tiny_judge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from urt_jax.checkpoints.model_folder import load_processor

    processor, _ = load_processor(str(tiny_judge))
    monkeypatch.setattr(processors, "MAX_RECORD_PIXELS", 2 * 40 * 30)
    picture = Media("image", encoded("PNG"))
    message = [{"role": "user", "content": [{"type": "image"}] * 3}]
    with pytest.raises(
        BadInputError, match=r"record 7: its media up to image 3 have 3,600 pixels, a record may have 2,400"
    ):
        processors.encode_chat(processor, Chat(message, (picture,) * 3), name="record 7")
    clip = Media("video", np.zeros((3, 30, 40, 3), np.uint8))
    with pytest.raises(BadInputError, match="up to video 1 have 3,600 pixels"):
        processors.encode_chat(
            processor, Chat([{"role": "user", "content": [{"type": "video"}]}], (), (clip,)), name="r"
        )


def gif(frames: int) -> bytes:
    """Write an animation of that many frames of one pixel."""
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    frame = b"!\xf9\x04\x00\x04\x00\x00\x00,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0"
    return head + frame * frames + b";"


def test_an_animation_of_a_million_frames_is_refused() -> None:
    assert len(load_clip(gif(9), name="x").frames) == 9
    assert f"at most {MAX_ANIMATION_FRAMES:,} frames" in told(gif(1_000_000), load_clip)


def test_an_animation_of_large_frames_is_refused() -> None:
    one, other = (Image.new("P", (6000, 5000), colour) for colour in (0, 1))
    stream = BytesIO()
    one.save(stream, "GIF", save_all=True, append_images=[other] * 1 + [one, other] * 9)
    assert "at most 16,384 frames and 536,870,912 pixels" in told(stream.getvalue(), load_clip)


def test_frames_without_times_come_in_the_order_of_the_decoder(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.height, stream.width, stream.pix_fmt, stream.max_b_frames, stream.gop_size = 48, 64, "yuv420p", 2, 12
        for pixels in grey_frames(25):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode(None))
    clip = load_clip(path, name="x")
    assert clip.fps == 24
    assert np.abs(clip.frames[:, 0, 0, 0].astype(int) - LEVELS).max() <= 2
    kept = load_clip(Media("video", path, picking=FramePicking(max_frames=4)), name="x").frames[:, 0, 0, 0]
    assert np.abs(kept.astype(int) - LEVELS[[0, 8, 16, 24]]).max() <= 2


def test_an_avi_that_promises_four_billion_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", grey_frames(5))
    content = bytearray(path.read_bytes())
    header = content.index(b"strh")
    content[header + 8 + 32 : header + 8 + 36] = b"\xff\xff\xff\xff"  # dwLength
    content[4:8] = struct.pack("<I", len(content) + 999)  # and says that it is cut
    path.write_bytes(content)
    assert "frames" in told(path, load_clip)


@pytest.mark.parametrize("fps", [1e-7, 0.0, -1.0, float("nan"), float("inf"), 1e9])
def test_a_rate_that_is_none_is_refused(fps: float) -> None:
    clip = Media("video", np.zeros((5, 4, 4, 3), np.uint8), fps, FramePicking(fps=2))
    assert "its fps is" in told(clip, load_clip)


def test_too_many_frames_of_a_video_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_files, "MAX_CLIP_FRAMES", 4)
    assert "has 5 frames, at most 4 are read" in told(write_video(tmp_path / "a.mp4", grey_frames(5)), load_clip)


def test_a_long_clip_is_picked_from_within_bounds() -> None:
    hours = Media("video", np.zeros((2000, 1, 1, 3), np.uint8), 0.01, FramePicking(fps=1000))
    assert "at most 1,048,576 are looked at" in told(hours, load_clip)
    assert len(load_clip(Media("video", hours.source, 0.01, FramePicking(max_frames=8)), name="x").frames) == 8


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\n",
    ],
)
def test_a_playlist_opens_no_other_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    assert "is not a readable video" in told(tmp_path / "a.mp4", load_clip)


def test_a_picture_named_as_a_video_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(encoded("GIF"))
    assert "is a picture or an animation, not a video" in told(tmp_path / "a.mp4", load_clip)

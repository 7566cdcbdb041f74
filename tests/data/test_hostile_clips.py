"""What a clip promises is capped before it is believed, and containers that state no times are read in order."""

import shutil
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from tests.data.video_samples import grey_frames, levels_of, noisy_frames, write_video
from urt_jax.data import frame_picking, video_files
from urt_jax.data.examples import FramePicking, Media
from urt_jax.data.video import load_clip, load_frames
from urt_jax.errors import BadInputError

NAME = "record 7: video 1"


def refusal(source: object, picking: FramePicking | None = None) -> str:
    with pytest.raises(BadInputError) as error:
        load_clip(source, name=NAME, picking=picking)
    assert str(error.value).startswith(f"{NAME}: ")
    assert " at 0x" not in str(error.value)
    return str(error.value)


CODINGS = [("libx264", 0), ("libx264", 2), ("libx264", 4), ("mpeg4", 2), ("mpeg4", 0), ("mpeg2video", 2), ("mjpeg", 0)]


def write_avi(path: Path, count: int, coding: str, references: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(coding, rate=24)
        stream.height, stream.width = 48, 64
        stream.pix_fmt = "yuvj420p" if coding == "mjpeg" else "yuv420p"
        stream.gop_size, stream.max_b_frames, stream.bit_rate = 12, references, 2_000_000
        if coding == "libx264":
            stream.options = {"bf": str(references), "b-adapt": "0", "b-pyramid": "normal", "refs": "4"}
        for pixels in grey_frames(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("coding", "references"), CODINGS)
def test_an_avi_gives_all_frames_in_the_order_shown(tmp_path: Path, coding: str, references: int) -> None:
    path = write_avi(tmp_path / "clip.avi", 25, coding, references)
    for source in (path, path.read_bytes()):
        clip = load_clip(source, name="x")
        assert levels_of(clip.frames).tolist() == list(range(25))
        assert clip.fps == pytest.approx(24)
        np.testing.assert_allclose(clip.times, np.arange(25) / 24, atol=1e-6)
        for picking, kept in ((FramePicking(max_frames=3), [0, 12, 24]), (FramePicking(fps=4), [0, 6, 12, 18, 24])):
            assert levels_of(load_clip(source, name="x", picking=picking).frames).tolist() == kept


def patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


@pytest.mark.parametrize("promised", [2**32 - 1, 2**31 - 1, 2**24])
def test_frames_an_avi_promises_are_not_believed(tmp_path: Path, promised: int) -> None:
    data = write_video(tmp_path / "clip.avi", noisy_frames(10)).read_bytes()
    data = patched(data, data.index(b"avih") + 8 + 16, struct.pack("<I", promised))
    data = patched(data, data.index(b"strh") + 8 + 32, struct.pack("<I", promised))
    assert len(load_frames(data, name="x", max_frames=4)) == 4
    message = refusal(data[: len(data) * 3 // 4], FramePicking(max_frames=4))
    assert "promises" in message or "ends early" in message


def test_a_long_duration_of_a_webm_is_not_believed(tmp_path: Path) -> None:
    data = write_video(tmp_path / "clip.webm", noisy_frames(10)).read_bytes()
    place = data.index(b"\x44\x89\x88") + 3
    for seconds in (1e9, 1e15, float("inf"), float("nan"), -1.0):
        changed = patched(data, place, struct.pack(">d", seconds * 1000))
        assert len(load_frames(changed, name="x", max_frames=4)) == 4
        refusal(changed[: len(data) * 3 // 4], FramePicking(max_frames=4))


@pytest.mark.parametrize("fps", [1e-7, 1e-300, 5e-324, 0, -1, float("nan"), float("inf"), 1001, True])
def test_a_rate_that_makes_a_clip_last_for_ever_is_refused(fps: object) -> None:
    media = Media("video", np.zeros((60, 4, 4, 3), np.uint8), fps=fps, picking=FramePicking(fps=2))
    message = refusal(media)
    assert "fps" in message


def test_frames_seconds_and_picked_moments_are_capped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clip = Media("video", np.zeros((60, 4, 4, 3), np.uint8), fps=0.001)  # 59,000 seconds: a day is believed
    assert "are more than 1048576; pick fewer" in refusal(clip, FramePicking(fps=1000))
    assert len(load_clip(clip, name="x", picking=FramePicking(fps=2)).frames) == 60
    monkeypatch.setattr(frame_picking, "MAX_CLIP_FRAMES", 59)
    assert "60 frames are promised, at most 59 are read" in refusal(clip)
    monkeypatch.setattr(video_files, "MAX_CLIP_FRAMES", 9)
    path = write_video(tmp_path / "clip.mp4", grey_frames(12))
    assert "holds more than 9 frames, at most 9 are read" in refusal(path)


def test_work_to_reach_kept_frames_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", noisy_frames(40))  # a key frame every 5
    video = video_files.open_video(path, name="x")
    assert video_files._frames_reached(video, range(40)) == 40
    assert video_files._frames_reached(video, [0, 39]) <= 6
    monkeypatch.setattr(video_files, "MAX_REACHED_PIXELS", 6 * 48 * 64)
    assert len(load_frames(path, name="x", max_frames=2)) == 2
    assert "lie between its key frames and the kept ones, at most 18432 are decoded" in refusal(path)


def test_an_animation_named_as_a_video_is_an_animation(tmp_path: Path) -> None:
    from PIL import Image

    frames = [Image.new("RGB", (8, 8), (40 * n, 0, 0)) for n in range(3)]
    for ending in ("mp4", "avi", "mkv"):
        path = tmp_path / f"clip.{ending}"
        frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:], duration=100)
        assert len(load_frames(path, name="x")) == 3


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile '{part}'\n",
        "#EXTM3U\n#EXTINF:1,\n{part}\n",
        "file '{part}'\n",
        "[Script Info]\n{part}",
    ],
)
def test_lists_of_other_files_open_none(tmp_path: Path, text: str) -> None:
    part = write_video(tmp_path / "part.ts", grey_frames(5))
    for ending in ("mp4", "m3u8", "avi"):
        path = tmp_path / f"clip.{ending}"
        path.write_text(text.format(part=part))
        assert "not a readable" in refusal(path)


def test_a_folder_and_a_long_name_of_frames(tmp_path: Path) -> None:
    assert "cannot be read" in refusal("a." * 3000)
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "1.png").mkdir()
    assert "is a folder" in refusal(tmp_path / "frames")
    shutil.rmtree(tmp_path / "frames")


@pytest.mark.parametrize("form", ["mp4", "mkv", "webm", "avi", "mpg", "ts", "flv", "wmv"])
def test_mutated_clips_are_read_or_refused(tmp_path: Path, form: str) -> None:
    rng, told = np.random.default_rng(5), list[str]()
    sound = np.frombuffer(write_video(tmp_path / f"clip.{form}", noisy_frames(6)).read_bytes(), np.uint8)
    for turn in range(40):
        data = sound[: rng.integers(1, len(sound))].copy() if turn % 4 == 0 else sound.copy()
        places = rng.integers(0, min(len(data), 1500 if turn % 2 else len(data)), 12)
        data[places] = rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))], 12)
        try:
            load_clip(data.tobytes(), name=NAME, picking=FramePicking(max_frames=4))
        except BadInputError as error:
            told.append(str(error))
    assert told
    assert not any("b'" in message or " at 0x" in message for message in told)

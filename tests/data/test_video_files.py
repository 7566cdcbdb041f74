"""Video files arrive as their frames, upright and with their times; cut and broken ones are clear errors."""

import base64
import csv
import subprocess
import sys
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest

from tests.data.video_samples import (
    FORMS,
    grey_frames,
    levels_of,
    noisy_frames,
    turned,
    write_sound,
    write_video,
)
from urt_jax.data import video, video_files
from urt_jax.data.examples import FramePicking, Media
from urt_jax.data.video import load_clip, load_frames
from urt_jax.errors import BadInputError

NAME = "record 7: video 1"


def refusal(source: object, picking: FramePicking | None = None) -> str:
    with pytest.raises(BadInputError) as error:
        load_clip(source, name=NAME, picking=picking)
    assert str(error.value).startswith(f"{NAME}: ")
    return str(error.value)


@pytest.mark.parametrize("form", FORMS)
def test_every_container_gives_all_its_frames_in_order(tmp_path: Path, form: str) -> None:
    path = write_video(tmp_path / f"clip.{form}", grey_frames(12))
    clip = load_clip(path, name="x")
    assert (clip.frames.shape, clip.frames.dtype) == ((12, 48, 64, 3), np.uint8)
    assert levels_of(clip.frames).tolist() == list(range(12))
    assert clip.fps == 24
    np.testing.assert_array_equal(clip.times, np.arange(12) / 24)


@pytest.mark.parametrize("form", FORMS)
def test_kept_frames_are_those_of_the_whole_clip(tmp_path: Path, form: str) -> None:
    path = write_video(tmp_path / f"clip.{form}", noisy_frames(40))
    whole = load_frames(path, name="x")
    for picking, kept in (
        (FramePicking(max_frames=3), [0, 20, 39]),  # rounded half to even, as numpy does
        (FramePicking(max_frames=1), [0]),
        (FramePicking(fps=3), [0, 8, 16, 24, 32]),
        (FramePicking(fps=2, max_frames=3), [0, 24, 36]),  # of 0, 12, 24, 36
    ):
        clip = load_clip(path, name="x", picking=picking)
        np.testing.assert_array_equal(clip.frames, whole[kept])
        np.testing.assert_array_equal(clip.times, np.array(kept) / 24)
    assert load_clip(path, name="x", picking=FramePicking(fps=3)).fps == 3


def test_path_bytes_and_data_url_give_the_same(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", grey_frames(5))
    data = path.read_bytes()
    url = "data:video/mp4;base64," + base64.b64encode(data).decode()
    unnamed = tmp_path / "no ending: 100%"
    unnamed.write_bytes(data)
    for source in (str(path), data, bytearray(data), url, unnamed, Media("video", str(path))):
        clip = load_clip(source, name="x")
        np.testing.assert_array_equal(clip.frames, load_frames(path, name="x"))
        assert clip.fps == 24


@pytest.mark.parametrize("form", FORMS)
def test_bytes_need_no_name(tmp_path: Path, form: str) -> None:
    path = write_video(tmp_path / f"clip.{form}", grey_frames(5))
    np.testing.assert_array_equal(load_frames(path.read_bytes(), name="x"), load_frames(path, name="x"))


def test_frames_that_are_never_shown_are_not_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.webm", noisy_frames(10), coding="libvpx")
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        hidden = [bytes(packet) for packet in container.demux(video=0)][7]
    place = data.index(hidden)
    data[place] &= ~0x10  # show_frame in the frame tag of VP8
    clip = load_clip(bytes(data), name="x", picking=FramePicking(max_frames=9))
    assert levels_of(clip.frames).tolist() == [0, 1, 2, 3, 4, 5, 6, 8, 9]


def test_a_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    ticks = [0, 40, 80, 120, 620, 640, 1000, 2000, 2500]
    path = write_video(tmp_path / "clip.mkv", grey_frames(9), ticks=ticks)
    clip = load_clip(path, name="x")
    np.testing.assert_allclose(clip.times, np.array(ticks) / 1000, atol=1e-9)
    assert clip.fps == pytest.approx(8 / 2.5)
    by_rate = load_clip(path, name="x", picking=FramePicking(fps=2))  # nearest to 0, .5, 1, 1.5 (the earlier), 2, 2.5
    assert levels_of(by_rate.frames).tolist() == [0, 4, 6, 7, 8]
    assert by_rate.fps == pytest.approx(len(by_rate.frames) / 9 * 8 / 2.5)


def test_rates_that_containers_round_are_as_stated(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", grey_frames(20), rate=30)  # times in whole milliseconds: 0, 33, 67, ...
    assert load_clip(path, name="x").fps == 30
    assert load_clip(path, name="x", picking=FramePicking(max_frames=2)).fps == pytest.approx(30 * 2 / 20)


def test_a_given_rate_takes_the_place_of_the_files(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", grey_frames(9))
    clip = load_clip(Media("video", path, fps=8.0, picking=FramePicking(fps=2)), name="x")
    assert levels_of(clip.frames).tolist() == [0, 4, 8]
    assert clip.fps == pytest.approx(8 * 3 / 9)
    np.testing.assert_array_equal(clip.times, [0, 0.5, 1])
    assert "its fps is 0.0; give frames a second, above 0" in refusal(Media("video", path, fps=0.0))


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), lambda a: a),
        ((0, 1, -1, 0), lambda a: np.rot90(a, -1)),  # stored x runs down: a quarter to the right
        ((-1, 0, 0, -1), lambda a: np.rot90(a, 2)),
        ((0, -1, 1, 0), lambda a: np.rot90(a, 1)),
        ((-1, 0, 0, 1), lambda a: a[:, ::-1]),
        ((1, 0, 0, -1), lambda a: a[::-1]),
        ((0, 1, 1, 0), lambda a: a.transpose(1, 0, 2)),
    ],
)
def test_frames_are_upright(tmp_path: Path, matrix: tuple[int, int, int, int], shown: object) -> None:
    frame = np.zeros((1, 48, 64, 3), np.uint8)
    frame[0, :16] = (250, 20, 20)
    frame[0, 16:, :20] = (20, 20, 250)
    stored = write_video(tmp_path / "clip.mp4", frame).read_bytes()
    plain = load_frames(stored, name="x")[0]
    np.testing.assert_array_equal(load_frames(turned(stored, *matrix), name="x")[0], shown(plain))


def test_memory_holds_the_kept_frames_alone(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", grey_frames(120, 240, 320))
    load_frames(path, name="x", max_frames=1)
    tracemalloc.start()
    frames = load_frames(path, name="x", max_frames=4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < frames.nbytes + 4 * frames[0].nbytes


def test_pixels_are_limited_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "clip.mp4", grey_frames(5))
    monkeypatch.setattr(video_files, "_decode", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(video, "MAX_CLIP_PIXELS", 5 * 48 * 64 - 1)
    assert "5 frames of 48x64 are 15360 pixels, at most 15359 are decoded; give fewer frames" in refusal(path)
    monkeypatch.setattr(video_files, "MAX_DECODED_PIXELS", 48 * 64 - 1)
    message = refusal(path)
    assert "the frames of " in message
    assert "are 48x64 (height x width); at most 3071 pixels are decoded, make it smaller" in message


def test_frames_that_change_size_are_refused(tmp_path: Path) -> None:
    small, large = grey_frames(6), grey_frames(6, 96, 128)
    first, then = (write_video(tmp_path / f"{n}.ts", f).read_bytes() for n, f in enumerate((small, large)))
    (tmp_path / "both.ts").write_bytes(first + then)
    message = refusal(tmp_path / "both.ts")
    assert "both.ts' cannot be decoded: " in message


@pytest.mark.parametrize("form", ["mp4", "mov", "avi", "mkv", "webm"])
def test_a_cut_video_tells_how_many_frames_are_there(tmp_path: Path, form: str) -> None:
    options = {"movflags": "faststart"} if form in ("mp4", "mov") else {}
    data = write_video(tmp_path / f"whole.{form}", noisy_frames(40), options=options).read_bytes()
    path = tmp_path / f"cut.{form}"
    path.write_bytes(data[: len(data) * 3 // 4])
    message = refusal(path)
    assert f"cut.{form}' ends early: " in message
    assert " of 40 frames are there and frame 40 is needed; download or copy it again" in message
    assert "ends early: " in refusal(path, FramePicking(max_frames=8))
    clip = load_clip(path, name="x", picking=FramePicking(fps=1))  # frames 1 and 25, before the cut
    np.testing.assert_array_equal(clip.frames, load_frames(data, name="x")[[0, 24]])
    assert "the " in refusal(path.read_bytes())


def test_a_cut_video_without_its_table_is_refused(tmp_path: Path) -> None:
    data = write_video(tmp_path / "clip.mp4", noisy_frames(40)).read_bytes()
    assert data.index(b"mdat") < data.index(b"moov")
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: len(data) // 2])
    assert "cut.mp4' ends early, before its table of frames; download or copy it again" in refusal(path)
    path.write_bytes(data[: data.index(b"moov") - 4])
    assert "cut.mp4' is not a readable video (" in refusal(path)


@pytest.mark.parametrize("flags", ["frag_keyframe", "frag_keyframe+empty_moov"])
def test_a_video_of_fragments_is_whole_or_refused(tmp_path: Path, flags: str) -> None:
    path = write_video(tmp_path / "clip.mp4", noisy_frames(40), options={"movflags": flags})
    assert len(load_frames(path, name="x")) == 40
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    message = refusal(path)
    assert "clip.mp4' ends early, " in message
    assert " frames are there; download or copy it again" in message


@pytest.mark.parametrize("form", ["mpg", "ts"])
def test_a_cut_stream_without_a_length_is_refused_where_a_frame_is_cut(tmp_path: Path, form: str) -> None:
    path = write_video(tmp_path / f"clip.{form}", noisy_frames(40))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3 + 150])
    assert f"clip.{form}' cannot be decoded: it is damaged at " in refusal(path)


def test_damage_inside_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", noisy_frames(40), coding="mpeg4")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(range(200))
    path.write_bytes(data)
    message = refusal(path)
    assert "clip.mp4' cannot be decoded: it is damaged at 0." in message
    assert " seconds; download or copy it again, or write it anew: ffmpeg -i OLD -c:v libx264 NEW.mp4" in message
    assert len(load_frames(path, name="x", max_frames=1)) == 1  # what comes before it is sound


def test_broken_bytes_never_escape_as_another_error(tmp_path: Path) -> None:
    rng, refused = np.random.default_rng(3), 0
    for form in ("mp4", "mkv", "avi", "mpg"):
        data = np.frombuffer(write_video(tmp_path / f"clip.{form}", noisy_frames(6)).read_bytes(), np.uint8)
        for _ in range(30):
            broken = data.copy()
            broken[rng.integers(0, len(data), 40)] = rng.integers(0, 256, 40)
            broken[:12] = data[:12]
            try:
                assert load_clip(broken.tobytes(), name="x").frames.shape[-1] == 3
            except BadInputError:
                refused += 1
    assert refused > 40


def test_what_is_no_video_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "clip.mp4"
    path.write_text("This is a note, not a video.\n" * 20)
    message = refusal(path)
    assert "clip.mp4' is not a readable video (" in message
    assert "note" not in message  # of a file that may be any file of the disk
    assert "download or copy it again, or write it anew: ffmpeg" in message
    path.write_bytes(b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom")
    assert "is not a readable video" in refusal(path)
    write_sound(path)
    assert "clip.mp4' holds no video stream (found: audio); give a file with one" in refusal(path)
    path.write_bytes(b"")
    assert "clip.mp4' is empty (0 bytes)" in refusal(path)
    assert "there is no file" in refusal(tmp_path / "gone.mp4")
    assert capfd.readouterr() == ("", "")


def test_a_video_without_frames_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", grey_frames(1))
    data = path.read_bytes()
    cut = data[: data.index(b"movi") + 4]
    path.write_bytes(cut[:4] + (len(cut) - 8).to_bytes(4, "little") + cut[8:])
    assert "clip.avi' holds no frame of video that can be decoded" in refusal(path)


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    part = write_video(tmp_path / "part.ts", grey_frames(5))
    path = tmp_path / "clip.mp4"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{part}\n#EXT-X-ENDLIST\n")
    assert "not a readable clip: it is a playlist (m3u8), which names other files" in refusal(path)


@pytest.mark.parametrize(
    "head",
    [b"\x00\x00\x00\x18ftypisom", b"RIFF\x00\x00\x00\x00AVI LIST", b"\x1a\x45\xdf\xa3\x01", b"\x00\x00\x01\xba!"],
)
def test_bytes_of_video_files_are_recognised(head: bytes) -> None:
    message = refusal(head)
    assert f"the {len(head)} bytes " in message
    assert "video" in message or "ends early" in message


def test_ffmpeg_is_loaded_by_a_video_file_only() -> None:
    code = "import sys, urt_jax, urt_jax.data.video, urt_jax.data.sources; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_real_videos_have_the_frames_their_list_says(test_data: Path) -> None:
    folder = test_data / "videoalign-examples"
    with open(folder / "example.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    for row in rows:
        for side in "AB":
            path, count, rate = folder / row[f"path_{side}"], int(float(row[f"num_frames_{side}"])), row[f"fps_{side}"]
            assert video_files.open_video(path, name="x").timeline.frames == count
            clip = load_clip(path, name="x", picking=FramePicking(max_frames=8))
            kept = np.linspace(0, count - 1, 8).round().astype(int)
            np.testing.assert_allclose(clip.times, kept / float(rate))
            assert clip.fps == pytest.approx(8 / count * float(rate))
            assert len(clip.frames) == 8
            assert clip.frames.std() > 10


def test_a_real_video_loads_whole(test_data: Path) -> None:
    clip = load_clip(test_data / "videoalign-examples/videos/example_3_B.mp4", name="x")
    assert (clip.frames.shape, clip.fps) == ((60, 384, 688, 3), 16)

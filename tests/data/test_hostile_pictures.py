"""What is no picture is named as what it is; what promises too much is refused before it is decoded."""

import base64
import contextlib
import gzip
import os
import socket
import struct
import subprocess
import sys
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from urt_jax.data import animations, images, media_bytes
from urt_jax.data.examples import Media
from urt_jax.data.images import PixelBudget, encode_data_url, load_image
from urt_jax.data.video import load_clip
from urt_jax.errors import BadInputError

NAME = "record 7: image 1"


def encoded(form: str, pixels: np.ndarray | None = None, **options: object) -> bytes:
    stream = BytesIO()
    shown = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8) if pixels is None else pixels
    Image.fromarray(shown).save(stream, format=form, **options)
    return stream.getvalue()


def refusal(source: object) -> str:
    with pytest.raises(BadInputError) as error:
        load_image(source, name=NAME)
    assert str(error.value).startswith(f"{NAME}: ")
    assert " at 0x" not in str(error.value)
    assert len(str(error.value)) < 700
    return str(error.value)


OTHERS = {
    "HEIC": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic",
    "HEIF": b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>',
    "SVG drawing": b'<?xml version="1.0"?>\n<!-- made by x -->\n<svg width="8"/>',
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n",
    "EPS file": b"\xc5\xd0\xd3\xc6" + bytes(28),
    "PDF": b"%PDF-1.7\n",
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
    "HTML page": b"\n<!DOCTYPE html><html><body>403</body></html>",
    "gzip": gzip.compress(b"x"),
    "zip": b"PK\x03\x04" + bytes(30),
    "JPEG 2000": b"\x00\x00\x00\x0cjP  \r\n\x87\n",
    "JPEG XL": b"\xff\x0a" + bytes(12),
    "Photoshop": b"8BPS\x00\x01" + bytes(20),
    "ICO": b"\x00\x00\x01\x00\x01\x00" + bytes(20),
    "numpy array": b"\x93NUMPY\x01\x00",
    "video (mp4); give it as a clip": b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41",
    "video (mkv)": b"\x1a\x45\xdf\xa3" + bytes(20),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_picture_is_told_by_its_kind(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(OTHERS[kind])
    for source in (path, OTHERS[kind], "data:image/png;base64," + base64.b64encode(OTHERS[kind]).decode()):
        message = refusal(source)
        assert "it is a" in message
        assert kind in message
        if "video" not in kind:
            with pytest.raises(BadInputError, match="not a readable clip: it is a"):
                load_clip(source, name=NAME)


def test_formats_that_are_not_meant_start_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started a program"))
    refusal(OTHERS["EPS"])
    for form in ("ICO", "TGA", "PCX", "SGI", "DDS", "PDF", "EPS"):
        refusal(encoded(form))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF"])
def test_formats_that_are_meant_are_read(form: str) -> None:
    assert load_image(encoded(form), name="x").shape == (24, 32, 3)


def test_a_phone_picture_of_several_frames_gives_its_first() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    stream = BytesIO()
    frames[0].save(stream, format="MPO", save_all=True, append_images=frames[1:])
    assert np.abs(load_image(stream.getvalue(), name="x")[0, 0].astype(int) - [255, 0, 0]).max() < 6


def test_pipes_sockets_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "is a pipe, socket or device; give a regular file" in refusal(tmp_path / "pipe.png")
    assert "is a pipe, socket or device" in refusal("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.png"))
        refusal(tmp_path / "socket.png")
    for source in (tmp_path / "pipe.png", tmp_path, [str(tmp_path / "pipe.png")], "/dev/zero"):
        with pytest.raises(BadInputError, match="is a pipe, socket or device"):
            load_clip(source, name=NAME)


def test_base64_without_its_head_is_told() -> None:
    text = base64.b64encode(encoded("PNG")).decode()
    for given in (text, text[:120], base64.urlsafe_b64encode(encoded("PNG")).decode(), text[:76] + "\n" + text[76:150]):
        message = refusal(given)
        assert "looks like base64; write it as a data URL: data:image/png;base64,<base64>" in message
        assert text[:40] not in message
    assert "there is no file" in refusal("pictures/a/missing.png")
    assert "File name too long" in refusal("a" * 30 + "." + "b" * 5000)


@pytest.mark.parametrize(
    "url",
    ["data:", "data:,", "data:image/png;base64,", "data:;base64,%%%", "data:,\ud83d", "data:image/png;base64,aGVsbG8="],
)
def test_empty_and_odd_data_urls_are_refused(url: str) -> None:
    refusal(url)
    with pytest.raises(BadInputError):
        load_clip(url, name=NAME)


@pytest.mark.parametrize(
    "given",
    [
        *(None, 3, 2.5, True, {}, {"bytes": b"x"}, [], [[1, 2], [3]], object(), float("nan"), np.nan),
        *(np.full((4, 4, 3), np.nan), np.zeros((4, 4, 3), np.int64), np.array("a"), np.array(None)),
        *(np.zeros(shape, np.uint8) for shape in ((4, 4, 2), (1, 4, 4, 3), (4, 0, 3), (3,))),
        *(Image.new("RGB", (0, 4)), Image.new("F", (2, 2))),
    ],
)
def test_other_things_are_no_pictures(given: object) -> None:
    refusal(given)
    refusal(Media("image", given))


def test_an_object_that_fails_as_an_array_is_refused() -> None:
    class Broken:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            raise RuntimeError("lost")

    assert "cannot be read as an array (RuntimeError)" in refusal(Broken())


MODES = "1 L LA P PA RGB RGBA RGBX RGBa CMYK YCbCr LAB HSV I I;16"


@pytest.mark.parametrize("mode", MODES.split())
def test_pil_pictures_of_every_mode_are_read(mode: str) -> None:
    assert load_image(Image.new(mode, (3, 2)), name="x").shape == (2, 3, 3)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_bombs_in_notes_and_broken_notes_are_no_warnings() -> None:
    png = encoded("PNG")
    bomb = zlib.compress(bytes(80 << 20))
    for kind in (b"zTXt", b"iCCP"):
        bombed = png[:33] + chunk(kind, b"a\x00\x00" + bomb) + png[33:]
        with contextlib.suppress(BadInputError):
            assert load_image(bombed, name="x").shape == (24, 32, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one_tag = b"II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\xff\xff\xff\xff\x06\x00\x00\x00"
        for cut in (b"MM\x00*\xff", b"II*\x00\x08\x00\x00\x00\xff\xff", one_tag):
            load_image(png[:33] + chunk(b"eXIf", cut) + png[33:], name="x")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF"])
def test_mutated_pictures_are_read_or_refused(form: str) -> None:
    rng, told = np.random.default_rng(11), list[str]()
    sound = np.frombuffer(encoded(form), np.uint8)
    for turn in range(60):
        data = sound[: rng.integers(1, len(sound))].copy() if turn % 3 == 0 else sound.copy()
        places = rng.integers(0, min(len(data), 120 if turn % 2 else len(data)), 4)
        data[places] = rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))], 4)
        try:
            assert load_image(data.tobytes(), name=NAME).dtype == np.uint8
        except BadInputError as error:
            told.append(str(error))
    assert len(told) > 5
    assert not any("b'" in message or " at 0x" in message for message in told)


def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = np.linspace(0, 255, 64 * 48).reshape(48, 64).astype(np.uint8)
    pixels = np.stack([ramp, ramp[:, ::-1], ramp[::-1]], axis=2).repeat(4, 0).repeat(4, 1)  # 192 x 256
    jpeg = encoded("JPEG", pixels, quality=95)
    whole = load_image(jpeg, name="x")
    assert whole.shape == (192, 256, 3)
    monkeypatch.setattr(images, "MAX_DECODED_PIXELS", 192 * 256 - 1)
    half = load_image(jpeg, name="x")
    assert half.shape == (96, 128, 3)
    averaged = whole.reshape(96, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(half - averaged).mean() < 1.5
    monkeypatch.setattr(images, "MAX_DECODED_PIXELS", 50 * 64)
    assert load_image(jpeg, name="x").shape == (48, 64, 3)
    assert "pixels are decoded" in refusal(encoded("JPEG", pixels, progressive=True))  # it needs all its size
    assert "pixels are decoded" in refusal(encoded("PNG", pixels))
    monkeypatch.setattr(images, "MAX_REDUCED_PIXELS", 192 * 256 - 1)
    assert "pixels are decoded" in refusal(jpeg)


def test_pixels_of_strips_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from urt_jax.data import picture_modes

    rng = np.random.default_rng(0)
    for mode, channels in (("RGB", 3), ("RGBA", 4), ("L", 1), ("CMYK", 4)):
        shape = (23, 17, channels) if channels > 1 else (23, 17)
        for turn in range(1, 9):
            picture = Image.fromarray(rng.integers(0, 256, shape, np.uint8), mode)
            picture.getexif()[0x0112] = turn
            whole = picture_modes.upright_rgb(picture)
            with monkeypatch.context() as patch:
                patch.setattr(picture_modes, "_STRIP_PIXELS", 17 * 5)
                np.testing.assert_array_equal(picture_modes.upright_rgb(picture), whole)
            assert whole.shape == ((17, 23, 3) if turn > 4 else (23, 17, 3))


def test_a_budget_counts_pictures_and_frames_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_RECORD_PIXELS", 3 * 24 * 32)
    budget, picture = PixelBudget(), encoded("PNG")
    load_image(picture, name="x", budget=budget)
    load_clip([picture, picture], name="x", budget=budget)
    monkeypatch.setattr(images, "decode_picture", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(BadInputError, match=r"^b: the pictures and frames of the record have 3072 pixels up to here"):
        load_image(picture, name="b", budget=budget)
    for clip in (np.zeros((4, 24, 32, 3), np.uint8), encoded("GIF", None)):
        with pytest.raises(BadInputError, match="at most 2304 are decoded for one"):
            load_clip(clip, name="b", budget=budget)
    assert "data:image/png" in encode_data_url(np.zeros((2, 2, 3), np.uint8))


def test_memory_of_the_largest_picture_is_bounded() -> None:
    code = (
        "import resource, io\nimport numpy as np\nfrom PIL import Image\n"
        "from urt_jax.data.images import load_image\n"
        "s = io.BytesIO()\nImage.new('L', (8192, 8192)).save(s, format='PNG', compress_level=1)\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10\n"
        "before = used()\nload_image(s.getvalue(), name='x')\nprint(used() - before)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert int(shown.stdout) < 420  # 64 MB of greys, 192 MB of RGB; 590 and more with whole copies


def gif_of(count: int, side: int) -> bytes:
    """Return a GIF of frames of one dot each, whatever its own size."""
    dot = b"\x2c" + bytes(4) + struct.pack("<HH", 1, 1) + b"\x00\x02\x02\x4c\x01\x00"
    head = b"GIF89a" + struct.pack("<HH", side, side) + b"\x80\x00\x00" + b"\x00\x00\x00\xff\xff\xff"
    return head + dot * count + b"\x3b"


def test_long_animations_are_refused_by_their_header(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(load_clip(gif_of(5, 8), name="x").frames) == 5
    frames = [Image.new("RGB", (8, 8), (20 * n, 0, 0)) for n in range(5)]
    options = {"save_all": True, "append_images": frames[1:], "duration": 100}
    others = [encoded(form, np.asarray(frames[0]), **options) for form in ("PNG", "WEBP")]
    monkeypatch.setattr(animations, "_frames", lambda *_: pytest.fail("decoded"))
    for data in (gif_of(200_000, 8), gif_of(2000, 4000)):
        with pytest.raises(BadInputError, match=r"the GIF animation has .* frames of .* write it as mp4"):
            load_clip(data, name=NAME)
    monkeypatch.setattr(animations, "MAX_ANIMATION_FRAMES", 3)
    for data in others:
        with pytest.raises(BadInputError, match="animation has more than 3 frames of 8x8"):
            load_clip(data, name=NAME)


def test_encoded_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(media_bytes, "MAX_MEDIA_BYTES", 100)
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    assert "bytes, at most 100 are read" in refusal(tmp_path / "a.png")

"""Every picture format arrives as the same RGB pixels; everything else is a clear error."""

import base64
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from urt_jax.data import images
from urt_jax.data.examples import Media
from urt_jax.data.images import encode_data_url, load_image
from urt_jax.data.media_bytes import decode_data_url
from urt_jax.data.patches import PictureGeometry, image_patches, normalize, patchify, smart_resize
from urt_jax.errors import BadInputError

GEOMETRY = PictureGeometry(
    min_pixels=56 * 56,
    max_pixels=28 * 28 * 8,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.25, 0.5),
    video_min_pixels=56 * 56,
    video_max_pixels=28 * 28 * 8,
)


def noise(height: int = 6, width: int = 9, *, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def encoded(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = BytesIO()
    picture.save(stream, format=form, **options)
    return stream.getvalue()


def refusal(source: object, name: str = "record 7: image 1") -> str:
    with pytest.raises(BadInputError) as error:
        load_image(source, name=name)
    assert str(error.value).startswith(f"{name}: ")
    return str(error.value)


def test_every_source_gives_the_same_pixels(tmp_path: Path) -> None:
    pixels = noise()
    data = encoded(Image.fromarray(pixels))
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    sources = [path, str(path), data, bytearray(data), encode_data_url(pixels), Image.fromarray(pixels), pixels]
    for source in [*sources, *(Media("image", source) for source in sources)]:
        loaded = load_image(source, name="x")
        assert loaded.dtype == np.uint8
        np.testing.assert_array_equal(loaded, pixels)


def test_alpha_is_laid_over_white() -> None:
    rgba = noise(channels=4)
    alpha = rgba[..., 3:].astype(float) / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    for source in (encoded(Image.fromarray(rgba)), rgba):
        assert np.abs(load_image(source, name="x") - expected).max() <= 1
    clear = np.zeros((2, 2, 4), np.uint8)
    assert (load_image(clear, name="x") == 255).all()


def test_grey_with_alpha_is_laid_over_white() -> None:
    grey = Image.merge("LA", [Image.new("L", (3, 2), 40), Image.new("L", (3, 2), 0)])
    assert (load_image(encoded(grey), name="x") == 255).all()


def test_palette_is_looked_up_and_its_clear_colour_is_white() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putdata([0, 1])
    np.testing.assert_array_equal(load_image(encoded(picture), name="x"), [[[10, 20, 30], [200, 100, 50]]])
    for clear in (1, b"\xff\x00"):  # one clear index, or an alpha for every index
        loaded = load_image(encoded(picture, transparency=clear), name="x")
        np.testing.assert_array_equal(loaded, [[[10, 20, 30], [255, 255, 255]]])


def test_a_clear_colour_of_a_true_colour_picture_is_white() -> None:
    pixels = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    loaded = load_image(encoded(Image.fromarray(pixels), transparency=(4, 5, 6)), name="x")
    np.testing.assert_array_equal(loaded, [[[1, 2, 3], [255, 255, 255]]])


@pytest.mark.parametrize(("form", "mode"), [("PNG", "I;16"), ("TIFF", "I;16"), ("TIFF", "I;16B")])
def test_sixteen_bit_grey_is_scaled(form: str, mode: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]])
    picture = Image.frombytes(mode, (6, 1), values.astype(">u2" if mode.endswith("B") else "<u2").tobytes())
    loaded = load_image(encoded(picture, form), name="x")
    np.testing.assert_array_equal(loaded[0, :, 0], [0, 0, 1, 1, 128, 255])
    assert (loaded == loaded[..., :1]).all()


def test_sixteen_bit_values_in_a_wide_integer_picture_are_scaled_too() -> None:
    picture = Image.fromarray(np.array([[0, 65535]], np.int32))
    assert picture.mode == "I"
    np.testing.assert_array_equal(load_image(picture, name="x")[0, :, 0], [0, 255])
    wide = Image.fromarray(np.array([[0, 65536]], np.int32))
    assert "reach from 0 to 65536" in refusal(wide)


def test_cmyk_becomes_rgb() -> None:
    inks = Image.merge("CMYK", [Image.new("L", (16, 16), value) for value in (255, 0, 0, 0)])  # pure cyan
    loaded = load_image(encoded(inks, "TIFF"), name="x")
    np.testing.assert_array_equal(loaded[0, 0], [0, 255, 255])
    jpeg = load_image(encoded(inks, "JPEG", quality=100), name="x")
    assert np.abs(jpeg.astype(int) - [0, 255, 255]).max() <= 3


def test_inks_of_a_photoshop_jpeg_are_stored_inverted() -> None:
    inks = Image.merge("CMYK", [Image.new("L", (16, 16), value) for value in (0, 128, 255, 51)])
    data = encoded(inks, "JPEG", quality=100)
    stored = Image.open(BytesIO(data)).getpixel((0, 0))
    marked = data[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00" + data[2:]  # APP14, no transform
    assert np.abs(np.array(stored) - [0, 128, 255, 51]).max() <= 2
    expected = np.array([255, 127, 0]) * (255 - 51) / 255
    for source in (data, marked):
        assert np.abs(load_image(source, name="x")[0, 0] - expected).max() <= 3


def test_sixteen_bit_colours_are_scaled() -> None:
    colours = np.array([[0, 257, 65535], [32768, 128, 65280]], ">u2")  # two pixels, the high bytes are shown
    expected = [[[0, 1, 255], [128, 0, 255]]]
    np.testing.assert_array_equal(load_image(raw_png(2, 1, 16, 2, colours.tobytes()), name="x"), expected)
    clear = np.concatenate([colours, [[65535], [0]]], axis=1).astype(">u2")  # with alpha, the second pixel invisible
    np.testing.assert_array_equal(
        load_image(raw_png(2, 1, 16, 6, clear.tobytes()), name="x"), [[[0, 1, 255], [255, 255, 255]]]
    )
    grey = np.array([[257 * 9, 65535], [5, 0]], ">u2")
    np.testing.assert_array_equal(load_image(raw_png(2, 1, 16, 4, grey.tobytes()), name="x")[..., 0], [[9, 255]])


def test_few_bits_are_spread_over_the_whole_range() -> None:
    assert load_image(raw_png(8, 1, 1, 0, b"\xa5"), name="x")[0, :, 0].tolist() == [255, 0, 255, 0, 0, 255, 0, 255]
    assert load_image(raw_png(4, 1, 2, 0, b"\x1b"), name="x")[0, :, 0].tolist() == [0, 85, 170, 255]
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putdata([0, 1])
    loaded = load_image(encoded(picture, bits=1), name="x")
    np.testing.assert_array_equal(loaded, [[[10, 20, 30], [200, 100, 50]]])


@pytest.mark.parametrize(("mode", "value", "expected"), [("1", 1, 255), ("L", 77, 77)])
def test_bilevel_and_grey_fill_three_channels(mode: str, value: int, expected: int) -> None:
    loaded = load_image(encoded(Image.new(mode, (3, 2), value)), name="x")
    assert loaded.shape == (2, 3, 3)
    assert (loaded == expected).all()


def test_grey_arrays_fill_three_channels() -> None:
    grey = noise(channels=1)
    for source in (grey, grey[..., 0]):
        np.testing.assert_array_equal(load_image(source, name="x"), np.repeat(grey, 3, axis=2))


@pytest.mark.parametrize(
    ("orientation", "stored"),
    # how the upright pixels lie in the file (EXIF 2.3, tag 274): row 0 of the file is the named side of the picture
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, 1)),
        (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a, -1)),
    ],
)
def test_exif_orientation_is_applied(orientation: int, stored: Callable[[np.ndarray], np.ndarray]) -> None:
    upright = noise()
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored(upright))), exif=exif.tobytes())
    np.testing.assert_array_equal(load_image(data, name="x"), upright)


def test_a_broken_exif_note_leaves_the_picture_as_stored() -> None:
    pixels = noise()
    data = encoded(Image.fromarray(pixels), exif=b"Exif\x00\x00not tiff at all")
    np.testing.assert_array_equal(load_image(data, name="x"), pixels)


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "TIFF"])
def test_every_format_is_turned_upright(form: str) -> None:
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :16] = (255, 255, 255)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(upright, 1)))
    loaded = load_image(encoded(stored, form, exif=exif.tobytes()), name="x")
    assert loaded.shape == upright.shape
    assert np.abs(loaded.astype(int) - upright).mean() < 2


@pytest.mark.parametrize(("form", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_an_animation_gives_its_first_frame(form: str, options: dict) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert (load_image(data, name="x") == [255, 0, 0]).all()


def test_missing_file_folder_and_empty_file_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert re.search(
        r"there is no file 'gone\.png' \(relative paths start at .*\); check the path", refusal("gone.png")
    )
    assert "is a folder; give one file in it" in refusal(tmp_path)
    (tmp_path / "empty.png").touch()
    assert "'empty.png' is empty (0 bytes); download or write it again" in refusal("empty.png")
    assert "the given bytes is empty (0 bytes)" in refusal(b"")


@pytest.mark.parametrize("path", ["a\x00b.png", "x." * 2500])
def test_a_path_no_system_accepts_is_an_error_of_the_input(path: str) -> None:
    message = refusal(path)
    assert "cannot be read (" in message
    assert len(message) < 300


def test_unreadable_and_cut_pictures_are_named() -> None:
    message = refusal(b"hello world")
    assert "not a readable picture (11 bytes, none of JPEG, PNG, WebP, GIF" in message
    assert "hello" not in message  # of a file that may be any file of the disk
    for form in ("PNG", "JPEG", "GIF", "WEBP"):
        data = encoded(Image.fromarray(noise(64, 64)), form)
        message = refusal(data[: len(data) // 2])
        assert "not a readable picture" in message
        assert "as PNG or JPEG" in message


def test_broken_bytes_never_escape_as_another_error() -> None:
    rng, refused = np.random.default_rng(3), 0
    for form in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"):
        sound = np.frombuffer(encoded(Image.fromarray(noise(24, 24)), form), np.uint8)
        for _ in range(40):
            broken = sound.copy()
            broken[rng.integers(0, len(sound), 6)] = rng.integers(0, 256, 6)
            try:
                assert load_image(broken.tobytes(), name="x").shape[-1] == 3
            except BadInputError:
                refused += 1
    assert refused > 20


def test_a_picture_bomb_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    data = png_of_size(11, 10)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    monkeypatch.setattr(images, "MAX_DECODED_PIXELS", 100)
    assert "the picture is 10x11 pixels; at most 100 pixels are decoded, make it smaller or remove it" in refusal(data)


@pytest.mark.parametrize("side", [9000, 10_000, 50_000])  # over our limit; where Pillow warns; where Pillow raises
def test_huge_headers_are_refused(side: int) -> None:
    assert "at most 67108864 pixels are decoded" in refusal(png_of_size(side, side))


def test_a_picture_bomb_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(raw_png(50_000, 50_000, 8, 2, bytes(1 << 24)))
    assert path.stat().st_size < 100_000
    code = (
        "import resource, sys\n"
        "from urt_jax.data.images import BadInputError, load_image\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = used()\n"
        "try:\n    load_image(sys.argv[1], name='x')\n"
        "except BadInputError as error:\n    print(used() - before, error)"
    )
    shown = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120)
    kibibytes, message = shown.stdout.split(" ", 1)
    assert int(kibibytes) < 16 * 1024
    assert "at most 67108864 pixels are decoded" in message


def raw_png(width: int, height: int, bits: int, colour: int, row: bytes) -> bytes:
    """Return a PNG of one given row, whatever its header says; ``colour`` is the colour type of the format."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = zlib.compress(b"\x00" + row)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def png_of_size(width: int, height: int) -> bytes:
    """Return a PNG of 1x1 pixels whose header claims another size."""
    data = encoded(Image.new("RGB", (1, 1)))
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4, 3), np.float32), np.zeros((3, 4, 5), np.uint8), np.zeros((0, 4, 3), np.uint8), np.uint8(3)],
)
def test_other_arrays_are_refused_with_type_and_shape(array: np.ndarray) -> None:
    message = refusal(array)
    assert f"an array of {array.dtype} {list(array.shape)} was given, a picture is uint8 [H, W, 3]" in message


def test_other_things_are_refused() -> None:
    assert "a picture cannot be read from int; give a path" in refusal(3)
    assert "a video was given where one image is needed" in refusal(Media("video", noise()))
    assert "is a web address and nothing is fetched; download it" in refusal("https://example.org/a.png")
    assert "floating-point numbers (mode F)" in refusal(Image.new("F", (2, 2)))


def test_data_urls_come_back_as_given() -> None:
    pixels = noise()
    url = encode_data_url(pixels)
    assert url.startswith("data:image/png;base64,")
    assert url == encode_data_url(pixels.copy())
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(decode_data_url(url)))), pixels)
    assert decode_data_url("DATA:text/plain,a%20b") == b"a b"
    assert decode_data_url("data:x;base64," + base64.b64encode(b"abcdef").decode()[:4] + "\n ZGVm") == b"abcdef"


def test_broken_data_urls_are_refused() -> None:
    with pytest.raises(BadInputError, match=r"'image/png;base64,AAAA' is not a data URL; it must look like"):
        decode_data_url("image/png;base64,AAAA")
    with pytest.raises(BadInputError, match=r"holds broken base64 \(.*\); encode it again"):
        decode_data_url("data:image/png;base64,AAA*")
    assert "holds broken base64" in refusal("data:image/png;base64,A")


def test_smart_resize_rounds_halves_to_even_and_keeps_the_budget() -> None:
    budget = {"factor": 28, "min_pixels": 56 * 56, "max_pixels": 28 * 28 * 1280}
    assert smart_resize(70, 98, **budget) == (56, 112)  # 2.5 -> 2, 3.5 -> 4
    assert smart_resize(1, 1, **budget) == (56, 56)
    assert smart_resize(56, 56, **budget) == (56, 56)
    rng = np.random.default_rng(0)
    for height, width in rng.integers(20, 3000, (200, 2)).tolist():
        rows, columns = smart_resize(height, width, **budget)
        assert rows % 28 == columns % 28 == 0
        assert 56 * 56 <= rows * columns <= 28 * 28 * 1280


def test_too_long_strips_are_refused() -> None:
    budget = {"factor": 28, "min_pixels": 56 * 56, "max_pixels": 28 * 28 * 1280}
    assert smart_resize(3, 600, **budget)[0] == 28
    with pytest.raises(
        BadInputError, match=r"the picture is 601x3 \(height x width\), one side may be at most 200 times"
    ):
        smart_resize(601, 3, **budget)
    with pytest.raises(BadInputError, match=r"^image 2: the picture is 1x300 .*; crop or pad it"):
        image_patches(np.zeros((1, 300, 3), np.uint8), geometry=GEOMETRY, name="image 2")


def test_impossible_budgets_are_refused() -> None:
    with pytest.raises(BadInputError, match=r"min_pixels=9 and max_pixels=8: need 1 <= min <= max"):
        PictureGeometry(
            min_pixels=9, max_pixels=8, mean=(0, 0, 0), std=(1, 1, 1), video_min_pixels=1, video_max_pixels=1
        )
    with pytest.raises(BadInputError, match=r"video_min_pixels=0 and video_max_pixels=8"):
        PictureGeometry(
            min_pixels=1, max_pixels=8, mean=(0, 0, 0), std=(1, 1, 1), video_min_pixels=0, video_max_pixels=8
        )


def test_normalize_is_the_formula() -> None:
    pixels = noise()
    expected = (pixels / 255 - np.array(GEOMETRY.mean)) / np.array(GEOMETRY.std)
    result = normalize(pixels, GEOMETRY.mean, GEOMETRY.std)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-6)
    # and bit for bit on the scale 0..255, the order of the published clip processors
    offset, spread = (np.float32(255) * np.array(part, np.float32) for part in (GEOMETRY.mean, GEOMETRY.std))
    np.testing.assert_array_equal(result, (pixels.astype(np.float32) - offset) / spread)


def test_patches_come_merge_block_by_merge_block() -> None:
    # 4x8 pixels, patches of 2, merge 2: each pixel says which patch it lies in, as drawn in the docstring
    order = np.array([[0, 1, 4, 5], [2, 3, 6, 7]], np.float32)
    frame = np.repeat(np.repeat(order, 2, axis=0), 2, axis=1)[None, :, :, None]
    patches, grid = patchify(frame, patch_size=2, temporal_patch_size=2, merge_size=2)
    assert grid == (1, 2, 4)
    assert patches.shape == (8, 8)
    np.testing.assert_array_equal(patches, np.repeat(np.arange(8)[:, None], 8, axis=1))


def test_a_patch_lists_channels_then_frames_then_rows() -> None:
    frames = np.arange(3 * 2 * 2 * 3, dtype=np.float32).reshape(3, 2, 2, 3)
    patches, grid = patchify(frames, patch_size=2, temporal_patch_size=2, merge_size=1)
    assert grid == (2, 1, 1)
    by_channel = frames.transpose(3, 0, 1, 2)
    np.testing.assert_array_equal(patches[0], by_channel[:, [0, 1]].ravel())
    np.testing.assert_array_equal(patches[1], by_channel[:, [2, 2]].ravel())  # the last frame stands in


def test_sides_off_the_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="frames of 4x6 are no multiples of 4; resize them by smart_resize"):
        patchify(np.zeros((1, 4, 6, 3), np.float32), patch_size=2, temporal_patch_size=2, merge_size=2)


def test_a_picture_at_grid_size_is_not_resampled() -> None:
    pixels = noise(56, 84)
    patches, grid = image_patches(pixels, geometry=GEOMETRY)
    assert grid == (1, 4, 6)
    first = normalize(pixels[:14, :14], GEOMETRY.mean, GEOMETRY.std).transpose(2, 0, 1)
    np.testing.assert_array_equal(patches[0], np.repeat(first[:, None], 2, axis=1).ravel())

"""Pictures of any form in, RGB arrays and the patches of the Qwen vision towers out, with numpy and Pillow alone."""

import base64
import binascii
import math
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from urt_jax.data.examples import Media
from urt_jax.errors import BadInputError

# Width times height allowed to be decoded: above any camera in common use, 200 MB as RGB, and below the size at which
# Pillow itself begins to warn.
MAX_DECODED_PIXELS = 2**26
SHRINK = 0.8  # each retry of a too long prompt keeps this share of the pixels
MAX_ASPECT_RATIO = 200  # longer strips are refused, as the published processors do

_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, kw_only=True)
class PictureGeometry:
    """How one checkpoint sees pictures: patch sizes in pixels and frames, pixel budgets of one picture or video frame.

    ``mean`` and ``std`` are per channel (RGB) on the scale 0..1.
    """

    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    min_pixels: int
    max_pixels: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    video_min_pixels: int
    video_max_pixels: int

    def __post_init__(self) -> None:
        for prefix in ("", "video_"):
            least, most = getattr(self, f"{prefix}min_pixels"), getattr(self, f"{prefix}max_pixels")
            if not 1 <= least <= most:
                raise BadInputError(
                    f"{prefix}min_pixels={least} and {prefix}max_pixels={most}: need 1 <= min <= max; these are counts "
                    "of pixels (height x width) of one picture, mend the preprocessor settings of the checkpoint"
                )

    @property
    def factor(self) -> int:
        """Pixels along one side of a merged patch; both sides of a resized picture are multiples of it."""
        return self.patch_size * self.merge_size

    def within(self, min_pixels: int | None, max_pixels: int | None) -> "PictureGeometry":
        """Return settings with other pixel bounds of a picture where they are given.

        Raises:
            BadInputError: a lower bound above the upper one.
        """
        low, high = min_pixels or self.min_pixels, max_pixels or self.max_pixels
        if low > high:
            raise BadInputError(f"min_pixels {low} is above max_pixels {high}; set both pixels knobs")
        return replace(self, min_pixels=low, max_pixels=high)

    def smaller(self, images: list[np.ndarray], clips: list[np.ndarray]) -> "PictureGeometry | None":
        """Return settings that give these media fewer pixels, or None when all are at the minimum already."""
        largest_image = max((image.shape[0] * image.shape[1] for image in images), default=0)
        largest_frame = max((frames.shape[1] * frames.shape[2] for frames in clips), default=0)
        image_pixels = min(self.max_pixels, largest_image) if largest_image else self.min_pixels
        frame_pixels = min(self.video_max_pixels, largest_frame) if largest_frame else self.video_min_pixels
        if image_pixels <= self.min_pixels and frame_pixels <= self.video_min_pixels:
            return None
        return replace(
            self,
            max_pixels=max(int(image_pixels * SHRINK), self.min_pixels),
            video_max_pixels=max(int(frame_pixels * SHRINK), self.video_min_pixels),
        )


def load_image(media: Any, *, name: str) -> UInt8[np.ndarray, "H W 3"]:
    """Decode one picture to RGB; ``name`` says in every error which picture it was.

    ``media`` is a ``Media``, a path, encoded bytes, a data URL, a PIL image, or a ``uint8`` array ``[H, W]`` or
    ``[H, W, 1 | 3 | 4]`` (an ``[H, W, 3]`` array is returned itself, not copied). The EXIF orientation is applied,
    transparency is laid over white, 16-bit grey is scaled to 8 bits, of an animation the first frame is taken; colour
    profiles are ignored.

    Raises:
        BadInputError: missing, empty or unreadable file, a web address, more than ``MAX_DECODED_PIXELS`` (found before
            decoding), an array of another type or shape.
    """
    if isinstance(media, Media):
        if media.kind != "image":
            raise BadInputError(f"{name}: a {media.kind} was given where one image is needed; give a single picture")
        media = media.source
    if isinstance(media, (str, Path, bytes, bytearray)):
        media = open_picture(read_bytes(media, name=name), name=name)
    if isinstance(media, Image.Image):
        return decode_picture(media, name=name)
    if hasattr(media, "__array__"):
        return _rgb_of_array(np.asarray(media), name=name)
    raise BadInputError(
        f"{name}: a picture can not be read from {type(media).__name__}; give a path, encoded bytes, a data URL, "
        "a PIL image or a uint8 array [H, W, 3]"
    )


def read_bytes(source: str | Path | bytes | bytearray, *, name: str, most: int = -1) -> bytes:
    """Return the encoded bytes behind a path or a data URL, or the bytes themselves; of a file only the first ``most``.

    Raises:
        BadInputError: a web address, a missing or unreadable file, a broken data URL, or no bytes at all.
    """
    given = repr(str(source)[:120]) if isinstance(source, (str, Path)) else "the given bytes"
    try:
        if isinstance(source, (bytes, bytearray)):
            data = bytes(source)
        elif isinstance(source, str) and source[:5].lower() == "data:":
            data = decode_data_url(source)
        elif isinstance(source, str) and source.lower().startswith(("http://", "https://")):
            raise BadInputError(f"{given} is a web address and nothing is fetched; download it and give the file")
        else:
            with Path(source).open("rb") as file:
                data = file.read(most)
    except FileNotFoundError:
        raise BadInputError(
            f"{name}: there is no file {given} (relative paths start at {str(Path.cwd())!r}); check the path or the "
            "media folder"
        ) from None
    except IsADirectoryError:
        raise BadInputError(f"{name}: {given} is a folder; give one file in it") from None
    except BadInputError as error:
        raise BadInputError(f"{name}: {error}") from None
    except (OSError, ValueError) as error:  # no permission, a name too long, a zero byte in a name
        reason = getattr(error, "strerror", None) or error  # an OSError's own text repeats the whole path
        raise BadInputError(f"{name}: {given} can not be read ({reason}); check path and permissions") from error
    if not data:
        raise BadInputError(f"{name}: {given} is empty (0 bytes); download or write it again")
    return data


def open_picture(data: bytes, *, name: str) -> Image.Image:
    """Read the header of an encoded picture; its pixels are decoded later.

    Raises:
        BadInputError: no picture format, or more than ``MAX_DECODED_PIXELS``.
    """
    try:
        picture = Image.open(BytesIO(data))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadInputError(f"{name}: {error}; {_too_many_pixels()}") from error
    except Exception as error:  # decoders raise anything on broken bytes
        raise _unreadable(name, error, f"the {len(data)} bytes start with {data[:8]!r}") from error
    check_pixels(picture, name=name)
    return picture


def decode_picture(picture: Image.Image, *, name: str) -> UInt8[np.ndarray, "H W 3"]:
    """Decode the frame a PIL image stands at, upright and as RGB over white.

    Raises:
        BadInputError: broken or cut pixel data, more than ``MAX_DECODED_PIXELS``, or pixels without a fixed range.
    """
    check_pixels(picture, name=name)
    try:
        picture.load()
        return np.array(_to_rgb(_upright(picture)))
    except BadInputError as error:
        raise BadInputError(f"{name}: {error}") from None
    except Exception as error:  # decoders raise anything on broken bytes
        raise _unreadable(name, error, f"{picture.format or 'PIL'} picture, mode {picture.mode}") from error


def check_pixels(picture: Image.Image, *, name: str) -> None:
    """Refuse a picture of more than ``MAX_DECODED_PIXELS`` by its header.

    Raises:
        BadInputError: it is larger; the message has its size.
    """
    if picture.width * picture.height > MAX_DECODED_PIXELS:
        raise BadInputError(f"{name}: the picture is {picture.height}x{picture.width} pixels; {_too_many_pixels()}")


def encode_data_url(array: UInt8[np.ndarray, "H W 3"]) -> str:
    """Return a picture as a PNG data URL, lossless and the same string for the same pixels."""
    stream = BytesIO()
    Image.fromarray(array).save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def decode_data_url(url: str) -> bytes:
    """Return the bytes of a data URL (RFC 2397), base64 or percent-encoded.

    Raises:
        BadInputError: no data URL, or broken base64.
    """
    head, comma, body = url.partition(",")
    if head[:5].lower() != "data:" or not comma:
        raise BadInputError(f"{url[:60]!r} is no data URL; it must look like data:image/png;base64,<base64>")
    raw = unquote_to_bytes(body)
    if not head.lower().endswith(";base64"):
        return raw
    try:
        return base64.b64decode(b"".join(raw.split()), validate=True)
    except binascii.Error as error:
        raise BadInputError(f"the data URL {url[:60]!r}... holds broken base64 ({error}); encode it again") from error


def smart_resize(height: int, width: int, *, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Return the (height, width) a picture is resized to: multiples of ``factor`` within a budget of pixels.

    The rule of Qwen2-VL and Qwen2.5-VL: round each side to the nearest multiple (half to even); outside the budget,
    scale both sides by one ratio and round towards the budget.

    Raises:
        BadInputError: one side is more than 200 times the other, or a side is 0.
    """
    short, long = sorted((height, width))
    if short < 1 or long / short > MAX_ASPECT_RATIO:
        raise BadInputError(
            f"the picture is {height}x{width} (height x width), one side may be at most {MAX_ASPECT_RATIO} times the "
            "other; crop or pad it"
        )

    rounded = round(height / factor) * factor, round(width / factor) * factor
    # Multiplied and divided in the published order: next to a multiple, another order rounds to the other side.
    if math.prod(rounded) > max_pixels:
        ratio = math.sqrt(height * width / max_pixels)
        rows, columns = math.floor(height / ratio / factor), math.floor(width / ratio / factor)
        return max(rows, 1) * factor, max(columns, 1) * factor
    if math.prod(rounded) < min_pixels:
        ratio = math.sqrt(min_pixels / (height * width))
        return math.ceil(height * ratio / factor) * factor, math.ceil(width * ratio / factor) * factor
    return rounded


def resize_image(array: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """Resize to (height, width) by Pillow's bicubic filter; a picture of that size already is returned itself."""
    if array.shape[:2] == size:
        return array
    return np.asarray(Image.fromarray(array).resize((size[1], size[0]), resample=Image.Resampling.BICUBIC))


def normalize(
    array: UInt8[np.ndarray, "... 3"], mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Float32[np.ndarray, "... 3"]:
    """Return ``(x - 255 mean) / (255 std)`` per channel, in float32 on the scale 0..255.

    The order of the fused torchvision processors, bit for bit; the Pillow ones differ from it by 3e-7.
    """
    # A row of pixels at a time: numpy is slow over a last axis of three.
    offset, spread = (np.tile(np.asarray(part, np.float32) * np.float32(255), array.shape[-2]) for part in (mean, std))
    result = array.reshape(*array.shape[:-2], -1).astype(np.float32)
    result -= offset
    result /= spread
    return result.reshape(array.shape)


def patchify(
    frames: Float32[np.ndarray, "F H W C"], *, patch_size: int, temporal_patch_size: int, merge_size: int
) -> tuple[Float32[np.ndarray, "P K"], tuple[int, int, int]]:
    """Cut frames into flat patches and return them with their grid (t, h, w) in patches, ``P = t*h*w``.

    The last frame is repeated until the frames fill whole temporal patches, so a picture is one frame. The patches of
    a merge block follow each other; a patch lists its channels, then frames, rows, columns. With ``merge_size=2``::

        order of the patches of one frame    0 1 | 4 5
                                             2 3 | 6 7

    Raises:
        ValueError: a side is no multiple of ``patch_size * merge_size``.
    """
    count, height, width, channels = frames.shape
    factor = patch_size * merge_size
    if height % factor or width % factor:
        raise ValueError(f"frames of {height}x{width} are no multiples of {factor}; resize them by smart_resize first")
    if missing := -count % temporal_patch_size:
        frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
    grid = len(frames) // temporal_patch_size, height // patch_size, width // patch_size
    blocks = frames.reshape(
        grid[0],
        temporal_patch_size,
        *(grid[1] // merge_size, merge_size, patch_size),
        *(grid[2] // merge_size, merge_size, patch_size),
        channels,
    )
    # (t, frame, row block, row, y, column block, column, x, channel)
    ordered = blocks.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return ordered.reshape(math.prod(grid), channels * temporal_patch_size * patch_size**2), grid


def image_patches(
    array: UInt8[np.ndarray, "H W 3"], *, geometry: PictureGeometry, name: str = "image"
) -> tuple[Float32[np.ndarray, "P K"], tuple[int, int, int]]:
    """Resize, normalise and cut one picture; return its patches and grid (1, h, w).

    Raises:
        BadInputError: the picture, called ``name``, is too long a strip.
    """
    low, high = geometry.min_pixels, geometry.max_pixels
    try:
        size = smart_resize(*array.shape[:2], factor=geometry.factor, min_pixels=low, max_pixels=high)
    except BadInputError as error:
        raise BadInputError(f"{name}: {error}") from None
    return frame_patches(resize_image(array, size)[None], geometry)


def frame_patches(
    frames: UInt8[np.ndarray, "F H W 3"], geometry: PictureGeometry
) -> tuple[Float32[np.ndarray, "P K"], tuple[int, int, int]]:
    """Normalise and cut frames that have their size already; the shared part of pictures and clips."""
    return patchify(
        normalize(frames, geometry.mean, geometry.std),
        patch_size=geometry.patch_size,
        temporal_patch_size=geometry.temporal_patch_size,
        merge_size=geometry.merge_size,
    )


def _rgb_of_array(array: np.ndarray, *, name: str) -> np.ndarray:
    colours = 1 if array.ndim == 2 else array.shape[-1] if array.ndim == 3 else 0
    if array.dtype != np.uint8 or colours not in (1, 3, 4) or not array.size:
        raise BadInputError(
            f"{name}: an array of {array.dtype} {list(array.shape)} was given, a picture is uint8 [H, W, 3] with "
            "values 0..255 (also [H, W], [H, W, 1] and [H, W, 4]); convert it first"
        )
    if colours == 3:
        return array
    flat = array.reshape(array.shape[:2]) if colours == 1 else array
    return decode_picture(Image.fromarray(flat), name=name)


def _upright(picture: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(picture.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # a broken note beside sound pixels: shown as stored
        turn = None
    return picture if turn is None else picture.transpose(turn)


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        return _eight_bits(np.asarray(picture)).convert("RGB")
    if picture.mode == "F":
        raise BadInputError("its pixels are floating-point numbers (mode F), of no fixed range; save it with 8 bits")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture.convert("RGBA"))
    return white.convert("RGB")


def _eight_bits(values: np.ndarray) -> Image.Image:
    if values.min() < 0 or values.max() > 65535:
        raise BadInputError(
            f"its grey values reach from {values.min()} to {values.max()}, 16-bit values are 0 to 65535; "
            "save it with 8 bits"
        )
    return Image.fromarray(((values.astype(np.int64) + 128) // 257).astype(np.uint8))


def _too_many_pixels() -> str:
    return f"at most {MAX_DECODED_PIXELS} pixels are decoded, make it smaller or remove it"


def _unreadable(name: str, error: Exception, given: str) -> BadInputError:
    return BadInputError(
        f"{name}: not a readable picture ({given}; {type(error).__name__}: {error}); download or save it again as PNG "
        "or JPEG"
    )

"""Reading and writing the picture settings files of the Qwen families, of older versions and transformers 5."""

from dataclasses import fields
from typing import TypeVar

from urt_jax.data.patches import PictureGeometry
from urt_jax.families.config_fields import MAX_CHANNELS, MAX_SIDE
from urt_jax.families.family import Json, PictureSettings
from urt_jax.files.fields import Fields

QWEN_MEAN = (0.48145466, 0.4578275, 0.40821073)
QWEN_STD = (0.26862954, 0.26130258, 0.27577711)

MAX_PIXELS = 2**32  # largest pixel bound accepted; no decoded picture or clip reaches it

G = TypeVar("G", bound=PictureGeometry)


def read_picture_geometry(settings: PictureSettings, default: G) -> G:
    """Return the geometry of a folder's settings, of the type of ``default``, which fills missing fields."""
    image = Fields(settings.image, "preprocessor_config.json")
    video = Fields(settings.video, "video_preprocessor_config.json")
    low, high = _pixel_bounds(image, default.min_pixels, default.max_pixels)
    video_low, video_high = _pixel_bounds(video, default.video_min_pixels, default.video_max_pixels)
    known = {field.name: getattr(default, field.name) for field in fields(default)}
    stated = {
        "patch_size": image.integer("patch_size", default.patch_size, at_least=1, at_most=MAX_SIDE),
        "temporal_patch_size": image.integer(
            "temporal_patch_size", default.temporal_patch_size, at_least=1, at_most=MAX_CHANNELS
        ),
        "merge_size": image.integer("merge_size", default.merge_size, at_least=1, at_most=MAX_CHANNELS),
        "mean": read_colours(image, "image_mean", default.mean),
        "std": read_colours(image, "image_std", default.std),
    }
    bounds = {"min_pixels": low, "max_pixels": high, "video_min_pixels": video_low, "video_max_pixels": video_high}
    return type(default)(**known | stated | bounds)


def picture_files(geometry: PictureGeometry, *, processor: str, video_processor: str) -> dict[str, Json]:
    """Return a Qwen family's settings files by name, in the older form that every transformers version reads."""
    shared = {
        "patch_size": geometry.patch_size,
        "temporal_patch_size": geometry.temporal_patch_size,
        "merge_size": geometry.merge_size,
        "image_mean": list(geometry.mean),
        "image_std": list(geometry.std),
        "processor_class": processor,
    }
    image = {"image_processor_type": "Qwen2VLImageProcessor", **_edges(geometry.min_pixels, geometry.max_pixels)}
    video = {
        "video_processor_type": video_processor,
        **_edges(geometry.video_min_pixels, geometry.video_max_pixels),
    }
    return {"preprocessor_config.json": image | shared, "video_preprocessor_config.json": video | shared}


def _edges(low: int, high: int) -> Json:
    return {"min_pixels": low, "max_pixels": high, "size": {"shortest_edge": low, "longest_edge": high}}


def read_colours(image: Fields, key: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return the mean or the standard deviation of the three colour channels, on the scale 0..1."""
    above = {"above": 0.0} if key == "image_std" else {"at_least": 0.0}
    red, green, blue = image.numbers(key, default, size=3, at_most=10.0, **above)
    return red, green, blue


def _pixel_bounds(settings: Fields, low: int, high: int) -> tuple[int, int]:
    size = settings.group("size", {})
    low = size.integer("shortest_edge", low, at_least=1, at_most=MAX_PIXELS)
    high = size.integer("longest_edge", high, at_least=1, at_most=MAX_PIXELS)
    return (
        settings.integer("min_pixels", low, at_least=1, at_most=MAX_PIXELS),
        settings.integer("max_pixels", high, at_least=1, at_most=MAX_PIXELS),
    )

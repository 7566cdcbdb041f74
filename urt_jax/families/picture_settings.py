"""The picture settings files of the Qwen families, read and written: older files and transformers 5's."""

from dataclasses import fields
from typing import TypeVar

from urt_jax.data.images import PictureGeometry
from urt_jax.families.family import Json, PictureSettings

QWEN_MEAN = (0.48145466, 0.4578275, 0.40821073)
QWEN_STD = (0.26862954, 0.26130258, 0.27577711)

G = TypeVar("G", bound=PictureGeometry)


def read_picture_geometry(settings: PictureSettings, default: G) -> G:
    """Return the geometry that a folder's settings state, of the kind of ``default``, which fills what is missing."""
    image, video = settings.image, settings.video
    low, high = _pixel_bounds(image, default.min_pixels, default.max_pixels)
    video_low, video_high = _pixel_bounds(video, default.video_min_pixels, default.video_max_pixels)
    known = {field.name: getattr(default, field.name) for field in fields(default)}
    stated = {
        "patch_size": image.get("patch_size", default.patch_size),
        "temporal_patch_size": image.get("temporal_patch_size", default.temporal_patch_size),
        "merge_size": image.get("merge_size", default.merge_size),
        "mean": tuple(image.get("image_mean", default.mean)),
        "std": tuple(image.get("image_std", default.std)),
    }
    bounds = {"min_pixels": low, "max_pixels": high, "video_min_pixels": video_low, "video_max_pixels": video_high}
    return type(default)(**known | stated | bounds)


def picture_files(geometry: PictureGeometry, *, processor: str, video_processor: str) -> dict[str, Json]:
    """Return the older settings files of a Qwen family by name, which every transformers version reads."""
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


def _pixel_bounds(settings: Json, low: int, high: int) -> tuple[int, int]:
    size = settings.get("size") or {}
    return (
        settings.get("min_pixels") or size.get("shortest_edge", low),
        settings.get("max_pixels") or size.get("longest_edge", high),
    )

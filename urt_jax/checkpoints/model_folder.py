"""A model on disk in the published layout: config, weights, tokenizer and picture settings, read and written whole."""

import difflib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from urt_jax.checkpoints.hf_weights import check_shapes, load_weights, save_weights
from urt_jax.data.examples import BadInputError
from urt_jax.data.images import PictureGeometry
from urt_jax.data.tokenizer import load_tokenizer
from urt_jax.families import family_of
from urt_jax.families.processor import Processor
from urt_jax.models.vlm import VisionLanguageModel
from urt_jax.types import Batch, VisionInput

ASSETS = Path(__file__).parent.parent / "assets"
WEIGHT_PATTERNS = ("*.safetensors", "*.safetensors.index.json", "config.json", "*.bin", "*.pt")


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint in memory: parameters are numpy arrays, not yet on any device."""

    processor: Processor
    params: dict[str, Any]
    folder: Path

    def module(self, *, dtype: Any = jnp.float32, remat: str = "none") -> VisionLanguageModel:
        """Return the Flax module for these parameters, computing in ``dtype``."""
        layers = self.processor.config.decoder.layers
        # Small decoders unroll their layers: the scan's own overhead would be most of a step.
        unroll = layers if layers <= 8 else 1
        param_dtype = np.dtype(self.params["embedding"].dtype)
        return VisionLanguageModel(self.processor.config, dtype, param_dtype, remat, unroll)


def find_model(name: str) -> Path:
    """Return the folder of a shipped model, a run folder's ``model/``, or a folder in the published layout.

    Raises:
        BadInputError: nothing of that name; lists the shipped models.
    """
    shipped = {path.name: path for path in sorted(ASSETS.glob("*")) if (path / "config.json").is_file()}
    if name in shipped:
        return shipped[name]
    folder = Path(name)
    for candidate in (folder / "model", folder):
        if (candidate / "config.json").is_file() and (candidate / "tokenizer_config.json").is_file():
            return candidate
    near = difflib.get_close_matches(name, shipped, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise BadInputError(
        f"model {name!r}: neither a shipped model ({', '.join(shipped) or 'none'}) nor a folder with config.json and "
        f"tokenizer_config.json, nor a finished run folder with model/{hint}"
    )


def load_model(
    name: str, *, dtype: Any = np.float32, pixels: tuple[int | None, int | None] = (None, None)
) -> LoadedModel:
    """Read a model; weights are cast to ``dtype`` (``None`` keeps the stored one).

    ``pixels`` are (min, max) pixels of a picture that replace the checkpoint's own where given.

    Raises:
        BadInputError: no such model, unknown family, weights that do not fit config.json, unusable tokenizer.
    """
    processor, folder = load_processor(name, pixels=pixels)
    params = load_weights(folder, processor.family, processor.config, dtype=dtype)
    check_shapes(params, abstract_params(processor), where=str(folder))
    return LoadedModel(processor, params, folder)


def random_model(name: str, *, seed: int, pixels: tuple[int | None, int | None] = (None, None)) -> LoadedModel:
    """Make a model of the layout and tokenizer of ``name`` with fresh float32 weights."""
    processor, folder = load_processor(name, pixels=pixels)
    module = VisionLanguageModel(processor.config)
    params = jax.jit(lambda key: module.init(key, _probe(processor)))(jax.random.key(seed))["params"]
    return LoadedModel(processor, _plain(jax.tree.map(np.asarray, params)), folder)


def load_processor(name: str, *, pixels: tuple[int | None, int | None] = (None, None)) -> tuple[Processor, Path]:
    """Read everything of a model but its weights."""
    folder = find_model(name)
    stored = _json(folder / "config.json")
    family = family_of(stored, where=str(folder / "config.json"))
    config = family.read_config(stored)
    geometry = read_geometry(folder, family.default_geometry)
    low, high = pixels[0] or geometry.min_pixels, pixels[1] or geometry.max_pixels
    if low > high:
        raise BadInputError(f"{folder}: min_pixels {low} is above max_pixels {high}; set both pixels knobs")
    geometry = replace(geometry, min_pixels=low, max_pixels=high)
    tokenizer = load_tokenizer(folder)
    if len(tokenizer) > config.decoder.vocab_size:
        raise BadInputError(
            f"{folder}: the tokenizer has {len(tokenizer)} ids, the embedding only {config.decoder.vocab_size} rows; "
            "the tokenizer files and config.json do not belong together"
        )
    return Processor(family, config, geometry, tokenizer), folder


def save_model(folder: str | Path, params: Any, processor: Processor, source: Path, *, dtype: Any = None) -> None:
    """Write a model in the published layout; tokenizer and picture settings are copied from ``source``."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()) if source.resolve() != folder.resolve() else ():
        if path.is_file() and not any(path.match(pattern) for pattern in WEIGHT_PATTERNS):
            shutil.copyfile(path, folder / path.name)
    save_weights(folder, params, processor.family, processor.config, dtype=dtype)
    stored_dtype = np.dtype(dtype if dtype is not None else jax.tree.leaves(params)[0].dtype).name
    ids = {"bos_token_id": processor.pad_id, "pad_token_id": processor.pad_id, "eos_token_id": processor.end_ids[0]}
    written = processor.family.write_config(processor.config, ids | {"dtype": stored_dtype}) | {"dtype": stored_dtype}
    (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n")


def read_geometry(folder: Path, default: PictureGeometry) -> PictureGeometry:
    """Read picture settings from the older files or from transformers 5's ``processor_config.json``."""
    both = _json(folder / "processor_config.json")
    image = both.get("image_processor") or _json(folder / "preprocessor_config.json")
    video = both.get("video_processor") or _json(folder / "video_preprocessor_config.json")
    low, high = _pixel_bounds(image, default.min_pixels, default.max_pixels)
    video_low, video_high = _pixel_bounds(video, default.video_min_pixels, default.video_max_pixels)
    return PictureGeometry(
        patch_size=image.get("patch_size", default.patch_size),
        temporal_patch_size=image.get("temporal_patch_size", default.temporal_patch_size),
        merge_size=image.get("merge_size", default.merge_size),
        min_pixels=low,
        max_pixels=high,
        mean=tuple(image.get("image_mean", default.mean)),
        std=tuple(image.get("image_std", default.std)),
        video_min_pixels=video_low,
        video_max_pixels=video_high,
    )


def write_geometry(folder: Path, geometry: PictureGeometry) -> None:
    """Write picture settings in the older files, which every transformers version reads."""
    shared = {
        "patch_size": geometry.patch_size,
        "temporal_patch_size": geometry.temporal_patch_size,
        "merge_size": geometry.merge_size,
        "image_mean": list(geometry.mean),
        "image_std": list(geometry.std),
        "processor_class": "Qwen2_5_VLProcessor",
    }
    image = {
        "image_processor_type": "Qwen2VLImageProcessor",
        **_edges(geometry.min_pixels, geometry.max_pixels),
        **shared,
    }
    video = {
        "video_processor_type": "Qwen2VLVideoProcessor",
        **_edges(geometry.video_min_pixels, geometry.video_max_pixels),
        **shared,
    }
    for name, settings in (("preprocessor_config.json", image), ("video_preprocessor_config.json", video)):
        (folder / name).write_text(json.dumps(settings, indent=2) + "\n")


def abstract_params(processor: Processor) -> dict[str, Any]:
    """Return the shapes the model declares, without allocating anything."""
    module = VisionLanguageModel(processor.config)
    shapes = jax.eval_shape(lambda key: module.init(key, _probe(processor)), jax.random.key(0))
    return _plain(shapes["params"])


def _probe(processor: Processor) -> Batch:
    """Return the smallest batch that touches every weight: one token and one merged patch."""
    vision = processor.config.vision
    patches = vision.merge_size**2
    ones = jnp.ones((1, 1), jnp.int32)
    return Batch(
        tokens_BT=ones,
        positions_3BT=jnp.zeros((3, 1, 1), jnp.int32),
        segments_BT=ones,
        vision_index_BT=ones * 0,
        loss_mask_BT=ones > 0,
        vision=VisionInput(
            jnp.zeros((1, patches, vision.patch_features)),
            jnp.zeros((1, patches, 2), jnp.int32),
            jnp.ones((1, patches), bool),
        ),
    )


def _plain(tree: Any) -> Any:
    return {key: _plain(value) for key, value in tree.items()} if hasattr(tree, "items") else tree


def _edges(low: int, high: int) -> dict[str, Any]:
    return {"min_pixels": low, "max_pixels": high, "size": {"shortest_edge": low, "longest_edge": high}}


def _pixel_bounds(settings: dict[str, Any], low: int, high: int) -> tuple[int, int]:
    size = settings.get("size") or {}
    return (
        settings.get("min_pixels") or size.get("shortest_edge", low),
        settings.get("max_pixels") or size.get("longest_edge", high),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except json.JSONDecodeError as error:
        raise BadInputError(f"{path}: not valid JSON ({error}); copy the file again") from None

"""A model on disk in the published layout: reading and writing config, weights, tokenizer and picture settings."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from urt_jax.checkpoints.adapter_config import CONFIG_NAME, adapter_base, is_adapter
from urt_jax.checkpoints.adapters import load_adapter
from urt_jax.checkpoints.hf_weights import has_own_head, save_weights, weights_from
from urt_jax.checkpoints.hub import fetch_model, is_hub_name
from urt_jax.checkpoints.stored_tensors import INDEX_NAME, stored_tensors, written_names
from urt_jax.data.tokenizer import TURN_END, load_tokenizer
from urt_jax.errors import BadInputError, did_you_mean, shown
from urt_jax.families import family_of
from urt_jax.families.family import Family, Geometry, PictureSettings
from urt_jax.families.processor import Processor
from urt_jax.files.checksums import SUMS_NAME, checked
from urt_jax.files.fields import Fields
from urt_jax.files.json_text import read_object
from urt_jax.files.whole import whole_folder
from urt_jax.models.attention import choose_attention
from urt_jax.models.config import ModelConfig
from urt_jax.models.lora import merge_adapters
from urt_jax.models.tuning import tuning
from urt_jax.models.vlm import VisionLanguageModel, abstract_params, init_params
from urt_jax.runs import processes
from urt_jax.sharding.mesh import compute_dtype
from urt_jax.sharding.rules import shardings_for

ASSETS = Path(__file__).parent.parent / "assets"
# Files of a source that are not copied: those written anew, those specific to it, and those never read.
NOT_COPIED = ("*.safetensors", "*.safetensors.index.json", "config.json", CONFIG_NAME, SUMS_NAME, "*.bin", "*.pt", ".*")


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint in memory. Its parameters are numpy arrays, or jax arrays on the mesh given to ``load_model``.

    Training donates parameters on a mesh, so they are deleted after its first step; load the model again to use it.
    """

    processor: Processor
    params: dict[str, Any]
    folder: Path

    def module(self, *, dtype: Any = jnp.float32, remat: str = "none", attention: str = "xla") -> VisionLanguageModel:
        """Return the Flax module for these parameters, computing in ``dtype``; see ``models.attention``."""
        layers = self.processor.config.decoder.layers
        unroll = layers if layers <= tuning().unrolled_layers else 1
        param_dtype = np.dtype(self.params["embedding"].dtype)
        return VisionLanguageModel(self.processor.config, dtype, param_dtype, remat, unroll, attention)

    def module_for(self, mesh: Mesh | None, *, dtype: Any, attention: str, remat: str = "none") -> VisionLanguageModel:
        """Return the module; a dtype or attention of "auto" is chosen for the devices of the mesh.

        Raises:
            BadInputError: an attention that these devices or this dtype cannot run.
        """
        kind = compute_dtype(dtype)
        try:
            chosen = choose_attention(attention, kind, sequence=1 if mesh is None else mesh.shape["sequence"])
        except ValueError as error:
            raise BadInputError(f"attention: {error}") from None
        return self.module(dtype=kind, remat=remat, attention=chosen)


def find_model(name: str, *, revision: str | None = None) -> Path:
    """Return the folder of a shipped model, a run folder's ``model/``, a published layout, or a model of the hub.

    The folder of an adapter resolves to that of its base. If no folder has that name, ``org/name`` (or
    ``org/name@revision``) is downloaded from the hub, its main branch unless ``revision`` names another.

    Raises:
        BadInputError: no model of that name (lists the shipped ones), an error of ``hub.fetch_model``, a revision for
            a model that is not from the hub, or an adapter whose base is not found.
    """
    shipped, folder = _shipped(), Path(name)
    if name not in shipped and not folder.exists() and is_hub_name(name):
        return fetch_model(name, revision=revision)
    if revision is not None:
        raise BadInputError(
            f"model {name!r} came with revision {revision!r}, but it is not a hub name (org/name), or a folder of that "
            "name is there; leave the revision out"
        )
    if name in shipped:
        return shipped[name]
    if adapter_of(name):
        return _base_of(folder)
    for candidate in (folder / "model", folder):
        if (candidate / "config.json").is_file() and (candidate / "tokenizer_config.json").is_file():
            return candidate
    hint = did_you_mean(name, shipped)
    raise BadInputError(
        f"model {name!r}: neither a shipped model ({', '.join(shipped) or 'none'}) nor a folder with config.json and "
        f"tokenizer_config.json, nor a finished run folder with model/, nor a hub name (org/name){hint}"
    )


def adapter_of(name: str) -> Path | None:
    """Return the folder if the name is the path of an adapter, else None."""
    return Path(name) if is_adapter(Path(name)) and name not in _shipped() else None


def _shipped() -> dict[str, Path]:
    return {path.name: path for path in sorted(ASSETS.glob("*")) if (path / "config.json").is_file()}


def _base_of(adapter: Path) -> Path:
    base, revision = adapter_base(adapter)
    if adapter_of(base):
        raise BadInputError(f"{adapter} is an adapter of another adapter, {base}; merge that one into its base first")
    try:
        return find_model(base, revision=revision)
    except BadInputError as error:
        raise BadInputError(
            f"{adapter} is an adapter of {base!r}, which was not found ({error}); put its base there, or write the "
            f"path it has now as base_model_name_or_path into {CONFIG_NAME}"
        ) from None


def load_model(
    name: str,
    *,
    revision: str | None = None,
    dtype: Any = np.float32,
    pixels: tuple[int | None, int | None] = (None, None),
    mesh: Mesh | None = None,
) -> LoadedModel:
    """Read a model; weights are cast to ``dtype`` (``None`` keeps the stored one).

    If the folder holds only an adapter, its base is read and the adapter merged into it. With a ``mesh`` the weights
    are read straight onto their devices by the sharding rules, else they stay on the host. ``pixels`` are (min, max)
    pixels of a picture that replace the checkpoint's own where given; ``revision`` is that of a hub model (see
    ``find_model``).

    Raises:
        BadInputError: no such model (see ``find_model``), unknown family, weights that do not fit config.json, an
            adapter that does not fit its base, unusable tokenizer, or a file whose checksum differs.
    """
    folder = find_model(name, revision=revision)
    # The first process checks the files, and its error ends the others if a file is damaged.
    with checked(folder) if processes.is_first() else nullcontext():
        processor = _open_processor(folder, pixels)
        family, config = processor.family, processor.config
        stored = stored_tensors(folder, family)
        if config.decoder.tied_head and has_own_head(stored, family, config):
            config = replace(config, decoder=replace(config.decoder, tied_head=False))
            processor = replace(processor, config=config)
        shardings = None if mesh is None else shardings_for(abstract_params(config), mesh)
        params = weights_from(folder, stored, family, config, dtype=dtype, shardings=shardings)
    if adapter := adapter_of(name):
        params = merge_adapters(load_adapter(adapter, params, processor.family, processor.config), donate=True)
    return LoadedModel(processor, params, folder)


def random_model(
    name: str, *, seed: int, revision: str | None = None, pixels: tuple[int | None, int | None] = (None, None)
) -> LoadedModel:
    """Make a model with the config and tokenizer of ``name`` and new random float32 weights."""
    processor, folder = load_processor(name, revision=revision, pixels=pixels)
    params = jax.jit(lambda key: init_params(processor.config, key))(jax.random.key(seed))
    return LoadedModel(processor, jax.tree.map(np.asarray, params), folder)


def load_processor(
    name: str, *, revision: str | None = None, pixels: tuple[int | None, int | None] = (None, None)
) -> tuple[Processor, Path]:
    """Read a model without its weights; return its processor and folder."""
    folder = find_model(name, revision=revision)
    return _open_processor(folder, pixels), folder


def _open_processor(folder: Path, pixels: tuple[int | None, int | None]) -> Processor:
    stored = _json(folder / "config.json")
    family = family_of(stored, where=str(folder / "config.json"))
    _check_not_quantised(folder, stored)
    tokenizer = load_tokenizer(folder)
    try:
        described = _described(stored, family, folder, tokenizer)
        config = family.read_config(described)
        geometry = read_geometry(folder, family, described).within(*pixels)
    except BadInputError as error:
        raise BadInputError(f"{folder}: {error}") from None
    if tokenizer.chat_template is None:
        tokenizer.chat_template = family.chat_template
    _check_tokenizer(tokenizer, family, config, folder)
    kept = {key: described[key] for key in family.kept_settings if key in described}
    return Processor(family, config, geometry, tokenizer, kept)


def _check_not_quantised(folder: Path, stored: dict[str, Any]) -> None:
    """Refuse quantised weights, naming the method."""
    text = stored.get("text_config")
    for part in (stored, text if isinstance(text, dict) else {}):
        for key in ("quantization_config", "compression_config", "quantization"):
            if part.get(key):
                method = part[key].get("quant_method", key) if isinstance(part[key], dict) else part[key]
                raise BadInputError(
                    f"{folder}: its weights are quantised ({shown(method)}), and only plain float16, bfloat16 and "
                    "float32 ones are read; give the model it was made from, or dequantise it with that method's tool"
                )


def is_original(config: dict[str, Any], family: Family) -> bool:
    """Return whether config.json has the family's original layout, older than transformers."""
    return family.original_model_type is not None and config.get("model_type") == family.original_model_type


def _described(stored: dict[str, Any], family: Family, folder: Path, tokenizer: Any) -> dict[str, Any]:
    """Return config.json in the transformers layout; for the original layout, add placeholders to the tokenizer."""
    if family.complete_config is None or not is_original(stored, family):
        return stored
    placeholders = [family.image_placeholder, family.video_placeholder]
    tokenizer.add_tokens(placeholders, special_tokens=True)
    image_id, video_id = tokenizer.convert_tokens_to_ids(placeholders)
    shapes = {name: tensor.shape for name, tensor in stored_tensors(folder, family).items()}
    return family.complete_config(stored, shapes, (image_id, video_id))


def _check_tokenizer(tokenizer: Any, family: Family, config: ModelConfig, folder: Path) -> None:
    """Refuse a tokenizer of another model."""
    apart = "the tokenizer files and config.json do not belong together"
    ids = max(len(tokenizer), *(number + 1 for number in tokenizer.added_tokens_decoder))
    if ids > config.decoder.vocab_size:
        raise BadInputError(
            f"{folder}: the tokenizer has {ids} ids, the embedding only {config.decoder.vocab_size} rows; {apart}"
        )
    if tokenizer.convert_tokens_to_ids(TURN_END) in (None, tokenizer.unk_token_id):
        raise BadInputError(f"{folder}: the tokenizer has no {TURN_END}, so no response would end; {apart}")
    for placeholder, wanted in (
        (family.image_placeholder, config.image_token_id),
        (family.video_placeholder, config.video_token_id),
    ):
        found = tokenizer.convert_tokens_to_ids(placeholder)
        if found != wanted:
            raise BadInputError(
                f"{folder}: the tokenizer gives {placeholder!r} the id {found}, config.json says {wanted}; {apart}"
            )


def save_model(
    folder: str | Path,
    params: Any,
    processor: Processor,
    source: Path,
    *,
    dtype: Any = None,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Write a model in the transformers layout; tokenizer and picture settings are copied from ``source``.

    Tensors keep their names in ``source``, in whichever transformers layout it has; a source in the original layout is
    written in today's, with its settings and tokenizer converted.
    """
    folder, family = Path(folder), processor.family
    before = _json(source / "config.json")
    original = is_original(before, family)
    names = {} if original else written_names(source, family)
    stored_dtype = np.dtype(dtype if dtype is not None else jax.tree.leaves(params)[0].dtype).name
    ids = {"bos_token_id": processor.pad_id, "pad_token_id": processor.pad_id, "eos_token_id": processor.end_ids[0]}
    written = family.write_config(processor.config, ids | {"dtype": stored_dtype}) | {"dtype": stored_dtype}
    with whole_folder(folder, last="config.json", replaced=("model*.safetensors", INDEX_NAME)) as unfinished:
        for path in sorted(source.iterdir()):
            if path.is_file() and not any(path.match(pattern) for pattern in NOT_COPIED):
                shutil.copyfile(path, unfinished / path.name)
        if original:
            processor.tokenizer.save_pretrained(unfinished)
            write_settings(unfinished, family.picture_files(processor.geometry))
        rename = lambda name: names.get(name, name)  # noqa: E731
        limits = {"dtype": dtype, "max_shard_bytes": max_shard_bytes}
        save_weights(unfinished, params, family, processor.config, rename=rename, **limits)
        (unfinished / "config.json").write_text(json.dumps(written | processor.kept_settings, indent=2) + "\n")


def read_geometry(folder: Path, family: Family, config: dict[str, Any]) -> Geometry:
    """Read picture settings from the older files or from transformers 5's ``processor_config.json``."""
    both = Fields(_json(folder / "processor_config.json"), "processor_config.json")
    image = dict(both.group("image_processor", {})) or _json(folder / "preprocessor_config.json")
    video = dict(both.group("video_processor", {})) or _json(folder / "video_preprocessor_config.json")
    return family.read_geometry(PictureSettings(image, video, config))


def write_settings(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    """Write settings files by name."""
    for name, settings in files.items():
        (folder / name).write_text(json.dumps(settings, indent=2) + "\n")


def _json(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}

"""The tensors of a safetensors folder: located by name in any shard, described by its header, read by slices."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import safe_open

from urt_jax.errors import BadInputError, shown
from urt_jax.families.family import Family
from urt_jax.files.fields import Fields
from urt_jax.files.json_text import read_object

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"


# Buffers that some versions of transformers saved; both transformers and this code compute them from the config.
_BUFFERS = re.compile(r"(?:^|\.)(?:rotary(?:_pos)?_emb\.(?:original_)?inv_freq|position_ids|masked_bias|attn\.bias)$")
_OTHER_FORMATS = {"*.gguf": "GGUF", "*.onnx": "ONNX", "*.bin": "pickles", "*.pt": "pickles", "*.npz": "of numpy"}


class StoredTensor(NamedTuple):
    """One tensor of an open file: its header is read, its data is read on demand."""

    name: str
    path: Path
    shape: tuple[int, ...]
    dtype: str  # as safetensors names it: F32, BF16, ...
    file: Any

    def read(self, *part: slice) -> np.ndarray:
        """Return a part of the tensor as a new array.

        Raises:
            BadInputError: the data cannot be read.
        """
        try:
            return self.file.get_slice(self.name)[part]
        except Exception as error:  # the library raises several types for damaged data
            raise BadInputError(f"{self.path}: {self.name} cannot be read ({error}); copy the file again") from None


def stored_tensors(folder: Path, family: Family) -> dict[str, StoredTensor]:
    """Return the tensors of a folder by their names in the family's own layout.

    Raises:
        BadInputError: no safetensors, an unreadable index, a missing, truncated or mismatched shard, or one tensor
            under two names.
    """
    found: dict[str, StoredTensor] = {}
    for path, names in _locate(folder).items():
        file = _open(path)
        for name in names if names is not None else file.keys():
            plain = plain_name(name, family)
            if _BUFFERS.search(plain) or re.search(family.unused_tensors, plain):
                continue
            if plain in found:
                raise BadInputError(f"{folder}: {name} and {found[plain].name} are the same tensor; keep one of them")
            found[plain] = _described(file, name, path)
    return found


def plain_name(name: str, family: Family) -> str:
    """Return a stored tensor's name in the family's own layout."""
    for pattern, replacement in family.name_aliases:
        name = re.sub(pattern, replacement, name)
    return name


def written_names(folder: Path, family: Family) -> Mapping[str, str]:
    """Return a folder's tensor names by the family's own names; empty if it holds no readable weights.

    It is called when a model is saved, so it must not fail if the source was removed during training.
    """
    try:
        return {plain: tensor.name for plain, tensor in stored_tensors(folder, family).items()}
    except BadInputError:
        return {}


def _locate(folder: Path) -> dict[Path, list[str] | None]:
    """Return the files of a folder, each with its tensors in the index, or with None if there is no index."""
    index, single = folder / INDEX_NAME, (folder / SINGLE_NAME).is_file()
    if not index.is_file() and not single:
        others = sorted({kind for pattern, kind in _OTHER_FORMATS.items() if any(folder.glob(pattern))})
        told = f" (its weights are {', '.join(others)})" if others else ""
        raise BadInputError(
            f"{folder}: neither {SINGLE_NAME} nor {INDEX_NAME} is there{told}; only safetensors in the published "
            "layout are read: give the folder it was made from, or convert it elsewhere"
        )
    if not index.is_file():
        return {folder / SINGLE_NAME: None}
    listed = Fields(read_object(index), str(index)).group("weight_map")
    weight_map = {name: listed.text(name) for name in listed}
    for file_name in set(weight_map.values()):
        if Path(file_name).name != file_name or not file_name.endswith(".safetensors"):
            raise BadInputError(f"{index}: names {shown(file_name)} as a shard; needed a .safetensors file beside it")
    missing = sorted({name for name in weight_map.values() if not (folder / name).is_file()})
    if single and SINGLE_NAME not in weight_map.values():
        if missing:
            return {folder / SINGLE_NAME: None}  # a leftover index, whose shards were deleted
        raise BadInputError(
            f"{folder}: two sets of weights, {SINGLE_NAME} and the shards of {INDEX_NAME}; one is left over from an "
            "earlier model: remove it from the folder"
        )
    if missing:
        raise BadInputError(
            f"{folder}: {INDEX_NAME} names shards that are not there: {', '.join(missing[:5])}; copy them"
        )
    files: dict[Path, list[str] | None] = {}
    for name, file_name in weight_map.items():
        files.setdefault(folder / file_name, []).append(name)  # type: ignore[union-attr]
    return files


def _described(file: Any, name: str, path: Path) -> StoredTensor:
    try:
        header = file.get_slice(name)
    except Exception as error:  # as above
        raise BadInputError(f"{path}: {error}; the index and the shard do not belong together") from None
    return StoredTensor(name, path, tuple(header.get_shape()), header.get_dtype(), file)


def _open(path: Path) -> Any:
    try:
        return safe_open(path, "np")
    except Exception as error:  # the library raises several types for a damaged header
        raise BadInputError(f"{path}: not a readable safetensors file ({error}); copy it again") from None

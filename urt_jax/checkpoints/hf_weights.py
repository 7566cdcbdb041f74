"""Weights in the published safetensors layout: read tensor by tensor, strict both ways, written back bit-equal."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from urt_jax.data.examples import BadInputError
from urt_jax.families.family import Family, WeightRule
from urt_jax.models.config import ModelConfig

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"


def load_weights(folder: str | Path, family: Family, config: ModelConfig, *, dtype: Any = None) -> dict[str, Any]:
    """Read all tensors of a checkpoint folder into our parameter tree (numpy arrays, layers stacked on axis 0).

    ``dtype`` casts; ``None`` keeps what is stored.

    Raises:
        BadInputError: no safetensors, a missing or truncated shard, and, naming them, tensors that are missing,
            unexpected, or of another shape than ``config`` says.
    """
    folder = Path(folder)
    where = {_plain_name(name, family): (name, path) for name, path in _locate(folder).items()}
    rules = family.weight_rules(config)
    wanted = {name: (rule, layer) for rule in rules for name, layer in _names(rule, config)}
    _check_names(folder, wanted.keys(), where.keys(), tied=config.decoder.tied_head)
    tree: dict[str, Any] = {}
    open_files = {path: _open(path) for path in sorted({path for _, path in where.values()})}
    for rule in rules:
        layers = []
        for name, _ in _names(rule, config):
            stored_name, path = where[name]
            tensor = rule.from_stored(_read(open_files[path], stored_name, path))
            layers.append(tensor if dtype is None else tensor.astype(dtype))
        array = np.stack(layers) if "{}" in rule.name else layers[0]
        _insert(tree, rule.path, array)
    return tree


def check_shapes(params: Mapping[str, Any], expected: Mapping[str, Any], *, where: str) -> None:
    """Compare loaded parameters with the shapes the model declares.

    Raises:
        BadInputError: naming every leaf whose shape differs, or that only one side has.
    """
    have = {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    want = {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(expected)}
    wrong = [
        f"{name}: file has {have.get(name, 'nothing')}, config.json asks for {want.get(name, 'nothing')}"
        for name in sorted(have.keys() | want.keys())
        if have.get(name) != want.get(name)
    ]
    if wrong:
        raise BadInputError(
            f"{where}: weights and config.json do not belong together: " + "; ".join(wrong[:8]) + _more(wrong, 8)
        )


def save_weights(
    folder: str | Path,
    params: Mapping[str, Any],
    family: Family,
    config: ModelConfig,
    *,
    dtype: Any = None,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Write the parameter tree as safetensors, with an index where it takes more than one shard.

    ``dtype`` casts; ``None`` keeps the dtype of each leaf.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, np.ndarray]] = [{}]
    size = 0
    for name, tensor in _stored_tensors(params, family, config, dtype):
        if shards[-1] and size + tensor.nbytes > max_shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    if len(shards) == 1:
        save_file(shards[0], folder / SINGLE_NAME, metadata={"format": "pt"})
        return
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for file_name, shard in zip(names, shards):
        save_file(shard, folder / file_name, metadata={"format": "pt"})
    weight_map = {name: file_name for file_name, shard in zip(names, shards) for name in shard}
    total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX_NAME).write_text(json.dumps(index, indent=1) + "\n")


def _stored_tensors(
    params: Mapping[str, Any], family: Family, config: ModelConfig, dtype: Any
) -> Iterator[tuple[str, np.ndarray]]:
    for rule in family.weight_rules(config):
        leaf: Any = params
        for key in rule.path:
            leaf = leaf[key]
        array = np.asarray(leaf)
        for name, layer in _names(rule, config):
            tensor = rule.to_stored(array if layer is None else array[layer])
            yield name, np.ascontiguousarray(tensor if dtype is None else tensor.astype(dtype))


def _names(rule: WeightRule, config: ModelConfig) -> Iterator[tuple[str, int | None]]:
    """Yield the tensor names of a rule with their layer number, one name where the rule is not stacked."""
    if "{}" not in rule.name:
        yield rule.name, None
        return
    depth = config.vision.depth if rule.path[0] == "vision" else config.decoder.layers
    for layer in range(depth):
        yield rule.name.format(layer), layer


def _locate(folder: Path) -> dict[str, Path]:
    """Return the file that holds each stored tensor."""
    index = folder / INDEX_NAME
    if index.is_file():
        try:
            weight_map = json.loads(index.read_text())["weight_map"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise BadInputError(f"{index}: not a readable index ({error!r}); copy the file again") from None
        missing = sorted({name for name in weight_map.values() if not (folder / name).is_file()})
        if missing:
            raise BadInputError(
                f"{folder}: {INDEX_NAME} names shards that are not there: {', '.join(missing)}; copy them"
            )
        return {name: folder / file_name for name, file_name in weight_map.items()}
    single = folder / SINGLE_NAME
    if not single.is_file():
        raise BadInputError(f"{folder}: neither {SINGLE_NAME} nor {INDEX_NAME} is there; only safetensors are read")
    return dict.fromkeys(_open(single).keys(), single)


def _open(path: Path) -> Any:
    try:
        return safe_open(path, "np")
    except (SafetensorError, OSError) as error:
        raise BadInputError(f"{path}: not a readable safetensors file ({error}); copy it again") from None


def _read(file: Any, name: str, path: Path) -> np.ndarray:
    try:
        return file.get_tensor(name)
    except SafetensorError as error:
        raise BadInputError(f"{path}: {error}; the index and the shard do not belong together") from None


def _plain_name(name: str, family: Family) -> str:
    for pattern, replacement in family.name_aliases:
        name = re.sub(pattern, replacement, name)
    return name


def _check_names(folder: Path, wanted: Any, found: Any, *, tied: bool) -> None:
    missing, extra = sorted(wanted - found), sorted(found - wanted)
    if tied:  # some writers store the tied head a second time; it is the embedding
        extra = [name for name in extra if name != "lm_head.weight"]
    problems = [
        f"{label} {', '.join(names[:5])}{_more(names, 5)}"
        for label, names in (("missing", missing), ("unexpected", extra))
        if names
    ]
    if problems:
        raise BadInputError(f"{folder}: tensor names do not fit config.json: " + "; ".join(problems))


def _more(items: list, shown: int) -> str:
    return f" and {len(items) - shown} more" if len(items) > shown else ""


def _insert(tree: dict[str, Any], path: tuple[str, ...], leaf: np.ndarray) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = leaf

"""Weights in the published safetensors layout: read slice by slice, strict both ways, written bit-equal.

Reading compares names and shapes of all tensors with the config before it reads data. It then fills each of our leaves
from slices of the files; on a mesh it reads only the shards of this process's devices. The host holds at most one
leaf's local shards at a time.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from urt_jax.checkpoints.stored_tensors import INDEX_NAME, SINGLE_NAME, StoredTensor, stored_tensors
from urt_jax.errors import BadInputError
from urt_jax.families.family import Family, WeightRule
from urt_jax.models.config import ModelConfig
from urt_jax.models.vlm import abstract_params

DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
}
# Names of tensors that accompany quantised weights (fp8, AWQ, GPTQ, bitsandbytes, compressed-tensors).
_QUANTISED = re.compile(
    r"\.(?:(?:weight|input|output|k|v)_scale(?:_inv)?|weight_(?:packed|zero_point|shape)|qweight|qzeros|scales|g_idx|absmax"
    r"|SCB|quant_map|nested_absmax|quant_state\..+|weight\.(?:absmax|quant_map|nested_.+|quant_state.*))$"
)
READ_BYTES = 1 << 26  # bytes per read from a file
TURNED_ROWS = 256  # rows per transposed block


def load_weights(
    folder: str | Path, family: Family, config: ModelConfig, *, dtype: Any = None, shardings: Any = None
) -> dict[str, Any]:
    """Read a checkpoint folder into our parameter tree, layers stacked on axis 0.

    ``dtype`` casts; ``None`` keeps the stored dtypes. With a tree of ``shardings`` the leaves are jax arrays with these
    shardings, otherwise numpy arrays.

    Raises:
        BadInputError: no safetensors, a missing or truncated shard, and, naming them, tensors that are missing,
            unexpected, or of another shape than ``config`` says.
    """
    folder = Path(folder)
    return weights_from(folder, stored_tensors(folder, family), family, config, dtype=dtype, shardings=shardings)


def weights_from(
    folder: Path,
    stored: Mapping[str, StoredTensor],
    family: Family,
    config: ModelConfig,
    *,
    dtype: Any = None,
    shardings: Any = None,
) -> dict[str, Any]:
    """Read the tree of ``load_weights`` from tensors that ``stored_tensors`` has found."""
    rules, expected = family.weight_rules(config), abstract_params(config)
    if config.decoder.tied_head:
        stored = _tied(stored, family, config)
    _check_names(folder, rules, stored)
    _check_shapes(folder, rules, stored, expected)
    tree: dict[str, Any] = {}
    for rule in rules:
        tensors = [stored[name] for name in rule.stored_names()]
        kind = np.dtype(dtype if dtype is not None else np.result_type(*(DTYPES[t.dtype] for t in tensors)))
        shape = _leaf(expected, rule.path).shape
        sharding = None if shardings is None else _leaf(shardings, rule.path)
        _insert(tree, rule.path, _read_leaf(rule, tensors, shape, kind, sharding))
    return tree


def save_weights(
    folder: str | Path,
    params: Mapping[str, Any],
    family: Family,
    config: ModelConfig,
    *,
    dtype: Any = None,
    max_shard_bytes: int = 5_000_000_000,
    rename: Callable[[str], str] = str,
) -> None:
    """Write the parameter tree as safetensors, with an index if there are several shards.

    Weights that the folder held before are replaced. ``dtype`` casts; ``None`` keeps the dtype of each leaf. ``rename``
    maps our rules' names to the written names.

    Raises:
        ValueError: the tree has other leaves than the config's.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    leaves, known = set(flatten_dict(dict(params))), {rule.path for rule in family.weight_rules(config)}
    if leaves != known:
        odd = sorted("/".join(path) for path in leaves ^ known)
        raise ValueError(f"{len(odd)} leaves of the tree have no tensor name, or none is there for it: {odd[:5]}")
    sizes = [
        (rename(name), (rule, layer), _size(params, rule, dtype))
        for rule in family.weight_rules(config)
        for layer, name in enumerate(rule.stored_names())
    ]
    shards = _plan_shards(sizes, max_shard_bytes)
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    names = [SINGLE_NAME] if len(shards) == 1 else names
    for file_name, shard in zip(names, shards):  # one shard in memory at a time
        tensors = {name: _stored_tensor(params, rule, layer, dtype) for name, (rule, layer), _ in shard}
        save_file(tensors, folder / file_name, metadata={"format": "pt"})
    if len(shards) > 1:
        weight_map = {name: file_name for file_name, shard in zip(names, shards) for name, *_ in shard}
        index = {"metadata": {"total_size": sum(size for *_, size in sizes)}, "weight_map": weight_map}
        (folder / INDEX_NAME).write_text(json.dumps(index, indent=1) + "\n")
    for stale in (*folder.glob("model*.safetensors"), *([folder / INDEX_NAME] if len(shards) == 1 else [])):
        if stale.name not in names:  # a shard of an earlier model in this folder
            stale.unlink(missing_ok=True)


def _read_leaf(
    rule: WeightRule, tensors: list[StoredTensor], shape: tuple[int, ...], kind: np.dtype, sharding: Any
) -> Any:
    """Return one of our leaves, whole on the host or sharded over devices."""
    if sharding is None:
        return _read_part(rule, tensors, tuple(slice(0, size) for size in shape), kind)
    parts: dict[tuple, tuple[tuple[slice, ...], list[jax.Device]]] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        part = tuple(slice(*cut.indices(size)[:2]) for cut, size in zip(index, shape))
        key = tuple((cut.start, cut.stop) for cut in part)
        parts.setdefault(key, (part, []))[1].append(device)
    placed = []
    for part, devices in parts.values():
        host = _read_part(rule, tensors, part, kind)
        placed += [jax.device_put(host, device) for device in devices]
        jax.block_until_ready(placed)  # frees the host copy before the next part is read
    return jax.make_array_from_single_device_arrays(shape, sharding, placed)


def _read_part(rule: WeightRule, tensors: list[StoredTensor], part: tuple[slice, ...], kind: np.dtype) -> np.ndarray:
    """Read the given slices of a leaf straight into a new array."""
    out = np.empty([cut.stop - cut.start for cut in part], kind)
    if not rule.stack:
        _read_tensor(rule, tensors[0], part, out)
        return out
    for place, layer in enumerate(range(part[0].start, part[0].stop)):
        _read_tensor(rule, tensors[layer], part[1:], out[place : place + 1].reshape(out.shape[1:]))
    return out


def _read_tensor(rule: WeightRule, tensor: StoredTensor, part: tuple[slice, ...], out: np.ndarray) -> None:
    """Fill ``out`` with a part of one layer's tensor, ``READ_BYTES`` of the file at a time."""
    first = part[-1] if rule.kernel else part[0]  # the file's first axis is our last for a kernel
    row_bytes = max(int(np.prod(tensor.shape[1:])) * np.dtype(DTYPES[tensor.dtype]).itemsize, 1)
    step = max(READ_BYTES // row_bytes, 1)
    for start in range(first.start, first.stop, step):
        stop = min(start + step, first.stop)
        rows = slice(start - first.start, stop - first.start)
        if not rule.kernel:
            out[rows] = tensor.read(slice(start, stop), *part[1:])
        elif rule.stored_tail is None:
            _turn_into(out[:, rows], tensor.read(slice(start, stop), part[0]))
        else:
            out[:, rows] = rule.from_stored(tensor.read(slice(start, stop)))[part[0]]


def _turn_into(out: np.ndarray, rows: np.ndarray) -> None:
    """Write ``rows.T`` into ``out`` (which may be of another dtype), a block that fits the cache at a time."""
    if out.dtype == rows.dtype:  # copy as integers: numpy copies its own types several times faster than bfloat16
        kind = np.dtype(f"u{out.dtype.itemsize}")
        out, rows = out.view(kind), rows.view(kind)
    for start in range(0, len(rows), TURNED_ROWS):
        out[:, start : start + TURNED_ROWS] = rows[start : start + TURNED_ROWS].astype(out.dtype, copy=False).T


def has_own_head(stored: Mapping[str, StoredTensor], family: Family, config: ModelConfig) -> bool:
    """Return whether a folder whose config ties the head to the embedding stores a head that differs from it.

    The config is then wrong, and the stored head is the trained one (transformers uses it too).
    """
    head, embedding = _head_names(family, config)
    if head not in stored or embedding not in stored:
        return False
    one, other = stored[head], stored[embedding]
    if (one.shape, one.dtype) != (other.shape, other.dtype) or len(one.shape) != 2:
        return True
    step = max(READ_BYTES // max(4 * one.shape[1], 1), 1)
    parts = (slice(start, min(start + step, one.shape[0])) for start in range(0, one.shape[0], step))
    return not all(np.array_equal(one.read(part).view(np.uint8), other.read(part).view(np.uint8)) for part in parts)


def _head_names(family: Family, config: ModelConfig) -> tuple[str, str]:
    """Return the tensor names of head and embedding in the family's own layout."""
    untied = replace(config, decoder=replace(config.decoder, tied_head=False))
    names = {rule.path: rule.name for rule in family.weight_rules(untied)}
    return names["head",], names["embedding",]


def _tied(stored: Mapping[str, StoredTensor], family: Family, config: ModelConfig) -> dict[str, StoredTensor]:
    """Return the tensors of a tied model with one embedding, which may be stored under either name or both."""
    head, embedding = _head_names(family, config)
    kept = dict(stored)
    if head in kept:
        copy = kept.pop(head)
        kept.setdefault(embedding, copy)
    return kept


def _check_names(folder: Path, rules: tuple[WeightRule, ...], stored: Mapping[str, Any]) -> None:
    wanted = {name for rule in rules for name in rule.stored_names()}
    missing, extra = sorted(wanted - stored.keys()), sorted(stored.keys() - wanted)
    if quantised := [name for name in extra if _QUANTISED.search(name)]:
        raise BadInputError(
            f"{folder}: its weights are quantised (it has {quantised[0]}), and only plain float16, bfloat16 and "
            "float32 ones are read; give the model it was made from, or dequantise it with the tool that made it"
        )
    shown = [stored[name].name for name in extra]
    problems = [
        f"{label} {', '.join(names[:5])}{_more(names, 5)}"
        for label, names in (("missing", missing), ("unexpected", shown))
        if names
    ]
    if problems:
        raise BadInputError(
            f"{folder}: tensor names do not fit config.json: {'; '.join(problems)}; copy the folder again, or give the "
            "config.json that belongs to the weights"
        )


def _check_shapes(
    folder: Path, rules: tuple[WeightRule, ...], stored: Mapping[str, StoredTensor], expected: Mapping[str, Any]
) -> None:
    wrong = []
    for rule in rules:
        wanted = rule.stored_shape(_leaf(expected, rule.path).shape)
        for tensor in (stored[name] for name in rule.stored_names()):
            if tensor.shape != wanted:
                wrong.append(f"{tensor.name} in {tensor.path.name} is {tensor.shape}, config.json asks for {wanted}")
            elif tensor.dtype not in DTYPES:
                wrong.append(f"{tensor.name} in {tensor.path.name} is of dtype {tensor.dtype}, not a plain float")
    if wrong:
        raise BadInputError(
            f"{folder}: weights and config.json do not belong together: " + "; ".join(wrong[:8]) + _more(wrong, 8)
        )


def _plan_shards(sizes: list[tuple[str, Any, int]], limit: int) -> list[list[tuple[str, Any, int]]]:
    """Split the tensors into files in order, none above the limit unless one tensor is."""
    shards: list[list[tuple[str, Any, int]]] = [[]]
    filled = 0
    for entry in sizes:
        if shards[-1] and filled + entry[2] > limit:
            shards.append([])
            filled = 0
        shards[-1].append(entry)
        filled += entry[2]
    return shards


def _size(params: Mapping[str, Any], rule: WeightRule, dtype: Any) -> int:
    leaf = _leaf(params, rule.path)
    itemsize = np.dtype(dtype if dtype is not None else leaf.dtype).itemsize
    return int(np.prod(leaf.shape)) * itemsize // (rule.stack or 1)


def _stored_tensor(params: Mapping[str, Any], rule: WeightRule, layer: int, dtype: Any) -> np.ndarray:
    leaf = _leaf(params, rule.path)
    tensor = rule.to_stored(np.asarray(leaf[layer] if rule.stack else leaf))
    return np.ascontiguousarray(tensor if dtype is None else tensor.astype(dtype))


def _leaf(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = tree
    for key in path:
        found = found[key]
    return found


def _insert(tree: dict[str, Any], path: tuple[str, ...], leaf: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = leaf


def _more(items: list, shown: int) -> str:
    return f" and {len(items) - shown} more" if len(items) > shown else ""

"""Write a judge in transformers' layout, from any supported layout, with a cast and shards on request.

1. read the weights in their stored dtype; an adapter is merged into its base;
2. write ``model/``: weights, config.json, tokenizer, picture settings;
3. count the written tensors and parameters.
"""

from pathlib import Path

import numpy as np

from urt_jax.checkpoints.model_folder import load_model, save_model
from urt_jax.checkpoints.stored_tensors import stored_tensors
from urt_jax.config import ExportConfig
from urt_jax.runs.run_folder import write_result


def run(config: ExportConfig) -> None:
    """Write ``model/`` and print its numbers of parameters, tensors and bytes."""
    folder = Path(config.workdir) / "model"
    loaded = load_model(config.model, dtype=None)
    dtype = None if config.dtype == "keep" else np.dtype(config.dtype)
    shard = int(config.max_shard_gb * 1e9)
    save_model(folder, loaded.params, loaded.processor, loaded.folder, dtype=dtype, max_shard_bytes=shard)
    family = loaded.processor.family
    written = stored_tensors(folder, family).values()
    parameters = sum(int(np.prod(tensor.shape)) for tensor in written)
    files = {tensor.path for tensor in written}
    size = sum(path.stat().st_size for path in files)
    kinds = ", ".join(sorted({tensor.dtype for tensor in written}))
    table = (
        f"{family.model_type}: {parameters:,} parameters in {len(written)} tensors ({kinds}), {_readable(size)} in "
        f"{len(files)} file{'s' if len(files) > 1 else ''}\nmodel in {folder}"
    )
    print(table)
    write_result(Path(config.workdir), table, parameters=parameters, tensors=len(written), bytes=size)


def _readable(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB"

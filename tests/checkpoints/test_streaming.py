"""A checkpoint of many shards is read with little memory beside the model itself: measured in a process of its own."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest

from urt_jax.checkpoints.hf_weights import save_weights
from urt_jax.families.presets import preset
from urt_jax.families.qwen3_vl import FAMILY
from urt_jax.models.config import ModelConfig
from urt_jax.models.vlm import abstract_params

GB = 2**30
ALLOWANCE = GB // 2

# Loads the checkpoint onto a mesh of so many devices while a thread looks at the anonymous memory of the process.
LOADER = """
import json, sys, threading, time
from pathlib import Path
import jax, ml_dtypes
from urt_jax.checkpoints.hf_weights import load_weights
from urt_jax.families.qwen3_vl import FAMILY, read_config
from urt_jax.models.vlm import abstract_params
from urt_jax.sharding.mesh import make_mesh
from urt_jax.sharding.rules import shardings_for

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

folder, fsdp, dtype = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
config = read_config(json.loads((folder / "config.json").read_text()))
shardings = shardings_for(abstract_params(config), make_mesh(data=1, fsdp=fsdp))
before, peak, done = anonymous(), 0, threading.Event()

def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, anonymous())

watcher = threading.Thread(target=watch)
watcher.start()
started = time.perf_counter()
params = load_weights(folder, FAMILY, config, dtype=jax.numpy.dtype(dtype), shardings=shardings)
seconds = time.perf_counter() - started
done.set()
watcher.join()
size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
print(json.dumps({"peak": peak - before, "size": size, "seconds": seconds}))
"""


def write_checkpoint(folder: Path, config: ModelConfig, *, max_shard_bytes: int) -> None:
    """Write bfloat16 weights of random rows, without holding them."""
    rng = np.random.default_rng(0)

    def rows(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        row = rng.standard_normal(leaf.shape[-1]).astype(ml_dtypes.bfloat16)
        return np.broadcast_to(row, leaf.shape)

    params = jax.tree.map(rows, abstract_params(config))
    save_weights(folder, params, FAMILY, config, max_shard_bytes=max_shard_bytes)
    (folder / "config.json").write_text(json.dumps(FAMILY.write_config(config, {})))


@pytest.mark.slow
@pytest.mark.parametrize(("fsdp", "dtype"), [(1, "bfloat16"), (4, "bfloat16"), (1, "float32")])
def test_loading_takes_little_beside_the_model(tmp_path: Path, fsdp: int, dtype: str) -> None:
    small = preset("qwen3_vl_2b")
    config = replace(small, decoder=replace(small.decoder, layers=8))
    write_checkpoint(tmp_path, config, max_shard_bytes=200_000_000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 8
    leaves = jax.tree.leaves(abstract_params(config))
    itemsize = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32).itemsize
    largest = max(math.prod(leaf.shape) for leaf in leaves) * itemsize
    flags = f"--xla_force_host_platform_device_count={fsdp}"
    done = subprocess.run(
        [sys.executable, "-c", LOADER, str(tmp_path), str(fsdp), dtype],
        capture_output=True,
        text=True,
        check=True,
        env={"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""},
    )
    measured = json.loads(done.stdout)
    print(f"fsdp {fsdp} {dtype}: { ({name: round(value / GB, 3) for name, value in measured.items()}) }")
    assert measured["peak"] > measured["size"] / 2, "the watcher must have seen the model"
    assert measured["peak"] < measured["size"] + largest // fsdp + ALLOWANCE

"""A process where torchvision can be imported, for what transformers does with clips only there.

``URT_TORCHVISION`` names a folder made by ``pip install --no-deps --target FOLDER torchvision==0.28.0``. It stays out
of the environment of the tests, because transformers finds it there and cannot import it beside CPU torch.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

# CPU torch lacks two operators that torchvision registers itself with, so they are declared first.
START = """
import sys
import torch
library = torch.library.Library("torchvision", "DEF")
for op in ("nms", "qnms"):
    library.define(f"{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import numpy as np
import transformers
given, results = np.load(sys.argv[1]), {}
"""
END = """
np.savez(sys.argv[2], **results)
"""


def run_with_torchvision(script: str, given: Mapping[str, np.ndarray], work: Path) -> Mapping[str, np.ndarray]:
    """Run a script that reads arrays from ``given`` and writes some into ``results``; skip where torchvision is not."""
    pytest.importorskip("torch", reason="torch is missing: clips are not compared with transformers")
    folder = os.environ.get("URT_TORCHVISION", "")
    if not folder:
        pytest.skip(
            "URT_TORCHVISION is not set: give a folder made by pip install --no-deps --target, with torchvision"
        )
    if not (Path(folder) / "torchvision").is_dir():
        pytest.fail(f"URT_TORCHVISION={folder} holds no torchvision")
    np.savez(work / "in.npz", **given)
    command = [sys.executable, "-c", START + script + END, str(work / "in.npz"), str(work / "out.npz")]
    run = subprocess.run(command, env={**os.environ, "PYTHONPATH": folder}, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return np.load(work / "out.npz")

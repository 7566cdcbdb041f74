"""What the peers' scripts share: the spec, a random Qwen2.5-VL of transformers, inputs for it, and the turns.

A script is called with the path of a spec (see ``urt_jax.stages.bench``), does its work once to warm up, prints one
line of JSON, and repeats the work with one more line for every line it reads. It imports nothing of urt_jax.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: waiting threads must not burn the other side's time

import torch

ANSWERS = sys.stdout
sys.stdout = sys.stderr  # whatever a library prints does not end up between the answers


def read_spec() -> dict[str, Any]:
    """Read the spec named on the command line and set threads and seed."""
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(spec["seed"])
    return spec


def answer(**figures: Any) -> None:
    """Print one line of figures."""
    print(json.dumps(figures), file=ANSWERS, flush=True)


def timed(call: Callable[[], Any]) -> dict[str, float]:
    """Return seconds by the clock and of all threads of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def peak_memory() -> int:
    """Return the most bytes this process held so far (``getrusage`` would start with its parent's peak)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def take_turns(repeat: Callable[[], dict[str, float]]) -> None:
    """Warm up once, then repeat for every line that is read."""
    before = peak_memory()
    first = timed(repeat)
    answer(first=first["wall"], memory_before=before)
    for _ in sys.stdin:
        answer(**repeat(), memory=peak_memory())


def random_model(spec: dict[str, Any]) -> Any:
    """Return a float32 model with random weights whose language model is trained and whose tower is frozen."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    sizes = {key: value for key, value in spec["model"].items() if key not in ("architectures", "model_type")}
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**sizes)).float()
    model.model.visual.requires_grad_(False)
    return model


def random_words(spec: dict[str, Any], rows: int, length: int) -> torch.Tensor:
    """Return random ids that stand for nothing special, int64 [rows, length]."""
    vocabulary = torch.ones(spec["model"]["text_config"]["vocab_size"])
    vocabulary[spec["suppressed"]] = 0
    return torch.multinomial(vocabulary, rows * length, replacement=True).reshape(rows, length)


def prompt_inputs(spec: dict[str, Any], prompts: int) -> dict[str, torch.Tensor]:
    """Return the model's inputs for some prompts, each its pictures, then its words; all have one length."""
    model, rows = spec["model"], spec["rows"]
    tower, merge = model["vision_config"], model["vision_config"]["spatial_merge_size"]
    side = rows["picture_side"] // tower["patch_size"]
    shown = [model["image_token_id"]] * ((side // merge) ** 2)
    picture = [model["vision_start_token_id"], *shown, model["vision_end_token_id"]]
    media = torch.tensor(picture * rows["pictures"]).repeat(prompts, 1)
    ids = torch.cat([media, random_words(spec, prompts, spec["words"])], dim=1)
    features = tower["in_channels"] * tower["temporal_patch_size"] * tower["patch_size"] ** 2
    pictures = prompts * rows["pictures"]
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == model["image_token_id"]).long(),
        "pixel_values": torch.randn(pictures * side * side, features),
        "image_grid_thw": torch.tensor([[1, side, side]] * pictures),
    }

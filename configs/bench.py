"""Sampler, SFT step, GRPO step and input against the machine's limits, and beside transformers, TRL and torch.

    python -m urt_jax.main --config configs/bench.py
    python -m urt_jax.main --config configs/bench.py --config.peers.python=peers/bin/python
    python -m urt_jax.main --config configs/bench.py:prefix
    python -m urt_jax.main --config configs/bench.py:gpu
    python -m urt_jax.main --config configs/bench.py:input

Random weights of the sizes "tiny" (urt-tiny) and "small" (63 M parameters). On two shared CPU cores about 6 minutes
and 6 GB, with the peers 20 minutes and 14 GB; their environment is made by (Python 3.11, torch first):

    python3.11 -m venv peers && peers/bin/pip install torch==2.13.0
    peers/bin/pip install trl==1.16.0 transformers==5.23.0 pillow datasets

Times are fair only on an idle machine; pin both sides to some cores with ``taskset -c 0,1 python -m ...``.
Preset ``prefix``: the gradient of one question whose prompt its responses share, beside that of whole rows.
Preset ``gpu``: 3B and 7B shapes of Qwen2.5-VL in bfloat16 on accelerators, state split over all of them. Not yet run;
one of 80 GB holds the 3B training steps and the 7B sampler, whose own training steps then say that memory is short.

Preset ``input``: how many records a second are decoded and laid out without a worker and by one and two, pictures of
1024 x 1024 and videos of 720p among them, and whether any step would wait for them: the steps of urt-tiny as they are
timed beside it, those of published sizes by formula. What it says is the ``workers`` to give to a training stage.
"""

from ml_collections import ConfigDict


def get_config(preset: str = "") -> ConfigDict:
    """Return the preset ``prefix``, ``gpu`` or ``input``, or by default what runs on a CPU."""
    if preset not in ("", "prefix", "gpu", "input"):
        raise ValueError(f"unknown preset {preset!r}; known: prefix, gpu, input")
    config = ConfigDict()
    config.stage = "bench"
    config.sizes = ("tiny", "small")
    config.repetitions = 3
    if preset == "prefix":
        config.cases = ("prefix",)
    if preset == "input":
        config.sizes = ("tiny",)
        config.cases = ("sft", "grpo", "input")
    if preset == "gpu":
        config.sizes = ("3b", "7b")
        config.dtype = "bfloat16"
        config.remat = "full"
        config.mesh = {"data": 1, "fsdp": -1}
    return config

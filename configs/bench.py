"""Sampler, SFT step, GRPO step and input against the machine's limits, and beside transformers, TRL and torch.

    python -m urt_jax.main --config configs/bench.py           # about 6 minutes and 6 GB on two shared CPU cores
    python -m urt_jax.main --config configs/bench.py --config.peers.python=peers/bin/python    # 20 minutes and 14 GB
    python -m urt_jax.main --config configs/bench.py:prefix    # minutes not noted
    python -m urt_jax.main --config configs/bench.py:gpu       # not run
    python -m urt_jax.main --config configs/bench.py:input     # minutes not noted
    python -m urt_jax.main --config configs/bench.py:verdict   # 2 minutes

Figures reached, of urt-tiny on two cores of an AMD EPYC: a rollout of 0.302 s, 7.4x as fast as transformers; an SFT
step of 0.412 s, 1.59x torch; a GRPO step of 0.995 s, 5.8x TRL. All sizes and floors: docs/results.md.

Random weights of the sizes "tiny" (urt-tiny) and "small" (63 M parameters). The environment of the peers is made by
(Python 3.11, torch first):

    python3.11 -m venv peers && peers/bin/pip install torch==2.13.0
    peers/bin/pip install trl==1.16.0 transformers==5.23.0 pillow datasets

Times are fair only on an idle machine; pin both sides to some cores with ``taskset -c 0,1 python -m ...``.
Preset ``prefix``: the gradient of one question whose prompt its responses share, beside that of whole rows. Of 8
responses of ``small`` it took 2.21 s in place of 4.00; of one response 0.91 in place of 0.72.
Preset ``gpu``: 3B and 7B shapes of Qwen2.5-VL in bfloat16 on accelerators, state split over all of them. Not yet run;
one of 80 GB holds the 3B training steps and the 7B sampler, whose own training steps then say that memory is short.

Preset ``input``: how many records a second are decoded and laid out without a worker and by one and two, pictures of
1024 x 1024 and videos of 720p among them, and whether any step would wait for them: the steps of urt-tiny as they are
timed beside it, those of published sizes by formula. What it says is the ``workers`` to give to a training stage.

Preset ``verdict``: seconds from the import to the first verdict of the shipped judge in a fresh process, with programs
kept from an earlier one, in one order, in both, and with three votes.
"""

from ml_collections import ConfigDict


def get_config(preset: str = "") -> ConfigDict:
    """Return the preset ``prefix``, ``gpu``, ``input`` or ``verdict``, or by default what runs on a CPU."""
    if preset not in ("", "prefix", "gpu", "input", "verdict"):
        raise ValueError(f"unknown preset {preset!r}; known: prefix, gpu, input, verdict")
    config = ConfigDict()
    config.stage = "bench"
    config.sizes = ("tiny", "small")
    config.repetitions = 3  # in turn with the peers, so that a busy minute of the machine meets both sides
    if preset == "prefix":
        config.cases = ("prefix",)
    if preset == "verdict":
        config.sizes, config.cases = ("tiny",), ("verdict",)
        config.repetitions = 5
    if preset == "input":
        config.sizes = ("tiny",)
        config.cases = ("sft", "grpo", "input")  # the steps too: without their seconds nothing says who waits for whom
    if preset == "gpu":
        config.sizes = ("3b", "7b")
        config.dtype = "bfloat16"  # what the products of an accelerator are fast in
        config.remat = "full"  # recomputed where memory is short, as it is there
        config.mesh = {"data": 1, "fsdp": -1}  # no device of 80 GB holds 7B with its moments
    return config

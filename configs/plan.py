"""What fits on which accelerators, how fast it would be and what it would cost, from a host without any.

    python -m urt_jax.main --config configs/plan.py           # 7B on 64 chips of v5p: minutes not noted
    python -m urt_jax.main --config configs/plan.py --config.cases="('qwen2_5_vl_3b@v6e:2x4',)" --config.price=2.7
    python -m urt_jax.main --config configs/plan.py:paper     # the published sizes at the paper's shapes: 36 minutes of
                                                              # CPU time in one go
    python -m urt_jax.main --config configs/plan.py:scaling   # weak scaling of 7B and 72B on paper, 8 to 1,024 chips;
                                                              # --config.compile=True compiles four of the updates

Every layout is judged by formula; the best two of each case are compiled (``--config.compile=False`` leaves that out),
of ``paper`` the best, and of it the program that needs most. ``--config.sequence="(1, 2)"`` looks at meshes that split
rows too. Compiling needs ``pip install 'urt-jax[plan]'`` and no accelerator; an update takes 2.5 to 6.3 minutes of
CPU time for a TPU, seconds for a GPU, once: what was compiled is remembered. Any host will do.

Figure reached: 7B on 64 chips of v5p needs 20.6 GiB of 95.7 by formula, 20.5 as compiled, and would take 24.4 s a step;
no plan was checked on the real chips. All cases: docs/planning.md.
"""

from ml_collections import ConfigDict

PAPER = (
    "qwen2_5_vl_3b@v6e:2x4",
    "qwen2_5_vl_7b@v5p:4x4x4",
    "qwen2_5_vl_7b@v6e:2x4",  # as the one that does not fit: it misses 14.1 GiB as compiled
    "qwen2_5_vl_7b@v6e:8x8",
    "qwen2_5_vl_7b@h100:1x8",
    "qwen2_5_vl_7b@h200:1x8",
    "qwen2_5_vl_72b@v5p:4x8x8",
    "qwen3_vl_2b@v5p:2x2x2",
    "qwen3_vl_4b@v5p:2x2x4",
    "qwen3_vl_8b@v5p:4x4x4",
    "qwen3_vl_32b@v5p:4x8x8",
    "llava_onevision_0_5b@v5p:2x2x1",
    "llava_onevision_7b@v5p:4x4x4",
)


def get_config(preset: str = "") -> ConfigDict:
    """Return the preset ``paper`` or ``scaling``, or by default 7B on 64 chips of v5p."""
    if preset not in ("", "paper", "scaling"):
        raise ValueError(f"unknown preset {preset!r}; known: paper, scaling")
    config = ConfigDict()
    config.stage = "plan"
    config.cases = ("qwen2_5_vl_7b@v5p:4x4x4",)
    if preset == "paper":
        config.cases = PAPER
        config.best = 1  # with the next line one compilation a case: what decides whether it fits
        config.worst = True
    if preset == "scaling":
        config.cases = ("qwen2_5_vl_7b@v5p:2x2x2", "qwen2_5_vl_72b@v5p:2x2x2")
        config.sequence = (1, 2)  # 72B on 128 chips misses 0.8 GiB without that axis
        config.attention = "blocks"
        config.compile = False  # by formula in seconds; compiled on demand, as the command above says
        config.scaling = True
    return config

"""Train the base of ``urt-tiny`` from nothing: it sees, compares and adds up, but does not reason in writing yet.

    python -m urt_jax.main --config configs/base.py:seeing    # 2,000 steps, 25 minutes on two CPU cores
    python -m urt_jax.main --config configs/base.py:skills    # 2,400 steps, 26 minutes
    python -m urt_jax.main --config configs/base.py           # 1,600 steps, 17 minutes

Muon takes a third of AdamW's steps here: with 400 steps of the first phase, at half of the pictures' side, AdamW
(learning rate 1.5e-3) ended at a loss of 0.50, Muon (3e-3) was below it after 120.

Pictures of 56 pixels are brought up to 112: at 56, after as many steps, small green circles, which training never
shows, were never told from squares; at 112 they are in 29 of 31. Loss of the first phase: 0.051 at 56, 0.010 at 112.
With the tower trained on through 1,400 steps of the second phase, on the comparisons' own words, described pictures
with unseen pairs fell from 93 % to 68.

The shipped weights are of these three phases with ``observe`` asked in words of its own, and of 600 steps more of the
last (learning rate 1e-3) with it asked as now, in a judge's question: the three as they stand have not been run again.
Of 256 held-out drills of each kind these were answered without an error, in percent, with colour-shape pairs that
training shows / never shows:

    after         describe  clip     pair     check    clip       answer    text      observe  conclude  sums
    skills        99 / 94   98 / 96  98 / 86  90 / 89  100 / 100  88 / 74   100       82 / 77  99 / 99   94
    the last      99 / 94   99 / 95  98 / 86  89 / 91  100 / 100  99 / 100  100 / 99  90 / 89  97 / 100  91
    600 more      99 / 94   97 / 94  97 / 84  90 / 89  100 / 99   100 / 98  98 / 100  90 / 83  96 / 98   91
"""

from typing import Any

from ml_collections import ConfigDict

OPTIMIZER = {"kind": "muon", "warmup_steps": 50, "schedule": "cosine"}
# Each phase after the first: what it goes on from, its steps, its learning rate, its seeds, and what it drills.
PHASES: dict[str, dict[str, Any]] = {
    "skills": {
        "path": "runs/base-seeing",
        "steps": 2400,
        "learning_rate": 2e-3,
        "seeds": {"drills": 3, "scenes": 6},
        "weights": {
            "observe": 4.0,
            "check": 1.5,
            "check_answer": 2.0,
            "describe": 2.5,
            "check_text": 0.5,
            "sums": 1.0,
            "conclude": 1.5,
        },
    },
    "": {
        "path": "runs/base-skills",
        "steps": 1600,
        "learning_rate": 1.5e-3,
        "seeds": {"drills": 4, "scenes": 4},
        "weights": {
            "observe": 5.0,
            "check": 2.5,
            "check_answer": 3.0,
            "describe": 1.5,
            "check_text": 0.25,
            "sums": 0.5,
            "conclude": 0.5,
        },
    },
}
VARIANTS = {"check": ["check", "check_clip"], "describe": ["describe", "describe_clip", "describe_pair"]}


def get_config(preset: str = "") -> ConfigDict:
    """Return the last phase, or an earlier one (``seeing``, ``skills``)."""
    if preset not in ("seeing", *PHASES):
        raise ValueError(f"unknown preset {preset!r}; this config has 'seeing', 'skills' and the default")
    config = ConfigDict()
    config.stage = "base"
    config.batch_size = 64
    config.lengths = {"max_prompt_tokens": 160, "max_new_tokens": 96}
    config.save_every = 200
    if preset == "seeing":
        _see(config)
    else:
        _judge(config, **PHASES[preset])
    return config


def _see(config: ConfigDict) -> None:
    """Learn to tell what pictures and clips show, three quarters of them with words that comparisons never use."""
    config.steps = 2000
    config.shape = {"vision_width": 128, "vision_layers": 3, "vision_feed_forward": 384}
    config.model = {"init": "random", "trainable": [".*"]}
    config.optimizer = {**OPTIMIZER, "learning_rate": 3e-3}
    config.data = [
        _drilled(["describe"], weight=3.6, count=200_000, wide=1.0),
        _drilled(["describe_clip"], weight=2.4, count=200_000, wide=1.0),
        _drilled(["describe", "describe_pair", "describe_clip"], weight=2.0, count=200_000, wide=0.0),
    ]


def _judge(
    config: ConfigDict,
    *,
    path: str,
    steps: int,
    learning_rate: float,
    seeds: dict[str, int],
    weights: dict[str, float],
) -> None:
    """Learn every skill of a judge. The tower stays: the comparisons' few pairs of words would narrow what it tells."""
    config.steps = steps
    config.model = {"init": "load", "path": path}  # trains the language model, as by default
    config.optimizer = {**OPTIMIZER, "learning_rate": learning_rate}
    tasks = {"image_gen": 3.0, "video_gen": 1.0, "image_und": 1.0, "video_und": 1.0}
    config.data = [
        *(
            _drilled(VARIANTS.get(drill, [drill]), weight=weight, count=100_000, wide=0.5, seed=seeds["drills"])
            for drill, weight in weights.items()
        ),
        {"path": "scenes", "weight": 2.0, "count": 48_000, "seed": seeds["scenes"], "tasks": tasks},
    ]


def _drilled(drills: list[str], **knobs: float) -> dict[str, Any]:
    """Return a source of drills whose words may be read back wrongly."""
    return {"path": "drills", "drills": drills, "misread": 0.3, **knobs}

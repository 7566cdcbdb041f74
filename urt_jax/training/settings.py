"""The settings of training: its optimizer, and its loop. It imports no jax, since configs are read before it."""

from dataclasses import dataclass
from typing import Literal

from urt_jax.settings import knob


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW or Muon with a warm-up and a schedule over all steps of the stage."""

    kind: Literal["adamw", "muon"] = "adamw"  # muon: kernels follow their orthogonal momentum, the rest AdamW
    learning_rate: float = knob(3e-4, above=0)  # at its peak
    warmup_steps: int = knob(10, at_least=0)  # steps over which the rate rises from 0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"  # of the rate after the warm-up: down to 0, or level
    weight_decay: float = knob(0.0, at_least=0)  # on matrices only
    b1: float = knob(0.9, at_least=0, at_most=1)  # decay of the mean gradient, a step
    b2: float = knob(0.98, at_least=0, at_most=1)  # decay of the mean squared gradient, a step
    clip_norm: float = knob(1.0, above=0)  # global norm of the gradient


@dataclass(frozen=True)
class LoopSettings:
    """How long a stage trains, and how often it saves and reports, in optimizer steps."""

    steps: int = knob(100, at_least=1)  # optimizer steps
    save_every: int = knob(50, at_least=1)  # steps between checkpoints
    keep: int = knob(2, at_least=1)  # newest checkpoints kept
    log_every: int = knob(1, at_least=1)  # steps between metric lines
    max_skipped: int = knob(3, at_least=1)  # updates in a row whose loss or gradient is not finite, then stop

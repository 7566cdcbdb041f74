"""Settings of training: the optimizer, and the loop that drives it."""

from dataclasses import dataclass
from typing import Literal

from urt_jax.settings import knob


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW or Muon with a warm-up and a schedule over all steps of the stage."""

    # muon: kernels follow their orthogonal momentum, all other parameters AdamW.
    kind: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = knob(3e-4, above=0)  # at its peak
    warmup_steps: int = knob(10, at_least=0)  # steps over which the rate rises from 0
    # Of the rate after the warm-up: down to 0, or level.
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = knob(0.0, at_least=0)  # on matrices only
    b2: float = knob(0.98, at_least=0, at_most=1)  # decay of AdamW's mean squared gradient, a step
    clip_norm: float = knob(1.0, above=0)  # largest global norm of the gradient


@dataclass(frozen=True)
class LoopSettings:
    """How long a stage trains, what it keeps, and when it gives up, in optimizer steps."""

    steps: int = knob(100, at_least=1)  # optimizer steps
    save_every: int = knob(50, at_least=1)  # steps between checkpoints
    keep: int = knob(2, at_least=1)  # newest checkpoints that are kept
    # Updates in a row whose loss or gradient is not finite, after which the run stops.
    max_skipped: int = knob(3, at_least=1)

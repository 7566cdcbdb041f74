"""Settings of training: the optimizer and the training loop."""

from dataclasses import dataclass
from typing import Literal

from urt_jax.settings import knob


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW or Muon with a warm-up and a schedule over all steps of the stage."""

    # muon: orthogonalised momentum for kernels, AdamW for all other parameters.
    kind: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = knob(3e-4, above=0)  # peak learning rate
    warmup_steps: int = knob(10, at_least=0)  # steps over which the rate rises from 0
    # The learning rate after the warm-up: it falls to 0 (cosine, linear) or stays constant.
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = knob(0.0, at_least=0)  # of matrices only
    b2: float = knob(0.98, at_least=0, at_most=1)  # decay per step of AdamW's mean squared gradient
    clip_norm: float = knob(1.0, above=0)  # largest global norm of the gradient


@dataclass(frozen=True)
class LoopSettings:
    """The length of a training run, its checkpoints, and its limit of skipped updates."""

    steps: int = knob(100, at_least=1)  # optimizer steps
    save_every: int = knob(50, at_least=1)  # steps between checkpoints
    keep: int = knob(2, at_least=1)  # number of newest checkpoints kept
    # The run stops after so many updates in a row whose loss or gradient is not finite.
    max_skipped: int = knob(3, at_least=1)

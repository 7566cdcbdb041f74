"""AdamW or Muon with a schedule, weight decay of matrices only, and gradients clipped by their global norm."""

from typing import Any

import jax
import optax
import optax.contrib

from urt_jax.training.settings import OptimizerSettings

B1 = 0.9  # decay per step of AdamW's mean gradient
ADAM_SIZE = 0.2  # root mean square of AdamW's updates at learning rate 1, arXiv 2502.16982 section 2.2


def make_schedule(settings: OptimizerSettings, *, steps: int) -> optax.Schedule:
    """Return the learning rate as a function of the step: linear warm-up from 0, then constant, or to 0 by schedule."""
    peak, warmup_steps = settings.learning_rate, settings.warmup_steps
    after = max(steps - warmup_steps, 1)
    decays: dict[str, optax.Schedule] = {
        "cosine": optax.cosine_decay_schedule(peak, after),
        "linear": optax.linear_schedule(peak, 0.0, after),
        "constant": optax.constant_schedule(peak),
    }
    if not warmup_steps:
        return decays[settings.schedule]
    return optax.join_schedules(
        [optax.linear_schedule(0.0, peak, warmup_steps), decays[settings.schedule]], [warmup_steps]
    )


def make_optimizer(settings: OptimizerSettings, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Return clipped AdamW (arXiv 1711.05101); biases, norms and embeddings are not decayed.

    With ``muon``, the update of each layer's kernel is its orthogonalised momentum (Jordan et al. 2024), scaled to the
    size of AdamW's updates (arXiv 2502.16982 equation 4) so that a learning rate means the same for both. The other
    parameters keep AdamW. Muon stores one moment per kernel instead of two.

    Adapters' matrices are decayed as kernels are (as in PEFT under AdamW): towards the weights that they adapt.
    """
    optimizer = optax.adamw(schedule, b1=B1, b2=settings.b2, weight_decay=settings.weight_decay, mask=_decayed)
    if settings.kind == "muon":
        muon = optax.contrib.muon(
            schedule,
            weight_decay=settings.weight_decay,
            consistent_rms=ADAM_SIZE,
            muon_weight_dimension_numbers=_matrices,
        )
        optimizer = optax.partition({True: muon, False: optimizer}, _kernels)
    return optax.chain(optax.clip_by_global_norm(settings.clip_norm), optimizer)


def _decayed(params: Any) -> Any:
    return _named(params, ("kernel", "lora_a", "lora_b"))


def _kernels(params: Any) -> Any:
    return _named(params, ("kernel",))


def _named(params: Any, names: tuple[str, ...]) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: getattr(path[-1], "key", "") in names, params)


def _matrices(params: Any) -> Any:
    """Return Muon's dimension numbers: the last two axes of every array are a matrix, earlier ones (layers) a batch."""
    return jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers(-2, -1), params)

"""AdamW with a schedule, decay on matrices only, and gradients clipped by their global norm."""

from typing import Any, Literal

import jax
import optax

Schedule = Literal["cosine", "linear", "constant"]


def make_schedule(kind: Schedule, *, peak: float, steps: int, warmup_steps: int) -> optax.Schedule:
    """Return the learning rate by step: linear warm-up from 0, then constant, linear to 0, or cosine to 0."""
    after = max(steps - warmup_steps, 1)
    decays: dict[str, optax.Schedule] = {
        "cosine": optax.cosine_decay_schedule(peak, after),
        "linear": optax.linear_schedule(peak, 0.0, after),
        "constant": optax.constant_schedule(peak),
    }
    if not warmup_steps:
        return decays[kind]
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup_steps), decays[kind]], [warmup_steps])


def make_optimizer(
    schedule: optax.Schedule, *, weight_decay: float, b1: float, b2: float, clip_norm: float
) -> optax.GradientTransformation:
    """Return clipped AdamW (arXiv 1711.05101); biases, norms and embeddings are not decayed.

    Adapters' matrices are decayed as kernels are (so does PEFT under AdamW): towards the weights that they adapt.
    """
    return optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.adamw(schedule, b1=b1, b2=b2, weight_decay=weight_decay, mask=_decayed),
    )


def _decayed(params: Any) -> Any:
    decayed = ("kernel", "lora_a", "lora_b")
    return jax.tree_util.tree_map_with_path(lambda path, _: getattr(path[-1], "key", "") in decayed, params)

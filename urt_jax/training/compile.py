"""Compilation of the training steps: one jit per step, sharded by the table of rules (pjit in the literature)."""

from functools import partial

import jax
import optax
from jax.sharding import Mesh

from urt_jax.losses.policy import PolicyLoss
from urt_jax.models.vlm import VisionLanguageModel
from urt_jax.sharding.activations import with_mesh
from urt_jax.sharding.rules import shardings_for
from urt_jax.training.state import TrainState
from urt_jax.training.steps import grpo_train_step, score_step, sft_train_step

Step = jax.stages.Wrapped


def compile_sft_step(
    model: VisionLanguageModel,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    mesh: Mesh,
    *,
    micro_batches: int | None = None,
) -> Step:
    """Return ``(state, batch) -> (state, metrics)``; the old state's memory is reused."""
    step = partial(sft_train_step, model=model, optimizer=optimizer, micro_batches=micro_batches)
    return jax.jit(with_mesh(step, mesh), donate_argnums=0, out_shardings=(shardings_for(state, mesh), None))


def compile_grpo_step(
    model: VisionLanguageModel,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    mesh: Mesh,
    loss: PolicyLoss,
    *,
    first_update: bool,
    max_tokens: int | None = None,
    micro_batches: int | None = None,
) -> Step:
    """Return ``(state, GrpoBatch, suppressed_V) -> (state, metrics)``; the old state's memory is reused."""
    step = partial(
        grpo_train_step,
        model=model,
        optimizer=optimizer,
        loss=loss,
        first_update=first_update,
        max_tokens=max_tokens,
        micro_batches=micro_batches,
    )
    return jax.jit(with_mesh(step, mesh), donate_argnums=0, out_shardings=(shardings_for(state, mesh), None))


def compile_score_step(
    model: VisionLanguageModel, mesh: Mesh | None = None, *, micro_batches: int | None = None
) -> Step:
    """Return ``(params, rows, temperature, suppressed_V) -> CompletionScores``, for reference and old policies."""
    return jax.jit(with_mesh(partial(score_step, model=model, micro_batches=micro_batches), mesh))

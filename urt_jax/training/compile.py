"""Where training programs are made: one jit per step, placed by the table of rules (the literature's pjit)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from urt_jax.models.vlm import VisionLanguageModel
from urt_jax.sharding.activations import with_mesh
from urt_jax.sharding.rules import shardings_for
from urt_jax.training.state import TrainState
from urt_jax.training.steps import PolicyLoss, grpo_train_step, score_completions, sft_train_step
from urt_jax.types import PromptedRows

Step = Callable[..., Any]


def compile_sft_step(
    model: VisionLanguageModel, optimizer: optax.GradientTransformation, state: TrainState, mesh: Mesh
) -> Step:
    """Return ``(state, batch) -> (state, metrics)``; the old state's memory is reused."""
    step = partial(sft_train_step, model=model, optimizer=optimizer)
    return jax.jit(with_mesh(step, mesh), donate_argnums=0, out_shardings=(shardings_for(state, mesh), None))


def compile_grpo_step(
    model: VisionLanguageModel,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    mesh: Mesh,
    loss: PolicyLoss,
    *,
    first_update: bool,
) -> Step:
    """Return ``(state, GrpoBatch, suppressed_V) -> (state, metrics)``; the old state's memory is reused."""
    step = partial(grpo_train_step, model=model, optimizer=optimizer, loss=loss, first_update=first_update)
    return jax.jit(with_mesh(step, mesh), donate_argnums=0, out_shardings=(shardings_for(state, mesh), None))


def compile_score_step(model: VisionLanguageModel, mesh: Mesh | None = None) -> Step:
    """Return ``(params, rows, temperature, suppressed_V) -> CompletionScores``, for reference and old policies."""

    def score(params: Any, rows: PromptedRows, temperature: Any, suppressed_V: Any) -> Any:
        return score_completions(model, params, rows, temperature, suppressed_V)

    return jax.jit(with_mesh(score, mesh))

"""Where training programs are made: placement on the mesh and one jit per step (what the literature calls pjit)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from urt_jax.models.vlm import VisionLanguageModel
from urt_jax.sharding.rules import batch_sharding, shardings_for
from urt_jax.training.state import TrainState
from urt_jax.training.steps import PolicyLoss, grpo_train_step, score_completions, sft_train_step
from urt_jax.types import Batch

Step = Callable[..., Any]


def place_rows(mesh: Mesh, tree: Any) -> Any:
    """Put host arrays on the mesh with their first axis split over the data axes; what does not divide lies whole.

    ``Batch.positions_3BT`` has its rows on the second axis, and scalars have none.
    """

    def put(path: tuple[Any, ...], leaf: Any) -> jax.Array:
        axis = 1 if path and getattr(path[-1], "name", "") == "positions_3BT" else 0
        parts = mesh.shape["data"] * mesh.shape["fsdp"]
        divides = np.ndim(leaf) > axis and np.shape(leaf)[axis] % parts == 0 and np.shape(leaf)[axis] > 0
        return jax.device_put(leaf, batch_sharding(mesh, axis) if divides else NamedSharding(mesh, P()))

    return jax.tree_util.tree_map_with_path(put, tree)


def place_state(mesh: Mesh, tree: Any) -> Any:
    """Put parameters or a whole state on the mesh by the sharding table, in one transfer a leaf."""
    return jax.device_put(tree, shardings_for(tree, mesh))


def compile_sft_step(
    model: VisionLanguageModel, optimizer: optax.GradientTransformation, state: TrainState, mesh: Mesh
) -> Step:
    """Return ``(state, batch) -> (state, metrics)``; the old state's memory is reused."""
    step = partial(sft_train_step, model=model, optimizer=optimizer)
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings_for(state, mesh), None))


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
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings_for(state, mesh), None))


def compile_score_step(model: VisionLanguageModel, *, width: int) -> Step:
    """Return ``(params, rows, temperature, suppressed_V) -> CompletionScores``, for reference and old policies."""

    def score(params: Any, rows: Batch, temperature: Any, suppressed_V: Any) -> Any:
        return score_completions(model, params, rows, temperature, suppressed_V, width=width)

    return jax.jit(score)

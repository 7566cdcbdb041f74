"""Supervised fine-tuning: learn written responses (cold start, accepted reasonings, the drills of a base model).

1. load the model, split it into trained and frozen parts, place it on the mesh;
2. draw records, encode prompt and response, pad them to one of at most eight shapes; of several processes each does so
   with its own share of the records, and they agree on the shape;
3. take optimizer steps, saving state and position together; write the model in the published layout.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from urt_jax.checkpoints.model_folder import LoadedModel, load_model, random_model
from urt_jax.config import LearnerSettings, ModelSettings, PixelsConfig, SftConfig, SupervisedConfig
from urt_jax.data.loader import Prefetcher, Source
from urt_jax.errors import BadInputError
from urt_jax.feeds.batches import SftFeed
from urt_jax.feeds.records import skipped_figures, tell_skipped, training_source
from urt_jax.models.vlm import VisionLanguageModel
from urt_jax.runs import processes
from urt_jax.runs.meeting import meet_on
from urt_jax.runs.run_folder import write_result
from urt_jax.sharding.mesh import make_mesh
from urt_jax.sharding.placement import place_rows, place_state
from urt_jax.sharding.settings import MeshSettings
from urt_jax.sharding.shares import share_of
from urt_jax.stages.policy import check_base, save_policy, start_state
from urt_jax.training.compile import compile_sft_step
from urt_jax.training.loop import train
from urt_jax.training.metrics import read_metrics
from urt_jax.training.optimizer import make_optimizer, make_schedule
from urt_jax.training.settings import OptimizerSettings
from urt_jax.training.skipped import TrainedBatch
from urt_jax.training.state import TrainState


def run(config: SftConfig) -> None:
    """Train on the configured sources and write ``model/`` and the result."""
    folder = Path(config.workdir)
    loaded = open_model(config.model, config.pixels, seed=config.seed, mesh=open_mesh(config.mesh))
    sources = [training_source(data, seed=config.seed) for data in config.data]
    skipped = [source.skipped for source in sources]
    told = tell_skipped(skipped)
    train_on(config, folder, loaded, sources, batch_size=config.batch_size, title=config.stage)
    finish(folder, config.stage, told, skipped=skipped_figures(skipped))


def open_model(
    model: ModelSettings, pixels: PixelsConfig, *, seed: int, mesh: jax.sharding.Mesh | None = None
) -> LoadedModel:
    """Load the model a stage starts from, or draw fresh weights in its layout.

    With a ``mesh`` the weights are read straight to their place on it, and training takes them over: the loaded model
    is used up by the first step.
    """
    check_base(model)
    bounds = (pixels.min_pixels, pixels.max_pixels)
    if isinstance(model, LearnerSettings) and model.init == "random":
        drawn = random_model(model.path, seed=seed, pixels=bounds)
        return drawn if mesh is None else replace(drawn, params=place_state(mesh, drawn.params))
    return load_model(model.path, pixels=bounds, mesh=mesh)


def open_mesh(mesh: MeshSettings) -> jax.sharding.Mesh:
    """Make the mesh of a stage.

    Raises:
        BadInputError: the axes do not multiply to the number of devices, or deal rows out to processes unevenly.
    """
    try:
        made = make_mesh(**asdict(mesh))
        share_of(made)
    except ValueError as error:
        raise BadInputError(f"config.mesh: {error}") from error
    meet_on(made)
    return made


def open_module(config: ModelSettings, loaded: LoadedModel, mesh: jax.sharding.Mesh) -> VisionLanguageModel:
    """Return the module a stage runs, its dtype and attention chosen by the devices where they are "auto".

    Raises:
        BadInputError: an attention that these devices or this dtype cannot run.
    """
    try:
        return loaded.module_for(mesh, dtype=config.dtype, attention=config.attention, remat=config.remat)
    except BadInputError as error:
        raise BadInputError(f"config.model.{error}") from None


def open_optimizer(settings: OptimizerSettings, *, updates: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Make a stage's optimizer, and its learning rate by update over ``updates`` of them."""
    schedule = make_schedule(settings, steps=updates)
    return make_optimizer(settings, schedule), schedule


def train_on(
    config: SupervisedConfig,
    folder: Path,
    loaded: LoadedModel,
    sources: Sequence[Source],
    *,
    batch_size: int,
    title: str,
) -> LoadedModel:
    """Train on a mix of sources in ``folder`` (resuming there), write ``folder/model`` and return the trained model."""
    mesh = open_mesh(config.mesh)
    model = open_module(config.model, loaded, mesh)
    optimizer, schedule = open_optimizer(config.optimizer, updates=config.steps)
    state = start_state(config, loaded, optimizer, mesh)
    rates = np.asarray(schedule(np.arange(config.steps)))  # once: asking per step would wait for the device
    step_fn = compile_sft_step(model, optimizer, state, mesh, micro_batches=config.micro_batches)
    row_step = mesh.shape["data"] * mesh.shape["fsdp"] * (config.micro_batches or 1)
    feed = SftFeed(config, loaded, sources, batch_size=batch_size, row_step=row_step, share=share_of(mesh))
    ahead = Prefetcher(feed.prepare, start=0, stop=config.steps)

    def advance(state: TrainState, step: int) -> tuple[TrainState, dict[str, Any], TrainedBatch]:
        asked = time.perf_counter()
        prepared = ahead[step]
        batch = feed.agreed(prepared)
        waited = time.perf_counter() - asked
        state, figures = step_fn(state, place_rows(mesh, batch))
        figures = {**figures, "learning_rate": rates[step], "timing_s/input": waited}
        return state, figures, TrainedBatch(prepared.ids, batch)

    try:
        state = train(folder, state, advance, config, title=title)
    finally:
        feed.close()
        ahead.close()
    return save_policy(config, folder, loaded, state)


def finish(folder: Path, stage: str, measured: str = "", **figures: Any) -> None:
    """Print what training did, below a table of what was ``measured`` after it, and mark the run as finished.

    Raises:
        BadInputError: the metrics were changed after they were written.
    """
    lines = processes.of_first(lambda: read_metrics(folder))
    if not lines or not {"loss"} <= lines[0].keys() & lines[-1].keys():
        told = "holds no loss of the first and the last step; put it back as it was, or give another --workdir"
        raise BadInputError(f"{folder / 'metrics.jsonl'} {told}")
    first, last = lines[0], lines[-1]
    table = (
        f"{stage}: {int(last['step'])} steps, loss {first['loss']:.3f} -> {last['loss']:.3f}; "
        f"model in {folder / 'model'}"
    )
    table = f"{measured}\n{table}" if measured else table
    print(table)
    write_result(folder, table, loss_first=first["loss"], loss_last=last["loss"], steps=last["step"], **figures)

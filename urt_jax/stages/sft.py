"""Supervised fine-tuning on given responses (cold start, accepted reasonings, drills of a base model).

1. load the model, split it into trainable and frozen parameters, place it on the mesh;
2. draw records, encode prompts and responses, pad them to one of at most eight shapes; on several processes, each
   encodes its own share of the records, and all agree on the shape;
3. take optimizer steps, saving the state with its step number; write the model in the published layout.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from urt_jax.checkpoints.model_folder import LoadedModel
from urt_jax.config import SftConfig, SupervisedConfig
from urt_jax.data.loader import Prefetcher, Source
from urt_jax.errors import BadInputError
from urt_jax.feeds.batches import SftFeed
from urt_jax.feeds.records import skipped_figures, tell_skipped, training_source
from urt_jax.runs import processes
from urt_jax.runs.run_folder import write_result
from urt_jax.sharding.placement import place_rows
from urt_jax.sharding.shares import share_of
from urt_jax.stages.policy import open_mesh, open_model, open_module, open_optimizer, save_policy, start_state
from urt_jax.training.compile import compile_sft_step
from urt_jax.training.loop import train
from urt_jax.training.metrics import read_metrics
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


def train_on(
    config: SupervisedConfig,
    folder: Path,
    loaded: LoadedModel,
    sources: Sequence[Source],
    *,
    batch_size: int,
    title: str,
) -> LoadedModel:
    """Train on a mixture of sources in ``folder``, or resume there, write ``folder/model`` and return the model."""
    mesh = open_mesh(config.mesh)
    model = open_module(config.model, loaded, mesh)
    optimizer, schedule = open_optimizer(config.optimizer, updates=config.steps)
    state = start_state(config, loaded, optimizer, mesh)
    rates = np.asarray(schedule(np.arange(config.steps)))  # computed once: a call per step would wait for the device
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
    """Print the training's steps and losses, below the table ``measured`` after it, and mark the run as finished.

    Raises:
        BadInputError: the metrics file was changed after it was written.
    """
    lines = processes.of_first(lambda: read_metrics(folder))
    if not lines or not {"loss"} <= lines[0].keys() & lines[-1].keys():
        told = "lacks the loss of the first or the last step; restore the file, or give another --workdir"
        raise BadInputError(f"{folder / 'metrics.jsonl'} {told}")
    first, last = lines[0], lines[-1]
    table = (
        f"{stage}: {int(last['step'])} steps, loss {first['loss']:.3f} -> {last['loss']:.3f}; "
        f"model in {folder / 'model'}"
    )
    table = f"{measured}\n{table}" if measured else table
    print(table)
    write_result(folder, table, loss_first=first["loss"], loss_last=last["loss"], steps=last["step"], **figures)

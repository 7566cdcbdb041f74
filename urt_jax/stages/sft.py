"""Supervised fine-tuning: learn written responses (cold start, accepted reasonings, the drills of a base model).

1. load the model, split it into trained and frozen parts, place it on the mesh;
2. draw records, encode prompt and response, pad them to one of at most eight shapes; of several processes each does so
   with its own share of the records, and they agree on the shape;
3. take optimizer steps, saving state and position together; write the model in the published layout.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from urt_jax.checkpoints.model_folder import LoadedModel, load_model, random_model
from urt_jax.config import MeshConfig, ModelConfig, OptimizerConfig, PixelsConfig, SftConfig, TrainingConfig
from urt_jax.data.collate import Buckets, Length, Need, collate, largest, length_of, need_of, pack, plan_buckets
from urt_jax.data.loader import Prefetcher, Source, mix
from urt_jax.data.workers import Pending
from urt_jax.errors import BadInputError
from urt_jax.families.processor import padding_of
from urt_jax.models.attention import choose_attention
from urt_jax.models.vlm import VisionLanguageModel
from urt_jax.runs import processes
from urt_jax.runs.meeting import meet_on
from urt_jax.runs.run_folder import write_result
from urt_jax.sharding.mesh import compute_dtype, make_mesh
from urt_jax.sharding.placement import place_rows, place_state
from urt_jax.sharding.shares import WHOLE, Share, share_of, shown_by_all
from urt_jax.stages.policy import check_base, save_policy, start_state
from urt_jax.stages.records import Encoder, TrainedRecord, skipped_figures, tell_skipped, training_source
from urt_jax.training.compile import compile_sft_step
from urt_jax.training.loop import LoopSettings, train
from urt_jax.training.metrics import read_metrics
from urt_jax.training.optimizer import make_optimizer, make_schedule
from urt_jax.training.skipped import TrainedBatch
from urt_jax.training.state import TrainState
from urt_jax.types import Batch

PROBED_RECORDS = 2048  # records looked at to plan the shapes of an endless stream
HEADROOM = 1.35  # how much larger than any probed batch the largest shape is, where not all records were probed


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
    model: ModelConfig, pixels: PixelsConfig, *, seed: int, mesh: jax.sharding.Mesh | None = None
) -> LoadedModel:
    """Load the model a stage starts from, or draw fresh weights in its layout.

    With a ``mesh`` the weights are read straight to their place on it, and training takes them over: the loaded model
    is used up by the first step.
    """
    check_base(model)
    bounds = (pixels.min_pixels, pixels.max_pixels)
    if model.init == "random":
        drawn = random_model(model.path, seed=seed, revision=model.revision, pixels=bounds)
        return drawn if mesh is None else replace(drawn, params=place_state(mesh, drawn.params))
    return load_model(model.path, revision=model.revision, pixels=bounds, mesh=mesh)


def open_mesh(mesh: MeshConfig) -> jax.sharding.Mesh:
    """Make the mesh of a stage.

    Raises:
        BadInputError: the axes do not multiply to the number of devices, or deal rows out to processes unevenly.
    """
    try:
        made = make_mesh(mesh.data, mesh.fsdp, mesh.tensor, mesh.sequence)
        share_of(made)
    except ValueError as error:
        raise BadInputError(f"config.mesh: {error}") from error
    meet_on(made)
    return made


def open_module(config: ModelConfig, loaded: LoadedModel, mesh: jax.sharding.Mesh) -> VisionLanguageModel:
    """Return the module a stage runs, its dtype and attention chosen by the devices where they are "auto".

    Raises:
        BadInputError: an attention that these devices or this dtype cannot run.
    """
    dtype = compute_dtype(config.dtype)
    try:
        attention = choose_attention(config.attention, dtype, sequence=mesh.shape["sequence"])
    except ValueError as error:
        raise BadInputError(f"config.model.attention: {error}") from error
    return loaded.module(dtype=dtype, remat=config.remat, attention=attention)


def open_optimizer(chosen: OptimizerConfig, *, updates: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Make a stage's optimizer, and its learning rate by update over ``updates`` of them."""
    schedule = make_schedule(
        chosen.schedule, peak=chosen.learning_rate, steps=updates, warmup_steps=chosen.warmup_steps
    )
    optimizer = make_optimizer(
        schedule,
        kind=chosen.kind,
        weight_decay=chosen.weight_decay,
        b1=chosen.b1,
        b2=chosen.b2,
        clip_norm=chosen.clip_norm,
    )
    return optimizer, schedule


def train_on(
    config: TrainingConfig,
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

    settings = LoopSettings(config.steps, config.save_every, config.keep, config.log_every, config.max_skipped)
    try:
        state = train(folder, state, advance, settings, title=title)
    finally:
        feed.close()
        ahead.close()
    return save_policy(config, folder, loaded, state)


class Prepared(NamedTuple):
    """The records of one step of this process, and their batch in the smallest shape that holds them."""

    ids: list[str]
    batch: Batch
    need: Need
    records: list[TrainedRecord]  # of several processes, which have yet to agree on a shape; else none


class SftFeed:
    """Makes the batch of any step from the seed alone; short records share rows, in shapes planned once.

    Of several processes each makes the rows of its ``share`` from its own records of the step.
    """

    def __init__(
        self,
        config: TrainingConfig,
        loaded: LoadedModel,
        sources: Sequence[Source],
        *,
        batch_size: int,
        row_step: int,
        share: Share = WHOLE,
    ) -> None:
        if batch_size < share.of:
            raise BadInputError(f"batch_size {batch_size} is fewer records than the {share.of} shares of processes")
        lengths = config.lengths
        self._encoder = Encoder(
            loaded.processor,
            max_prompt_tokens=lengths.max_prompt_tokens,
            max_new_tokens=lengths.max_new_tokens,
            workers=config.workers,
        )
        self._steps = config.steps
        self._begun: dict[int, tuple[list[str], list[Pending[TrainedRecord]]]] = {}  # of the step asked for next
        self._drawn = mix(sources, seed=config.seed, rows=config.steps * batch_size)
        self._size, self._share, self._patch_budget = batch_size, share, lengths.row_patches
        self._padding = padding_of(loaded.processor)
        grid = {
            "slot_step": loaded.processor.config.vision.slot_step,
            "token_step": config.token_step,
            "row_step": row_step // share.of,
            "frame_step": math.lcm(4, share.step),
        }
        self.buckets = self._plan(config.steps, grid)

    def _plan(self, steps: int, grid: dict[str, int]) -> Buckets:
        """Plan over all records of a short run; over a sample of a long one, with larger shapes for what it lacks."""
        probed = min(steps, -(-PROBED_RECORDS // self._size))
        lengths = [[length_of(r.chat, len(r.response)) for r in self._records(step)[1]] for step in range(probed)]
        self._begun.clear()
        step = grid["token_step"]
        longest = max(record.tokens for batch in lengths for record in batch)
        width = -(-max(processes.gather(longest)) // step) * step
        own = [
            need_of(batch, rows=len(pack(batch, width=width, patch_budget=self._patch_budget)), tokens=width)
            for batch in lengths
        ]
        needs = [largest(of_step) for of_step in zip(*processes.gather(own))]
        if probed == steps:
            return plan_buckets(needs, **grid)
        return with_headroom(needs, **grid)

    def _records(self, step: int) -> tuple[list[str], list[TrainedRecord]]:
        """Return the records of a step with their ids, after those of the next one are begun."""
        ids, begun = self._begun.pop(step) if step in self._begun else self._begin(step)
        self._begun = {step + 1: self._begin(step + 1)} if step + 1 < self._steps else {}
        return ids, [record() for record in begun]

    def _begin(self, step: int) -> tuple[list[str], list[Pending[TrainedRecord]]]:
        drawn = [self._drawn(place) for place in self._share.cut(range(step * self._size, (step + 1) * self._size))]
        begun = [self._encoder.begin_trained(example, template=template) for example, template in drawn]
        return [example.id for example, _ in drawn], begun

    def close(self) -> None:
        """End the workers."""
        self._encoder.close()

    def prepare(self, step: int) -> Prepared:
        """Make the padded batch of one step, in the smallest shape that holds this process's records."""
        ids, records = self._records(step)
        width = self.buckets.fit_axis("tokens", max(_length(record).tokens for record in records))
        need, packed = self._packed(records, width)
        batch = self._collated(records, packed, self.buckets.fit(need))
        return Prepared(ids, batch, need, records if self._share.of > 1 else [])

    def agreed(self, prepared: Prepared) -> Batch:
        """Return the batch in the shape that all processes agree on here; each must ask for the same step."""
        if self._share.of == 1:
            return prepared.batch
        batch, need, records = prepared.batch, prepared.need, prepared.records
        bucket = self.buckets.fit(largest(processes.gather(need)))
        if bucket != self.buckets.fit(need):
            batch = self._collated(records, self._packed(records, bucket.tokens)[1], bucket)
        return shown_by_all(batch, self._share, merge=self._padding["merge"])

    def _packed(self, records: Sequence[TrainedRecord], width: int) -> tuple[Need, list[list[int]]]:
        """Return which records share rows of ``width`` tokens, and what those need."""
        lengths = [_length(record) for record in records]
        packed = pack(lengths, width=width, patch_budget=self._patch_budget)
        return need_of(lengths, rows=len(packed), tokens=width), packed

    def _collated(self, records: Sequence[TrainedRecord], packed: list[list[int]], bucket: Need) -> Batch:
        chats, responses, histories = zip(*records)
        return collate(chats, responses, bucket=bucket, packed=packed, histories=histories, **self._padding)


def _length(record: TrainedRecord) -> Length:
    return length_of(record.chat, len(record.response))


def with_headroom(
    needs: Sequence[Need], *, slot_step: int, token_step: int = 8, row_step: int = 1, frame_step: int = 4
) -> Buckets:
    """Plan shapes for what a sample of batches needs, larger ones for what others may, and no end to them."""
    most = largest(needs)
    roomy = Need(*(int(HEADROOM * size) for size in most))
    grid = {"slot_step": slot_step, "token_step": token_step, "row_step": row_step, "frame_step": frame_step}
    small, large = (plan_buckets([need], **grid) for need in (most, roomy))
    rows, tokens, frames = (
        tuple(sorted({*getattr(small, axis), *getattr(large, axis)})) for axis in ("rows", "tokens", "frames")
    )
    return Buckets(rows, tokens, frames, small.patches, endless=True)


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

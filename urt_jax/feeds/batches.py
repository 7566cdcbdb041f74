"""The batches of a supervised stage: encoded records packed into rows, in shapes planned once."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from urt_jax.checkpoints.model_folder import LoadedModel
from urt_jax.config import SupervisedConfig
from urt_jax.data.collate import Buckets, Length, Need, collate, largest, length_of, need_of, pack, plan_buckets
from urt_jax.data.loader import Source, mix
from urt_jax.data.workers import Pending
from urt_jax.errors import BadInputError
from urt_jax.families.processor import padding_of
from urt_jax.feeds.encoder import Encoder, TrainedRecord
from urt_jax.runs import processes
from urt_jax.sharding.shares import WHOLE, Share, shown_by_all
from urt_jax.types import Batch

PROBED_RECORDS = 2048  # records encoded to plan the shapes of an endless stream
HEADROOM = 1.35  # the largest shape over the largest probed batch, if not all records were probed


class Prepared(NamedTuple):
    """This process's records of one step, and their batch in the smallest shape that holds them."""

    ids: list[str]
    batch: Batch
    need: Need
    records: list[TrainedRecord]  # kept only on several processes, which must still agree on a shape


class SftFeed:
    """Builds the batch of any step from the seed alone; short records share rows, in shapes planned once.

    On several processes, each builds the rows of its ``share`` from its own records of the step.
    """

    def __init__(
        self,
        config: SupervisedConfig,
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
        self._begun: dict[int, tuple[list[str], list[Pending[TrainedRecord]]]] = {}  # of the next step
        self._drawn = mix(sources, seed=config.seed, rows=config.steps * batch_size)
        self._size, self._share, self._patch_budget = batch_size, share, lengths.row_patches
        self._padding = padding_of(loaded.processor)
        self._parts = config.mesh.sequence
        grid = {
            "slot_step": loaded.processor.config.vision.slot_step,
            "token_step": config.token_step,
            "row_step": row_step // share.of,
            "frame_step": math.lcm(4, share.step),
        }
        self.buckets = self._plan(config.steps, grid)

    def _plan(self, steps: int, grid: dict[str, int]) -> Buckets:
        """Plan shapes over all records of a short run, or over a sample of a long one, with headroom for the rest."""
        probed = min(steps, -(-PROBED_RECORDS // self._size))
        lengths = [[_length(record) for record in self._records(step)[1]] for step in range(probed)]
        self._begun.clear()
        step = grid["token_step"]
        longest = max(record.tokens for batch in lengths for record in batch)
        width = -(-max(processes.gather(longest)) // step) * step
        own = [self._packed(batch, width)[0] for batch in lengths]
        needs = [largest(of_step) for of_step in zip(*processes.gather(own))]
        if probed == steps:
            return plan_buckets(needs, **grid)
        return with_headroom(needs, **grid)

    def _records(self, step: int) -> tuple[list[str], list[TrainedRecord]]:
        """Return the ids and records of a step, after the encoding of the next step's records has started."""
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
        """Build the padded batch of one step, in the smallest shape that holds this process's records."""
        ids, records = self._records(step)
        width = self.buckets.fit_axis("tokens", max(_length(record).tokens for record in records))
        need, packed = self._packed([_length(record) for record in records], width)
        batch = self._collated(records, packed, self.buckets.fit(need))
        return Prepared(ids, batch, need, records if self._share.of > 1 else [])

    def agreed(self, prepared: Prepared) -> Batch:
        """Agree with all processes on a shape and return the batch in it; each must call with the same step."""
        if self._share.of == 1:
            return prepared.batch
        batch, need, records = prepared.batch, prepared.need, prepared.records
        bucket = self.buckets.fit(largest(processes.gather(need)))
        if bucket != self.buckets.fit(need):
            batch = self._collated(records, self._packed([_length(r) for r in records], bucket.tokens)[1], bucket)
        return shown_by_all(batch, self._share, merge=self._padding["merge"])

    def _packed(self, lengths: Sequence[Length], width: int) -> tuple[Need, list[list[int]]]:
        """Pack records of these lengths into rows of ``width`` tokens; return their shape and each row's records."""
        packed = pack(lengths, width=width, patch_budget=self._patch_budget)
        return need_of(lengths, rows=len(packed), tokens=width, packed=packed), packed

    def _collated(self, records: Sequence[TrainedRecord], packed: list[list[int]], bucket: Need) -> Batch:
        chats, responses, input_responses = zip(*records)
        return collate(
            chats,
            responses,
            bucket=bucket,
            packed=packed,
            input_responses=input_responses,
            parts=self._parts,
            **self._padding,
        )


def _length(record: TrainedRecord) -> Length:
    return length_of(record.chat, len(record.response))


def with_headroom(
    needs: Sequence[Need], *, slot_step: int, token_step: int = 8, row_step: int = 1, frame_step: int = 4
) -> Buckets:
    """Plan shapes from a sample of batches: the sample's, larger ones for other batches, and endless doublings."""
    most = largest(needs)
    roomy = Need(*(int(HEADROOM * size) for size in most))
    grid = {"slot_step": slot_step, "token_step": token_step, "row_step": row_step, "frame_step": frame_step}
    small, large = (plan_buckets([need], **grid) for need in (most, roomy))
    rows, tokens, frames = (
        tuple(sorted({*getattr(small, axis), *getattr(large, axis)})) for axis in ("rows", "tokens", "frames")
    )
    return Buckets(rows, tokens, frames, small.patches, large.learnt, endless=True)

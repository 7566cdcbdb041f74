"""Collation of encoded chats to padded batches, in a small fixed set of shapes.

A *need* is the smallest shape that holds a batch (rows, tokens, frames, patches per frame); a *bucket* is an allowed
shape, to which batches are padded. Training rows are packed: several short records share a row, each in its own
segment.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from urt_jax.types import TEXT, Array, Batch, EncodedChat, FeatureBlend, FramePatches, Targets, VisionInput


class Need(NamedTuple):
    """Shape of a batch along the axes that vary."""

    rows: int
    tokens: int
    frames: int
    patches: int
    learnt: int = 0  # learnt tokens of a row


class Length(NamedTuple):
    """Size of one encoded record: prompt and response tokens, frames, patch slots of its largest frame."""

    tokens: int
    frames: int
    patches: int
    learnt: int = 0  # tokens of the response


@dataclass(frozen=True)
class Buckets:
    """Allowed sizes along each axis, ascending; every batch is padded to the smallest that holds it.

    If ``endless``, since they were planned from a sample, the largest size of an axis may be doubled any number of
    times.
    """

    rows: tuple[int, ...]
    tokens: tuple[int, ...]
    frames: tuple[int, ...]
    patches: tuple[int, ...]
    learnt: tuple[int, ...] = (0,)
    endless: bool = False

    @property
    def count(self) -> int:
        """The largest number of shapes, and so of compiled programs of one kind."""
        return len(self.rows) * len(self.tokens) * len(self.frames) * len(self.patches) * len(self.learnt)

    def fit(self, need: Need) -> Need:
        """Return the bucket for a need.

        Raises:
            ValueError: the need is larger than the largest bucket.
        """
        return Need(*(self.fit_axis(axis, size) for axis, size in need._asdict().items()))

    def fit_axis(self, axis: str, size: int) -> int:
        """Return the smallest allowed size of one axis that holds ``size``.

        Raises:
            ValueError: ``size`` is larger than the largest allowed size.
        """
        sizes: tuple[int, ...] = getattr(self, axis)
        largest = sizes[-1]
        while self.endless and 0 < largest < size:
            largest *= 2
        for allowed in (*sizes, largest):
            if size <= allowed:
                return allowed
        raise ValueError(
            f"a batch needs {size} {axis}, the largest bucket holds {sizes[-1]}; plan buckets over all data"
        )


def plan_buckets(
    needs: Sequence[Need], *, slot_step: int, token_step: int = 8, row_step: int = 1, frame_step: int = 4
) -> Buckets:
    """Choose the largest need on each axis, and the median too if it saves a quarter: at most 8 shapes in all.

    Frames with more patch slots than ``slot_step`` are padded to multiples of it. Rows are a multiple of ``row_step``
    (the devices that they are split over), frames of ``frame_step``. If both rows and tokens vary, rows have one size.
    """

    def sizes(values: list[int], step: int) -> tuple[int, ...]:
        top = -(-max(values) // step) * step
        middle = -(-int(np.median(values)) // step) * step
        return (middle, top) if 0 < middle <= 0.75 * top else (top,)

    patches = [need.patches for need in needs]
    tokens = sizes([need.tokens for need in needs], token_step)
    rows = sizes([need.rows for need in needs], row_step)
    return Buckets(
        rows=rows if len(tokens) == 1 else rows[-1:],
        tokens=tokens,
        frames=sizes([need.frames for need in needs], frame_step),
        patches=sizes(patches, slot_step if max(patches) > slot_step else 4),
        learnt=(-(-max(need.learnt for need in needs) // token_step) * token_step,),
    )


def roomy(need: Need, *, slot_step: int) -> Need:
    """Return a shape for a batch that is not part of a plan, each axis of 1, 1.5, 2, 3, 4, 6, 8, ... steps.

    So a service that gets pictures of any size and prompts of any length compiles few programs: two for each doubling
    of an axis. Tokens have steps of 32, patches steps of ``slot_step`` above one step; rows stay unchanged.
    """

    def size(value: int, step: int) -> int:
        steps, power = -(-value // step), 1
        while power < steps:
            power *= 2
        three_quarters = 3 * power // 4
        return step * (three_quarters if power >= 4 and steps <= three_quarters else power) if value else 0

    tiles = slot_step == 1  # all frames have one size, so padding them would be a waste
    patches = need.patches if tiles else size(need.patches, slot_step if need.patches > slot_step else 4)
    return Need(need.rows, size(need.tokens, 32), size(need.frames, 1), patches)


def length_of(chat: EncodedChat, response_tokens: int = 0) -> Length:
    """Return the size of one record."""
    slots = max((len(frame.mask_P) for frame in chat.frames), default=0)
    return Length(len(chat.tokens_T) + response_tokens, len(chat.frames), slots, response_tokens)


def need_of(
    lengths: Sequence[Length], *, rows: int, tokens: int | None = None, packed: Sequence[Sequence[int]] | None = None
) -> Need:
    """Return the smallest shape that holds these records in ``rows`` rows (of ``tokens``, by default the longest's).

    ``packed`` lists the records of each row, by default one per row.
    """
    of_rows = [[i] for i in range(len(lengths))] if packed is None else packed
    return Need(
        rows=rows,
        tokens=max(length.tokens for length in lengths) if tokens is None else tokens,
        frames=sum(length.frames for length in lengths),
        patches=max(length.patches for length in lengths),
        learnt=max(sum(lengths[i].learnt for i in row) for row in of_rows),
    )


def largest(needs: Sequence[Need]) -> Need:
    """Return the smallest shape that holds a batch of each of these needs."""
    return Need(*map(max, zip(*needs)))


def pack(lengths: Sequence[Length], *, width: int, patch_budget: int | None = None) -> list[list[int]]:
    """Pack records into rows of ``width`` tokens, by first-fit decreasing; return the records of each row.

    A ``patch_budget`` limits the patch slots of a row; a record that exceeds it gets its own row. Without it, one row
    could hold all pictures of a batch, and its device would do all work of the tower.

    Raises:
        ValueError: a record is longer than a row.
    """
    budget = math.inf if patch_budget is None else patch_budget
    rows: list[list[int]] = []
    free: list[tuple[int, float]] = []  # tokens and patch slots that are free in a row
    for record in sorted(range(len(lengths)), key=lambda i: (-lengths[i].tokens, i)):
        tokens, patches = lengths[record].tokens, lengths[record].frames * lengths[record].patches
        if tokens > width:
            raise ValueError(f"record {record} has {tokens} tokens, a row holds {width}")
        for row, (left, slots) in enumerate(free):
            if tokens <= left and patches <= slots:
                rows[row].append(record)
                free[row] = (left - tokens, slots - patches)
                break
        else:
            rows.append([record])
            free.append((width - tokens, budget - patches))
    return rows


def collate(
    chats: Sequence[EncodedChat],
    responses: Sequence[np.ndarray],
    *,
    bucket: Need,
    pad_id: int,
    patch_features: int,
    merge: int,
    blend_sources: int = 0,
    packed: Sequence[Sequence[int]] | None = None,
    input_responses: Sequence[np.ndarray] | None = None,
    parts: int = 1,
) -> Batch:
    """Pad prompts followed by responses to the right; only response tokens are learnt.

    ``merge`` is the number of patches in one merged patch, ``blend_sources`` the number of features that are mixed at
    one place (0: each place takes one feature unchanged). ``packed`` lists the records of each row (by default one per
    row); packed records have their own segments and do not attend to each other::

        tokens      p p r r r | p p p r . .      segments   1 1 1 1 1 2 2 2 2 0 0
        learnt at   1 2 3       7

    With ``input_responses``, the model reads these and learns ``responses``. ``parts`` is the number of devices over
    which the tokens of a row are split.
    """
    batch = _empty(bucket.rows, bucket.tokens, pad_id, blend_sources)
    next_BT, learnt_BT = np.full_like(batch.tokens_BT, pad_id), np.zeros(batch.tokens_BT.shape, bool)
    frames: list[FramePatches] = []
    for row, records in enumerate(packed if packed is not None else [[i] for i in range(len(chats))]):
        start = 0
        for segment, record in enumerate(records, 1):
            chat, response = chats[record], responses[record]
            middle = start + len(chat.tokens_T)
            end = middle + len(response)
            after = chat.next_position + np.arange(len(response), dtype=np.int32)
            batch.tokens_BT[row, start:middle] = chat.tokens_T
            batch.tokens_BT[row, middle:end] = response if input_responses is None else input_responses[record]
            next_BT[row, middle - 1 : end - 1] = response
            learnt_BT[row, middle - 1 : end - 1] = True
            batch.positions_3BT[:, row, start:middle] = chat.positions_3T
            batch.positions_3BT[:, row, middle:end] = after
            batch.segments_BT[row, start:end] = segment
            _show(batch, row, slice(start, middle), chat, len(frames), bucket.patches // merge)
            frames.extend(chat.frames)
            start = end
    targets = targets_of(next_BT, learnt_BT, learnt=bucket.learnt, parts=parts)
    return batch._replace(vision=_pad_frames(frames, bucket, patch_features), targets=targets)


def targets_of(next_BT: np.ndarray, learnt_BT: np.ndarray, *, learnt: int = 0, parts: int = 1) -> Targets:
    """Return the tokens that follow the places of ``learnt_BT``, left-aligned; see ``Targets``.

    A row has ``learnt`` slots, by default as many as the row with the most tokens needs.
    """
    rows, width = learnt_BT.shape
    apart = learnt_BT.reshape(rows, parts, width // parts)
    most = max(int(apart.sum(axis=2).max(initial=0)), min(learnt, width // parts))
    place = np.argsort(~apart, axis=2, kind="stable")[..., :most]
    mask = np.take_along_axis(apart, place, axis=2)
    tokens = np.take_along_axis(next_BT.reshape(apart.shape), place, axis=2)
    return Targets(place.astype(np.int32), tokens, mask)


def collate_prompts(
    chats: Sequence[EncodedChat],
    *,
    bucket: Need,
    pad_id: int,
    patch_features: int,
    merge: int,
    blend_sources: int = 0,
) -> Batch:
    """Pad prompts to the LEFT, so that the last prompt token is in the last column of every row::

    tokens      . . p p p p      segments   0 0 1 1 1 1
    """
    batch = _empty(bucket.rows, bucket.tokens, pad_id, blend_sources)
    first_frame = 0
    for row, chat in enumerate(chats):
        start = bucket.tokens - len(chat.tokens_T)
        batch.tokens_BT[row, start:] = chat.tokens_T
        batch.positions_3BT[:, row, start:] = chat.positions_3T
        batch.segments_BT[row, start:] = 1
        _show(batch, row, slice(start, bucket.tokens), chat, first_frame, bucket.patches // merge)
        first_frame += len(chat.frames)
    return batch._replace(vision=_pad_frames([f for chat in chats for f in chat.frames], bucket, patch_features))


def join_completions(
    prompts: Batch, next_position_Q: np.ndarray, completions_BU: np.ndarray, mask_BU: np.ndarray
) -> Batch:
    """Append R completions to each of Q left-padded prompts: ``B = Q * R`` rows, question-major, frames stored once.

    Column ``S`` of every row is its first completion token, as in the sampler::

        tokens   . . p p p p | c c c .       completions of a question share its frames through vision_index
    """
    questions, responses = len(prompts.tokens_BT), len(completions_BU) // len(prompts.tokens_BT)
    width = completions_BU.shape[1]

    def rows(x: Array, axis: int = 0) -> np.ndarray:
        return np.repeat(np.asarray(x), responses, axis=axis)

    after = rows(next_position_Q)[:, None] + np.arange(width, dtype=np.int32)
    no_picture = np.full((questions * responses, width), TEXT, np.int32)
    return Batch(
        tokens_BT=np.concatenate([rows(prompts.tokens_BT), completions_BU.astype(np.int32)], axis=1),
        positions_3BT=np.concatenate(
            [rows(prompts.positions_3BT, 1), np.broadcast_to(after.astype(np.int32), (3, *after.shape))], axis=2
        ),
        segments_BT=np.concatenate([rows(prompts.segments_BT), mask_BU.astype(np.int32)], axis=1),
        vision_index_BT=np.concatenate([rows(prompts.vision_index_BT), no_picture], axis=1),
        vision=prompts.vision,
        blend=None if prompts.blend is None else FeatureBlend(*(_widened(rows(x), width) for x in prompts.blend)),
    )


def _widened(x: np.ndarray, width: int) -> np.ndarray:
    """Append ``width`` columns of zeros."""
    return np.concatenate([x, np.zeros((len(x), width, *x.shape[2:]), x.dtype)], axis=1)


def _empty(rows: int, width: int, pad_id: int, sources: int) -> Batch:
    return Batch(
        tokens_BT=np.full((rows, width), pad_id, np.int32),
        positions_3BT=np.zeros((3, rows, width), np.int32),
        segments_BT=np.zeros((rows, width), np.int32),
        vision_index_BT=np.full((rows, width), TEXT, np.int32),
        vision=VisionInput(np.zeros((0, 0, 0), np.float32), np.zeros((0, 0, 2), np.int32), np.zeros((0, 0), bool)),
        blend=None
        if not sources
        else FeatureBlend(np.zeros((rows, width, sources), np.int32), np.zeros((rows, width, sources), np.float32)),
    )


def _show(batch: Batch, row: int, place: slice, chat: EncodedChat, first_frame: int, merged_slots: int) -> None:
    """Write a prompt's vision indices into its place in a row; its frames start at ``first_frame`` of the batch."""
    frame, slot = chat.vision_T2[:, 0], chat.vision_T2[:, 1]
    batch.vision_index_BT[row, place] = np.where(frame >= 0, (frame + first_frame) * merged_slots + slot, frame)
    if batch.blend is not None and chat.blend is not None:
        sources, weights = chat.blend
        flat = (sources[..., 0] + first_frame) * merged_slots + sources[..., 1]
        batch.blend.index_BTK[row, place] = np.where(weights > 0, flat, 0)
        batch.blend.weight_BTK[row, place] = weights


def _pad_frames(frames: Sequence[FramePatches], bucket: Need, patch_features: int) -> VisionInput:
    vision = VisionInput(
        patches_IPC=np.zeros((bucket.frames, bucket.patches, patch_features), np.float32),
        positions_IP2=np.zeros((bucket.frames, bucket.patches, 2), np.int32),
        mask_IP=np.zeros((bucket.frames, bucket.patches), bool),
    )
    for i, frame in enumerate(frames):
        slots = len(frame.mask_P)
        vision.patches_IPC[i, :slots] = frame.patches_PC
        vision.positions_IP2[i, :slots] = frame.positions_P2
        vision.mask_IP[i, :slots] = frame.mask_P
    return vision

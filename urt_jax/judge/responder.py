"""Sampling a judge's responses to queries, in few compiled shapes, over all devices; every judging goes through it."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from urt_jax.checkpoints.model_folder import LoadedModel
from urt_jax.data.collate import Need, collate, largest, length_of, need_of, plan_buckets, roomy
from urt_jax.data.examples import Chat, Query
from urt_jax.data.loader import batches
from urt_jax.families.processor import NamedChat, encode_chat, encoding_workers, padding_of
from urt_jax.generation.sampler import ALL_AT_ONCE, Sampler
from urt_jax.generation.sampling import DecodeSettings, Sampling, each_row
from urt_jax.models.attention import token_step
from urt_jax.models.vlm import VisionLanguageModel, run
from urt_jax.runs import processes
from urt_jax.sharding.placement import mesh_of, place_rows
from urt_jax.sharding.shares import share_of
from urt_jax.types import Batch, EncodedChat

HELD_BYTES = 2 << 30  # bytes of encoded pictures that a call holds before it samples the first responses


def _logits_at(model: VisionLanguageModel, params: Any, batch: Batch, at_BK: Int[Array, "B K"]) -> Array:
    hidden_BTD = run(model, params, batch, method="hidden")
    hidden_BKD = jnp.take_along_axis(hidden_BTD, at_BK[..., None], axis=1)
    return jnp.asarray(run(model, params, hidden_BKD, method="logits"))


class Responder:
    """A loaded model that writes responses. Programs are compiled once per shape.

    ``dtype`` and ``attention`` are those of the computation (see ``LoadedModel.module_for``); ``workers`` is the number
    of processes that decode pictures; ``decoding`` are the device's settings.

    Raises:
        BadInputError: as ``LoadedModel.module_for``.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        dtype: Any,
        attention: str,
        max_prompt_tokens: int | None,
        workers: int,
        decoding: DecodeSettings = ALL_AT_ONCE,
    ) -> None:
        self.processor = loaded.processor
        self.params = place_rows(None, loaded.params) if mesh_of(loaded.params) is None else loaded.params
        mesh = mesh_of(self.params)
        self.model = loaded.module_for(mesh, dtype=dtype, attention=attention)
        self._share = share_of(mesh)
        self._token_step = token_step(self.model.attention, 1 if mesh is None else mesh.shape["sequence"])
        self._max_prompt_tokens = max_prompt_tokens
        self._workers = encoding_workers(self.processor, max_tokens=max_prompt_tokens, count=workers)
        self._sampler = Sampler(self.model, self.processor)
        self._decoding = decoding
        self._logits = jax.jit(self.model.apply)
        self._some_logits = jax.jit(partial(_logits_at, self.model))

    def close(self) -> None:
        """End the workers, if there are any."""
        self._workers.close()

    def logits(self, chat: Chat, *, name: str) -> np.ndarray:
        """Return float32 logits ``[T, V]`` of one chat with generation prompt."""
        encoded = self.encode(chat, name=name)
        nothing = [np.zeros(0, np.int32)]
        bucket, padding = self._bucket([encoded]), padding_of(self.processor)
        batch = collate([encoded], nothing, bucket=bucket, packed=None, input_responses=None, **padding)
        return np.asarray(self._logits({"params": self.params}, batch))[0, : len(encoded.tokens_T)]

    def logits_at(
        self, encoded: Sequence[EncodedChat], replies: Sequence[np.ndarray], places: Sequence[Sequence[int]]
    ) -> list[np.ndarray]:
        """Return float32 ``[K, V]`` for each chat: the logits that predict its reply's tokens at K places."""
        lengths = [length_of(chat, len(reply)) for chat, reply in zip(encoded, replies, strict=True)]
        bucket = self._shapes([need_of(lengths, rows=len(encoded))])[0]
        batch = collate(
            encoded, replies, bucket=bucket, packed=None, input_responses=None, **padding_of(self.processor)
        )
        at_BK = np.zeros((bucket.rows, -(-max(map(len, places)) // 8) * 8), np.int32)  # few widths: few programs
        for row, (chat, wanted) in enumerate(zip(encoded, places)):
            at_BK[row, : len(wanted)] = len(chat.tokens_T) - 1 + np.asarray(wanted, np.int32)
        found_BKV = np.asarray(self._some_logits(self.params, batch, at_BK))
        return [found_BKV[row, : len(wanted)] for row, wanted in enumerate(places)]

    def tokens(self, chat: Chat, *, name: str, sampling: Sampling, max_new_tokens: int, seed: int) -> list[int]:
        """Return the sampled token ids of one chat, the end token included."""
        encoded = self.encode(chat, name=name)
        rollout = self._sampler.sample(
            self.params,
            [encoded],
            [name],
            bucket=self._bucket([encoded]),
            sampling=sampling,
            slots=max_new_tokens,
            seed=seed,
        )
        return rollout.tokens_BU[0][rollout.mask_BU[0]].tolist()

    def ask(
        self,
        queries: Sequence[Query],
        *,
        responses: int = 1,
        sampling: Sampling | Sequence[Sampling],
        max_new_tokens: int | Sequence[int],
        seed: int | Sequence[int],
        batch_size: int = 64,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[tuple[str, ...]]:
        """Return ``responses`` responses to each query; see ``stream``. At most ``batch_size`` are decoded at a time.

        ``progress(done, total)`` is called after each batch, with numbers of queries.
        """
        texts: list[tuple[str, ...]] = []
        settings: dict[str, Any] = {"sampling": sampling, "max_new_tokens": max_new_tokens, "seed": seed}
        for written in self.stream(queries, responses=responses, batch=max(batch_size // responses, 1), **settings):
            texts += written
            if progress is not None:
                progress(len(texts), len(queries))
        return texts

    def stream(
        self,
        queries: Sequence[Query],
        *,
        responses: int,
        sampling: Sampling | Sequence[Sampling],
        max_new_tokens: int | Sequence[int],
        seed: int | Sequence[int],
        batch: int,
        skip: int = 0,
        encoded: Callable[[], None] | None = None,
    ) -> Iterator[list[tuple[str, ...]]]:
        """Yield the responses batch by batch, as one tuple of ``responses`` texts per query.

        A text depends on (seed, query id, number of the response), not on the other queries. It starts with the opening
        that the chat template wrote (``<think>``). ``sampling``, ``max_new_tokens`` and ``seed`` are one value for all
        queries, or one per query. The first ``skip`` batches are encoded, since shapes are planned for all batches, but
        not sampled. ``encoded()`` is called after each query is encoded.

        On a mesh of several processes, ``batch`` counts the queries of all processes. Each process passes its own
        queries and yields the same number of batches; some may be empty.
        """
        if not queries:
            return
        ask = partial(
            self._sampled,
            responses=responses,
            sampling=each_row(sampling, Sampling, len(queries)),
            lengths=each_row(max_new_tokens, int, len(queries)),
            seeds=each_row(seed, int, len(queries)),
        )
        size, count = self._batching(len(queries), batch)
        begun = (self._workers.begin(NamedChat(query.chat, query.id)) for query in queries)
        chats = self._workers.in_order(begun, ahead=size)
        held: list[EncodedChat] = []
        spare: Any = None
        start = first = 0  # numbers of the query and the batch with which ``held`` begins
        for number in range(count):
            for chat in itertools.islice(chats, size):
                held.append(chat)
                if encoded is not None:
                    encoded()
            last = number + 1 == count
            if not last and not self._are_many(held):
                continue
            groups = self._groups(len(held), size, number + 1 - first)
            spare = held[0] if held else spare  # fills the batches of a process without further queries
            rows = [[held[i] if held else spare for i in group] for group, _ in groups]
            shapes = self._shapes([self._need(row) for row in rows], whole=last and not first)
            for (group, real), row, bucket in list(zip(groups, rows, shapes))[max(skip - first, 0) :]:
                asked = [min(start + i, len(queries) - 1) for i in group]
                yield ask(queries, asked, row, bucket=bucket)[:real]
            start, first, held = start + len(held), number + 1, []

    def _sampled(
        self,
        queries: Sequence[Query],
        asked: Sequence[int],
        chats: Sequence[EncodedChat],
        *,
        bucket: Need,
        responses: int,
        sampling: Sequence[Sampling],
        lengths: Sequence[int],
        seeds: Sequence[int],
    ) -> list[tuple[str, ...]]:
        """Return the texts of each of the ``asked`` queries, which form one batch."""
        rows = [number for number in asked for _ in range(responses)]
        texts = self._sampler.sample(
            self.params,
            chats,
            [queries[number].id for number in asked],
            bucket=bucket,
            responses=responses,
            sampling=[sampling[row] for row in rows],
            max_new_tokens=[lengths[row] for row in rows],
            slots=max(lengths),
            seed=[seeds[row] for row in rows],
            decoding=self._decoding,
        ).texts
        return [texts[start : start + responses] for start in range(0, len(texts), responses)]

    def encode(self, chat: Chat, *, name: str) -> EncodedChat:
        """Return the tokens and pictures of a chat with generation prompt."""
        return encode_chat(self.processor, chat, name=name, max_tokens=self._max_prompt_tokens)

    def _need(self, chats: Sequence[EncodedChat]) -> Need:
        return need_of([length_of(chat) for chat in chats], rows=len(chats))

    def _batching(self, queries: int, batch: int) -> tuple[int, int]:
        """Return this process's queries per batch, and the number of batches, which all processes share."""
        share = self._share
        if not share.spans:
            size = min(batch, queries)
            return size, -(-queries // size)
        size = share.step * max(max(processes.gather(batch)) // share.of // share.step, 1)
        return size, -(-max(processes.gather(queries)) // size)

    def _are_many(self, chats: Sequence[EncodedChat]) -> bool:
        """Return whether the encoded pictures of any process exceed ``HELD_BYTES``."""
        full = sum(frame.patches_PC.nbytes for chat in chats for frame in chat.frames) > HELD_BYTES
        return any(processes.gather(full)) if self._share.spans else full

    def _groups(self, chats: int, size: int, count: int) -> list[tuple[list[int], int]]:
        """Split chats into ``count`` batches of indices, padded with the first, and their numbers of real chats."""
        mine = list(batches(chats, size))
        return mine + [([0] * size, 0)] * (count - len(mine))

    def _shapes(self, needs: Sequence[Need], *, whole: bool = True) -> list[Need]:
        """Return the shape of each batch; if they are the whole of a call, at most 8 tight shapes are planned."""
        slot_step, share, token_step = self.processor.config.vision.slot_step, self._share, self._token_step
        if share.spans:
            needs = [largest(of_batch) for of_batch in zip(*processes.gather(needs))]
        elif len(needs) == 1 or not whole:
            found = [roomy(need, slot_step=slot_step) for need in needs]
            return [need._replace(tokens=-(-need.tokens // token_step) * token_step) for need in found]
        frame_step = math.lcm(4, share.step)
        buckets = plan_buckets(needs, slot_step=slot_step, token_step=token_step, frame_step=frame_step)
        return [buckets.fit(need) for need in needs]

    def _bucket(self, chats: Sequence[EncodedChat]) -> Need:
        """Return the shape of a batch of these chats alone: one of few sizes."""
        return self._shapes([self._need(chats)])[0]

"""The one way to ask a judge: chats in, texts out, in few compiled shapes, over all its devices."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from urt_jax.checkpoints.model_folder import LoadedModel
from urt_jax.data.collate import Need, collate, largest, length_of, need_of, plan_buckets, roomy
from urt_jax.data.examples import Chat
from urt_jax.data.loader import batches
from urt_jax.families.processor import NamedChat, encode_chat, encoding_workers, padding_of
from urt_jax.generation.sampler import Sampler, Sampling
from urt_jax.runs import processes
from urt_jax.sharding.placement import mesh_of, place_rows
from urt_jax.sharding.shares import share_of
from urt_jax.types import EncodedChat

HELD_BYTES = 2 << 30  # of encoded pictures that one call keeps before it answers the first of them


@dataclass(frozen=True)
class Query:
    """One response wanted: the chat, the id that names its random stream, and which response of that id it is."""

    id: str
    chat: Chat
    response: int = 0


class Responder:
    """A model in memory that writes responses. Programs are compiled once per shape.

    ``dtype`` and ``attention`` are those of the computation (see ``LoadedModel.module_for``); ``workers`` is the number
    of processes that decode pictures.

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
    ) -> None:
        self.processor = loaded.processor
        self.params = place_rows(None, loaded.params) if mesh_of(loaded.params) is None else loaded.params
        mesh = mesh_of(self.params)
        self.model = loaded.module_for(mesh, dtype=dtype, attention=attention)
        self._share = share_of(mesh)
        self._max_prompt_tokens = max_prompt_tokens
        self._workers = encoding_workers(self.processor, max_tokens=max_prompt_tokens, count=workers)
        self._sampler = Sampler(self.model, self.processor)
        self._logits = jax.jit(self.model.apply)

    def close(self) -> None:
        """End the workers, if there are any."""
        self._workers.close()

    def logits(self, chat: Chat, *, name: str) -> np.ndarray:
        """Return float32 logits ``[T, V]`` of one chat with generation prompt."""
        encoded = self._encode(chat, name=name)
        nothing = [np.zeros(0, np.int32)]
        bucket, padding = self._bucket([encoded]), padding_of(self.processor)
        batch = collate([encoded], nothing, bucket=bucket, packed=None, histories=None, **padding)
        return np.asarray(self._logits({"params": self.params}, batch))[0, : len(encoded.tokens_T)]

    def tokens(self, chat: Chat, *, name: str, sampling: Sampling, seed: int) -> list[int]:
        """Return the sampled token ids of one chat, the end token included."""
        encoded = self._encode(chat, name=name)
        rollout = self._sampler.sample(
            self.params,
            [encoded],
            [name],
            bucket=self._bucket([encoded]),
            sampling=sampling,
            slots=sampling.max_new_tokens,
            seed=seed,
        )
        return rollout.tokens_BU[0][rollout.mask_BU[0]].tolist()

    def ask(
        self,
        queries: Sequence[Query],
        *,
        sampling: Sampling,
        seed: int,
        batch_size: int = 64,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[str]:
        """Write one text per query; a text depends on (seed, query id, response number), not on its neighbours.

        It starts with what the chat template wrote of the reply already (``<think>``). Where the model lies on a mesh
        of several processes, all must call, each with queries of its own.
        """
        if not queries:
            return []
        size = min(batch_size, len(queries))
        texts: list[str] = []
        for chats in self._encoded(queries, size):
            mine = queries[len(texts) : len(texts) + len(chats)]
            groups = self._batches(len(mine), size)
            needs = [self._need([chats[i] for i in group]) for group, _ in groups]
            shapes = self._shapes(needs, whole=len(mine) == len(queries))
            for (group, real), bucket in zip(groups, shapes):
                rollout = self._sampler.sample(
                    self.params,
                    [chats[i] for i in group],
                    [mine[i].id for i in group],
                    bucket=bucket,
                    response_index=[mine[i].response for i in group],
                    sampling=sampling,
                    slots=sampling.max_new_tokens,
                    seed=seed,
                )
                texts += rollout.texts[:real]
                if progress is not None:
                    progress(len(texts), len(queries))
        return texts

    def _encoded(self, queries: Sequence[Query], size: int) -> Iterator[list[EncodedChat]]:
        """Yield all chats, or those of some batches of ``size`` where the pictures of all would fill the memory."""
        begun = (self._workers.begin(NamedChat(query.chat, query.id)) for query in queries)
        chats: list[EncodedChat] = []
        held = 0
        for chat in self._workers.in_order(begun, ahead=size):
            # Processes whose devices work together must have equally many batches, and have them all at once.
            if held > HELD_BYTES and len(chats) % size == 0 and not self._share.spans:
                yield chats
                chats, held = [], 0
            chats.append(chat)
            held += sum(frame.patches_PC.nbytes for frame in chat.frames)
        yield chats

    def _encode(self, chat: Chat, *, name: str) -> EncodedChat:
        return encode_chat(self.processor, chat, name=name, max_tokens=self._max_prompt_tokens)

    def _need(self, chats: Sequence[EncodedChat]) -> Need:
        return need_of([length_of(chat) for chat in chats], rows=len(chats))

    def _batches(self, queries: int, size: int) -> list[tuple[list[int], int]]:
        """Deal queries out to batches, filled up with the first; of several processes all have equally many."""
        share = self._share
        if not share.spans:
            return list(batches(queries, size))
        most = max(processes.gather(queries))
        size = share.step * max(max(processes.gather(size)) // share.of // share.step, 1)
        mine = list(batches(queries, size))
        return mine + [([0] * size, 0)] * (-(-most // size) - len(mine))

    def _shapes(self, needs: Sequence[Need], *, whole: bool = True) -> list[Need]:
        """Return the shape of each batch of a call; for the whole of many batches at most 8 tight ones are planned."""
        slot_step, share = self.processor.config.vision.slot_step, self._share
        if share.spans:
            needs = [largest(of_batch) for of_batch in zip(*processes.gather(needs))]
        elif len(needs) == 1 or not whole:
            return [roomy(need, slot_step=slot_step) for need in needs]
        buckets = plan_buckets(needs, slot_step=slot_step, frame_step=math.lcm(4, share.step))
        return [buckets.fit(need) for need in needs]

    def _bucket(self, chats: Sequence[EncodedChat]) -> Need:
        """Return the shape for chats of a call of their own: one of few sizes, whatever else was asked before."""
        return self._shapes([self._need(chats)])[0]

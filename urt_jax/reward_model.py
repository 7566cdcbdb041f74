"""The Python API: load a judge, compare two candidates, rank several, look at its logits."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from urt_jax.checkpoints.model_folder import LoadedModel, load_model
from urt_jax.data.collate import Need, collate, largest, length_of, need_of, plan_buckets, roomy
from urt_jax.data.comparisons import as_examples, listed_candidates, make_chat, make_pair, pair_of, picked
from urt_jax.data.examples import DEFAULT_FRAMES, Chat, Example, FramePicking
from urt_jax.data.loader import batches
from urt_jax.data.prompts import DEFAULT_TEMPLATE, find_template, render
from urt_jax.families.processor import NamedChat, encode_chat, encoding_workers, padding_of
from urt_jax.generation.call_settings import check_call
from urt_jax.generation.sampler import Sampler, Sampling
from urt_jax.generation.stored_settings import stored_new_tokens
from urt_jax.rewards.parse import Verdict, parse
from urt_jax.rewards.votes import majority, mirrored
from urt_jax.runs import processes
from urt_jax.sharding.mesh import make_mesh
from urt_jax.sharding.placement import mesh_of, place_rows
from urt_jax.sharding.shares import share_of
from urt_jax.types import EncodedChat

Order = Literal["given", "both"]
HELD_BYTES = 2 << 30  # of encoded pictures that one call keeps before it answers the first of them


@dataclass(frozen=True)
class Ranking:
    """Candidates from best to worst (0-based), and each one's share of won comparisons, in input order."""

    order: tuple[int, ...]
    win_rate: tuple[float, ...]
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Query:
    """One response wanted: the chat, the id that names its random stream, and which response of that id it is."""

    id: str
    chat: Chat
    response: int = 0


class RewardModel:
    """A judge in memory, which asks in the wording of ``prompt_template``. Programs are compiled once per shape.

    Use ``RewardModel.load``; a stage that has a model already uses the constructor.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        dtype: Any = jnp.float32,
        max_prompt_tokens: int | None = None,
        prompt_template: str | Path = DEFAULT_TEMPLATE,
        workers: int = 0,
        max_frames: int | None = DEFAULT_FRAMES,
        fps: float | None = None,
    ):
        check_call(
            "RewardModel", dtype=dtype, max_prompt_tokens=max_prompt_tokens, workers=workers, max_frames=max_frames,
            fps=fps,
        )  # fmt: skip
        find_template(prompt_template)
        self.prompt_template = str(prompt_template)
        self.loaded = loaded
        self.processor = loaded.processor
        self.model = loaded.module(dtype=dtype)
        self.params = place_rows(None, loaded.params) if mesh_of(loaded.params) is None else loaded.params
        self._share = share_of(mesh_of(self.params))
        self._max_prompt_tokens = max_prompt_tokens
        self._workers = encoding_workers(self.processor, max_tokens=max_prompt_tokens, count=workers)
        self._sampler = Sampler(self.model, self.processor)
        self._logits = jax.jit(self.model.apply)
        self._picking = FramePicking(max_frames, fps)
        self.max_new_tokens = stored_new_tokens(loaded.folder)

    @classmethod
    def load(
        cls,
        name: str,
        *,
        revision: str | None = None,
        dtype: Any = jnp.float32,
        max_prompt_tokens: int | None = None,
        prompt_template: str | Path = DEFAULT_TEMPLATE,
        mesh: Mesh | None = None,
        workers: int = 0,
        max_frames: int | None = DEFAULT_FRAMES,
        fps: float | None = None,
    ) -> "RewardModel":
        """Load a shipped model ("urt-tiny"), a run folder, a folder in the published layout, or "org/name" of the hub.

        Args:
            revision: branch, tag or commit of a hub model; None is its main branch.
            prompt_template: wording of the questions: "v1" (one line per dimension), "v2" (a block per dimension), a
                file with the wording, or a folder with one ``<task>.txt`` a task. A published checkpoint expects the
                wording it was trained on.
            mesh: devices to spread the weights and the rows of a batch over (``sharding.mesh.make_mesh``); None is the
                first device.
            workers: processes that decode pictures and clips while the device answers; 0: this one does, before it.
            max_frames: kept of a clip that is judged: the first, the last and others evenly between; None is all.
            fps: kept frames a second, of which ``max_frames`` are kept then; None is no rate.

        Raises:
            BadInputError: as ``load_model``; no such prompt template; a setting that means nothing.
        """
        check_call(
            "load", name=name, revision=revision, dtype=dtype, max_prompt_tokens=max_prompt_tokens, workers=workers,
            max_frames=max_frames, fps=fps,
        )  # fmt: skip
        find_template(prompt_template)  # before anything is fetched
        mesh = make_mesh(devices=jax.local_devices()[:1]) if mesh is None else mesh
        loaded = load_model(str(name), revision=revision, dtype=np.dtype(dtype), mesh=mesh)
        return cls(
            loaded, dtype=dtype, max_prompt_tokens=max_prompt_tokens, prompt_template=prompt_template, workers=workers,
            max_frames=max_frames, fps=fps,
        )  # fmt: skip

    def close(self) -> None:
        """End the workers, if there are any."""
        self._workers.close()

    def logits(
        self, *, messages: list[dict[str, Any]], images: Sequence[Any] = (), videos: Sequence[Any] = ()
    ) -> np.ndarray:
        """Return float32 logits ``[T, V]`` of one chat with generation prompt; V counts embedding rows.

        Media are consumed in order of appearance; a video is ``uint8 [frames, H, W, 3]`` (or ``Media`` with its fps)
        and is not resampled in time.
        """
        chat = self._encode(make_chat(messages, images, videos), name="messages")
        bucket = self._bucket([chat])
        nothing = [np.zeros(0, np.int32)]
        batch = collate([chat], nothing, bucket=bucket, packed=None, histories=None, **padding_of(self.processor))
        return np.asarray(self._logits({"params": self.params}, batch))[0, : len(chat.tokens_T)]

    def generate(
        self,
        *,
        messages: list[dict[str, Any]],
        images: Sequence[Any] = (),
        videos: Sequence[Any] = (),
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[int]:
        """Return the sampled token ids of one chat, the end token included; temperature 0 is greedy."""
        check_call("generate", max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        chat = self._encode(make_chat(messages, images, videos), name="messages")
        samples = self._sampler.sample(
            self.params,
            [chat],
            ["messages"],
            bucket=self._bucket([chat]),
            sampling=Sampling(max_new_tokens, temperature),
            slots=max_new_tokens,
            seed=seed,
        )
        return samples.tokens_BU[0][samples.mask_BU[0]].tolist()

    def respond(
        self,
        queries: Sequence[Query],
        *,
        temperature: float,
        seed: int,
        max_new_tokens: int | None = None,
        batch_size: int = 64,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[str]:
        """Write one text per query; a text depends on (seed, query id, response number), not on its neighbours.

        It starts with what the chat template wrote of the reply already (``<think>``). Where the judge lies on a mesh
        of several processes, all must call, each with queries of its own.
        """
        check_call(
            "respond", temperature=temperature, seed=seed, max_new_tokens=max_new_tokens, batch_size=batch_size,
            progress=progress,
        )  # fmt: skip
        if not queries:
            return []
        slots, size = max_new_tokens or self.max_new_tokens, min(batch_size, len(queries))
        texts: list[str] = []
        for chats in self._encoded(queries, size):
            mine = queries[len(texts) : len(texts) + len(chats)]
            groups = self._batches(len(mine), size)
            needs = [self._need([chats[i] for i in group]) for group, _ in groups]
            shapes = self._shapes(needs, whole=len(mine) == len(queries))
            for (group, real), bucket in zip(groups, shapes):
                samples = self._sampler.sample(
                    self.params,
                    [chats[i] for i in group],
                    [mine[i].id for i in group],
                    bucket=bucket,
                    response_index=[mine[i].response for i in group],
                    sampling=Sampling(slots, temperature),
                    slots=slots,
                    seed=seed,
                )
                texts += samples.texts[:real]
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

    def compare(
        self,
        *,
        caption: str | None = None,
        question: str | None = None,
        images: Sequence[Any] | None = None,
        videos: Sequence[Any] | None = None,
        answers: Sequence[str] | None = None,
        context: Any = None,
        order: Order = "given",
        votes: int = 1,
        think: bool = True,
        temperature: float = 0.0,
        seed: int = 0,
        max_new_tokens: int | None = None,
        max_frames: int | None = None,
        fps: float | None = None,
    ) -> Verdict:
        """Judge two pictures or clips of a caption, or two answers to a question about ``context``.

        ``max_frames`` and ``fps`` say which frames of clips are kept; None: what ``load`` was told. With
        ``order="both"`` the pair is judged in both orders, with ``votes`` that many times in each (needs a
        temperature); the majority wins, an even split has winner ``None`` and says so in ``failure``.

        Raises:
            BadInputError: arguments that name no task, or another number of candidates than two.
        """
        check_call("compare", caption=caption, question=question)
        example = make_pair(
            caption=caption, question=question, images=images, videos=videos, answers=answers, context=context
        )
        return self.compare_many(
            [example], order=order, votes=votes, think=think, temperature=temperature, seed=seed,
            max_new_tokens=max_new_tokens, max_frames=max_frames, fps=fps,
        )[0]  # fmt: skip

    def compare_many(
        self,
        examples: Sequence[Example],
        *,
        order: Order = "given",
        votes: int = 1,
        think: bool = True,
        temperature: float = 0.0,
        seed: int = 0,
        max_new_tokens: int | None = None,
        batch_size: int = 64,
        max_frames: int | None = None,
        fps: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Verdict]:
        """Judge many pairs; see ``compare``. Verdicts are in the order in which each pair was given.

        A clip (``Media``) with a ``picking`` of its own keeps it.
        """
        check_call(
            "compare_many", order=order, votes=votes, think=think, temperature=temperature, seed=seed,
            max_new_tokens=max_new_tokens, batch_size=batch_size, max_frames=max_frames, fps=fps, progress=progress,
        )  # fmt: skip
        kept = self._picking
        kept = FramePicking(max_frames or kept.max_frames, kept.fps if fps is None else fps)
        examples = [picked(example, kept) for example in as_examples(examples)]
        shown = [(e, False) for e in examples] + ([(e.swapped(), True) for e in examples] if order == "both" else [])
        queries = [
            Query(f"{example.id}#swapped" if swapped else example.id, chat, vote)
            for example, swapped in shown
            for chat in [render(example, think=think, template=self.prompt_template)]
            for vote in range(votes)
        ]
        texts = self.respond(
            queries,
            temperature=temperature,
            seed=seed,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            progress=progress,
        )
        nouns = [example.noun for example, _ in shown for _ in range(votes)]
        verdicts = [parse(text, think=think, noun=noun) for text, noun in zip(texts, nouns)]
        given = len(examples) * votes
        merged = []
        for i in range(len(examples)):
            mine = verdicts[i * votes : (i + 1) * votes]
            other = [mirrored(v) for v in verdicts[given:][i * votes : (i + 1) * votes]]
            merged.append(majority([*mine, *other]))
        return merged

    def rank(
        self,
        *,
        candidates: Sequence[Any],
        caption: str | None = None,
        question: str | None = None,
        context: Any = None,
        order: Order = "both",
        think: bool = True,
        temperature: float = 0.0,
        seed: int = 0,
        max_new_tokens: int | None = None,
        batch_size: int = 64,
        max_frames: int | None = None,
        fps: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Ranking:
        """Judge all pairs and rank by win rate; a judgement that does not parse is half a win for each side.

        Each presentation order counts as one judgement, so ``win_rate`` is wins over judgements taken part in.
        """
        check_call("rank", order=order, caption=caption, question=question)
        candidates = listed_candidates(candidates)
        pairs = list(itertools.combinations(range(len(candidates)), 2))
        examples = [pair_of(candidates[a], candidates[b], caption, question, context, f"{a}-{b}") for a, b in pairs]
        settings: dict[str, Any] = {
            "think": think, "temperature": temperature, "seed": seed, "max_new_tokens": max_new_tokens,
            "batch_size": batch_size, "max_frames": max_frames, "fps": fps, "progress": progress,
        }  # fmt: skip
        shown = examples + ([e.swapped() for e in examples] if order == "both" else [])
        verdicts = self.compare_many(shown, **settings)
        straight, turned = verdicts[: len(pairs)], [mirrored(v) for v in verdicts[len(pairs) :]]
        wins, games = np.zeros(len(candidates)), np.zeros(len(candidates))
        for (a, b), verdict in zip(pairs * (2 if order == "both" else 1), [*straight, *turned]):
            share = {1: 1.0, 2: 0.0}.get(verdict.winner, 0.5)  # type: ignore[arg-type]
            wins[a] += share
            wins[b] += 1.0 - share
            games[[a, b]] += 1
        rate = wins / games
        return Ranking(
            order=tuple(int(i) for i in np.argsort(-rate, kind="stable")),
            win_rate=tuple(float(r) for r in rate),
            verdicts=tuple(straight + turned),
        )

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

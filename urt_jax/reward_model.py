"""The Python API: load a judge, compare two candidates, rank several, look at its logits."""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from urt_jax.checkpoints.model_folder import LoadedModel, load_model
from urt_jax.data.collate import Need, collate, length_of, need_of, plan_buckets
from urt_jax.data.examples import BadInputError, Chat, Example, Media, Task
from urt_jax.data.loader import batches
from urt_jax.data.prompts import render
from urt_jax.families.processor import encode_chat
from urt_jax.generation.sampler import Sampler, Sampling, on_device, padding_of
from urt_jax.rewards.parse import Verdict, parse
from urt_jax.types import EncodedChat

Order = Literal["given", "both"]
DEFAULT_NEW_TOKENS = 1024  # where the model folder's generation_config.json names no max_new_tokens


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
    """A judge in memory. Programs are compiled at first use, one per shape.

    Use ``RewardModel.load``; a stage that has a model already uses the constructor.
    """

    def __init__(self, loaded: LoadedModel, *, dtype: Any = jnp.float32, max_prompt_tokens: int | None = None):
        self.loaded = loaded
        self.processor = loaded.processor
        self.model = loaded.module(dtype=dtype)
        self.params = on_device(loaded.params)
        self._max_prompt_tokens = max_prompt_tokens
        self._sampler = Sampler(self.model, self.processor)
        self._logits = jax.jit(self.model.apply)
        settings = loaded.folder / "generation_config.json"
        stored = json.loads(settings.read_text()) if settings.is_file() else {}
        self.max_new_tokens = int(stored.get("max_new_tokens", DEFAULT_NEW_TOKENS))

    @classmethod
    def load(cls, name: str, *, dtype: Any = jnp.float32, max_prompt_tokens: int | None = None) -> "RewardModel":
        """Load a shipped model ("urt-tiny"), a run folder, or a folder in the published layout.

        Raises:
            BadInputError: as ``load_model``.
        """
        return cls(load_model(name, dtype=np.dtype(dtype)), dtype=dtype, max_prompt_tokens=max_prompt_tokens)

    def logits(
        self, *, messages: list[dict[str, Any]], images: Sequence[Any] = (), videos: Sequence[Any] = ()
    ) -> np.ndarray:
        """Return float32 logits ``[T, V]`` of one chat with generation prompt; V counts embedding rows.

        Media are consumed in order of appearance; a video is ``uint8 [frames, H, W, 3]`` (or ``Media`` with its fps)
        and is not resampled in time.
        """
        chat = self._encode(_chat(messages, images, videos), name="messages")
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
        chat = self._encode(_chat(messages, images, videos), name="messages")
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
        """Write one text per query; a text depends on (seed, query id, response number), not on its neighbours."""
        if not queries:
            return []
        chats = [self._encode(query.chat, name=query.id) for query in queries]
        size = min(batch_size, len(queries))
        groups = list(batches(len(queries), size))
        window = self.processor.config.vision.window_slots
        buckets = plan_buckets([self._need([chats[i] for i in group]) for group, _ in groups], window_slots=window)
        slots = max_new_tokens or self.max_new_tokens
        texts: list[str] = []
        for group, real in groups:
            samples = self._sampler.sample(
                self.params,
                [chats[i] for i in group],
                [queries[i].id for i in group],
                bucket=buckets.fit(self._need([chats[i] for i in group])),
                response_index=[queries[i].response for i in group],
                sampling=Sampling(slots, temperature),
                slots=slots,
                seed=seed,
            )
            texts += samples.texts[:real]
            if progress is not None:
                progress(len(texts), len(queries))
        return texts

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
    ) -> Verdict:
        """Judge two pictures or clips of a caption, or two answers to a question about ``context``.

        With ``order="both"`` the pair is judged in both orders, with ``votes`` that many times in each (needs a
        temperature); the majority wins, an even split has winner ``None`` and says so in ``failure``.

        Raises:
            BadInputError: arguments that name no task, or another number of candidates than two.
        """
        example = make_pair(
            caption=caption, question=question, images=images, videos=videos, answers=answers, context=context
        )
        settings = {"order": order, "votes": votes, "think": think, "temperature": temperature, "seed": seed}
        return self.compare_many([example], max_new_tokens=max_new_tokens, **settings)[0]  # type: ignore[arg-type]

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
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Verdict]:
        """Judge many pairs; see ``compare``. Verdicts are in the order in which each pair was given."""
        if votes < 1 or (votes > 1 and temperature == 0):
            raise BadInputError(
                f"votes={votes} at temperature {temperature}: give votes >= 1, and a temperature to vote"
            )
        shown = [(e, False) for e in examples] + ([(e.swapped(), True) for e in examples] if order == "both" else [])
        queries = [
            Query(f"{example.id}#swapped" if swapped else example.id, render(example, think=think), vote)
            for example, swapped in shown
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
        verdicts = [parse(text, think=think) for text in texts]
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
        progress: Callable[[int, int], None] | None = None,
    ) -> Ranking:
        """Judge all pairs and rank by win rate; a judgement that does not parse is half a win for each side.

        Each presentation order counts as one judgement, so ``win_rate`` is wins over judgements taken part in.
        """
        pairs = list(itertools.combinations(range(len(candidates)), 2))
        if not pairs:
            raise BadInputError(f"rank needs at least two candidates, got {len(candidates)}")
        examples = [_pair_of(candidates[a], candidates[b], caption, question, context, f"{a}-{b}") for a, b in pairs]
        settings: dict[str, Any] = {
            "think": think, "temperature": temperature, "seed": seed, "max_new_tokens": max_new_tokens,
            "batch_size": batch_size, "progress": progress,
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

    def _bucket(self, chats: Sequence[EncodedChat], *, token_step: int = 32) -> Need:
        need = self._need(chats)
        window = self.processor.config.vision.window_slots
        return plan_buckets([need], window_slots=window, token_step=token_step).fit(need)


def make_pair(
    *,
    caption: str | None,
    question: str | None,
    images: Sequence[Any] | None,
    videos: Sequence[Any] | None,
    answers: Sequence[str] | None,
    context: Any = None,
) -> Example:
    """Build the record of one comparison from the arguments of ``RewardModel.compare``.

    Raises:
        BadInputError: arguments that name no task, or another number of candidates than two.
    """
    given = {
        name: value
        for name, value in (("images", images), ("videos", videos), ("answers", answers))
        if value is not None
    }
    needed = "give caption= with two images= or videos=, or question= with two answers= and context= (picture or clip)"
    if len(given) != 1:
        raise BadInputError(f"candidates were given as {', '.join(given) or 'nothing'}; {needed}")
    kind, candidates = next(iter(given.items()))
    if len(candidates) != 2:
        raise BadInputError(f"{kind} holds {len(candidates)} candidates; compare takes 2, rank takes any number")
    text = question if kind == "answers" else caption
    if text is None or (kind == "answers") != (context is not None):
        raise BadInputError(
            f"{kind} came with caption={caption!r}, question={question!r}, context={context!r}; {needed}"
        )
    return _pair_of(candidates[0], candidates[1], caption, question, context, "pair", video=kind == "videos")


def mirrored(verdict: Verdict) -> Verdict:
    """Return a verdict on the swapped pair as a verdict on the pair in its given order."""
    return Verdict(
        winner={1: 2, 2: 1}.get(verdict.winner, verdict.winner) if isinstance(verdict.winner, int) else verdict.winner,
        scores={name: (b, a) for name, (a, b) in verdict.scores.items()},
        totals=None if verdict.totals is None else (verdict.totals[1], verdict.totals[0]),
        margin=None if verdict.margin is None else -verdict.margin,
        reasoning=verdict.reasoning,
        text=verdict.text,
        failure=verdict.failure,
    )


def majority(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the first verdict of the winning side with the mean margin of all; an even split decides nothing.

    Verdicts that did not parse have no vote; ties decide only where no verdict names a side.
    """
    if len(verdicts) == 1:
        return verdicts[0]
    votes = {winner: sum(v.winner == winner for v in verdicts) for winner in (1, 2)}
    margins = [v.margin for v in verdicts if v.margin is not None]
    margin = float(np.mean(margins)) if margins else None
    tied = next((v for v in verdicts if v.winner == "tie"), None)
    if not votes[1] and not votes[2] and tied is not None:
        return replace(tied, margin=margin)
    if votes[1] == votes[2]:
        first = verdicts[0]
        reason = first.failure if votes[1] == 0 else f"split vote: {votes[1]} for each side"
        return Verdict(
            None, first.scores, first.totals, margin, first.reasoning, first.text, reason or "no vote parsed"
        )
    winner = 1 if votes[1] > votes[2] else 2
    leading = next(v for v in verdicts if v.winner == winner)
    return Verdict(winner, leading.scores, leading.totals, margin, leading.reasoning, leading.text, None)


def _pair_of(
    first: Any, second: Any, caption: str | None, question: str | None, context: Any, name: str, *, video: bool = False
) -> Example:
    if isinstance(first, str) and isinstance(second, str) and context is not None:
        shown = _media(context, video=None)
        task: Task = "video_und" if shown.kind == "video" else "image_und"
        return Example(id=name, task=task, prompt=question or "", context=(shown,), candidates=(first, second))
    media = (_media(first, video=video or None), _media(second, video=video or None))
    task = "video_gen" if media[0].kind == "video" else "image_gen"
    return Example(id=name, task=task, prompt=caption or "", candidates=media)


def _media(item: Any, *, video: bool | None) -> Media:
    """Take a medium as it is; an array with four axes or a list of frames is a clip, everything else a picture."""
    if isinstance(item, Media):
        return item
    clip = video if video is not None else isinstance(item, (list, tuple)) or getattr(item, "ndim", 3) == 4
    return Media("video" if clip else "image", item)


def _chat(messages: list[dict[str, Any]], images: Sequence[Any], videos: Sequence[Any]) -> Chat:
    return Chat(
        messages,
        tuple(_media(image, video=False) for image in images),
        tuple(_media(video, video=True) for video in videos),
    )

"""The Python API: load a judge, compare two candidates, rank several, return logits."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from urt_jax.checkpoints.model_folder import LoadedModel, load_model
from urt_jax.data.comparisons import (
    as_examples,
    listed_candidates,
    make_chat,
    make_pair,
    make_single,
    pair_of,
    picked,
)
from urt_jax.data.examples import DEFAULT_FRAMES, Example, FramePicking, Query
from urt_jax.data.prompts import render
from urt_jax.generation.sampling import Sampling
from urt_jax.generation.stored_settings import stored_new_tokens
from urt_jax.judge.call_settings import check_call
from urt_jax.judge.ranking import Ranking, ranking_of
from urt_jax.judge.responder import Responder
from urt_jax.judge.scoring import Score, score_examples
from urt_jax.rewards.votes import majority, mirrored
from urt_jax.runs.compile_cache import keep_programs
from urt_jax.sharding.mesh import compute_dtype, make_mesh
from urt_jax.tasks import Verdict, read_reply
from urt_jax.tasks.wording import DEFAULT_TEMPLATE, find_template

Order = Literal["given", "both"]


class RewardModel:
    """A loaded judge, which words questions by ``prompt_template``. Programs are compiled once per shape.

    Use ``RewardModel.load``; a stage that has a model already uses the constructor.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        dtype: Any = "auto",
        attention: str = "auto",
        max_prompt_tokens: int | None = None,
        prompt_template: str | Path = DEFAULT_TEMPLATE,
        workers: int = 0,
        max_frames: int | None = DEFAULT_FRAMES,
        fps: float | None = None,
    ):
        check_call(
            "RewardModel", dtype=dtype, attention=attention, max_prompt_tokens=max_prompt_tokens, workers=workers,
            max_frames=max_frames, fps=fps,
        )  # fmt: skip
        find_template(prompt_template)
        self.prompt_template = str(prompt_template)
        self.loaded = loaded
        self.responder = Responder(
            loaded, dtype=dtype, attention=attention, max_prompt_tokens=max_prompt_tokens, workers=workers
        )
        self.processor, self.params = self.responder.processor, self.responder.params
        self._picking = FramePicking(max_frames, fps)
        self.max_new_tokens = stored_new_tokens(loaded.folder)

    @classmethod
    def load(
        cls,
        name: str,
        *,
        revision: str | None = None,
        dtype: Any = "auto",
        attention: str = "auto",
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
            prompt_template: template of the questions: "v1" (one line per dimension), "v2" (a block per dimension), a
                template file, or a folder with one ``<task>.txt`` per task. A published checkpoint expects the
                template that it was trained on.
            dtype: of weights and computation: "float32", "bfloat16", "float16", or "auto", which is bfloat16 on devices
                that are fast at it and float32 on others.
            attention: "xla" (any device), "splash" (TPU), "cudnn" (GPU, bfloat16), or "auto", the best for this device.
            mesh: devices over which the weights and the rows of a batch are split (``sharding.mesh.make_mesh``); None
                is the first device.
            workers: processes that decode pictures and clips while the device samples; 0: this process decodes them
                before it samples.
            max_frames: most frames kept of a clip: the first, the last and others evenly between them; None is all.
            fps: frames kept per second, of which at most ``max_frames`` are kept; None is every frame.

        Compiled programs are cached on disk for later processes, unless ``JAX_COMPILATION_CACHE_DIR`` or jax's config
        sets another cache or none.

        Raises:
            BadInputError: as ``load_model``; the prompt template does not exist; a setting is invalid; or this device
                or dtype cannot run the attention.
        """
        check_call(
            "load", name=name, revision=revision, dtype=dtype, attention=attention, workers=workers,
            max_prompt_tokens=max_prompt_tokens, max_frames=max_frames, fps=fps,
        )  # fmt: skip
        find_template(prompt_template)  # before anything is downloaded
        keep_programs()
        mesh = make_mesh(devices=jax.local_devices()[:1]) if mesh is None else mesh
        loaded = load_model(str(name), revision=revision, dtype=compute_dtype(dtype), mesh=mesh)
        return cls(
            loaded, dtype=dtype, attention=attention, max_prompt_tokens=max_prompt_tokens, workers=workers,
            prompt_template=prompt_template, max_frames=max_frames, fps=fps,
        )  # fmt: skip

    def close(self) -> None:
        """End the workers, if there are any."""
        self.responder.close()

    def logits(
        self, *, messages: list[dict[str, Any]], images: Sequence[Any] = (), videos: Sequence[Any] = ()
    ) -> np.ndarray:
        """Return float32 logits ``[T, V]`` of one chat with generation prompt; V counts embedding rows.

        Media are consumed in order of appearance; a video is ``uint8 [frames, H, W, 3]`` (or ``Media`` with its fps)
        and is not resampled in time.
        """
        return self.responder.logits(make_chat(messages, images, videos), name="messages")

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
        return self.responder.tokens(
            make_chat(messages, images, videos), name="messages", sampling=Sampling(temperature),
            max_new_tokens=max_new_tokens, seed=seed,
        )  # fmt: skip

    def respond(
        self,
        queries: Sequence[Query],
        *,
        responses: int = 1,
        temperature: float,
        seed: int,
        max_new_tokens: int | None = None,
        batch_size: int = 64,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[tuple[str, ...]]:
        """Return ``responses`` responses to each query; see ``Responder.ask``.

        ``max_new_tokens`` None is the checkpoint's own limit.
        """
        check_call(
            "respond", temperature=temperature, seed=seed, max_new_tokens=max_new_tokens, batch_size=batch_size,
            progress=progress, votes=responses,
        )  # fmt: skip
        return self.responder.ask(
            queries, responses=responses, sampling=Sampling(temperature), seed=seed, batch_size=batch_size,
            max_new_tokens=max_new_tokens or self.max_new_tokens, progress=progress,
        )  # fmt: skip

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

        ``max_frames`` and ``fps`` set which frames of clips are kept; None: the settings of ``load``. With
        ``order="both"`` the pair is judged in both presentation orders; ``votes`` is the number of samples in each
        order (more than one needs a temperature). The verdict of the votes: see ``rewards.votes.majority``.

        Raises:
            BadInputError: the arguments fit no task, or the number of candidates is not two.
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
        """Judge many pairs; see ``compare``. Each verdict is mirrored back to its pair's given order.

        A clip (``Media``) keeps its own ``picking`` if it has one.
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
            Query(
                f"{example.id}#swapped" if swapped else example.id,
                render(example, think=think, template=self.prompt_template),
            )
            for example, swapped in shown
        ]
        texts = self.respond(
            queries,
            responses=votes,
            temperature=temperature,
            seed=seed,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            progress=progress,
        )
        found = [
            [read_reply(text, task=example.task, think=think) for text in written]
            for (example, _), written in zip(shown, texts)
        ]
        given, turned = found[: len(examples)], found[len(examples) :] or [[]] * len(examples)
        return [majority([*own, *map(mirrored, other)]) for own, other in zip(given, turned)]

    def score(
        self,
        *,
        caption: str | None = None,
        question: str | None = None,
        image: Any = None,
        video: Any = None,
        answer: str | None = None,
        context: Any = None,
        think: bool = True,
        max_new_tokens: int | None = None,
    ) -> Score:
        """Score one picture or clip made for a caption, or one answer to a question about ``context``, greedily.

        The axes are those of UnifiedReward 2.0, from 1 to 5 each. ``think`` asks for reasoning before the scores.

        Raises:
            BadInputError: the arguments fit no task.
        """
        example = make_single(
            caption=caption, question=question, image=image, video=video, answer=answer, context=context
        )
        return self.score_many([example], think=think, max_new_tokens=max_new_tokens)[0]

    def score_many(
        self,
        examples: Sequence[Example],
        *,
        think: bool = True,
        max_new_tokens: int | None = None,
        batch_size: int = 64,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Score]:
        """Score many single candidates; see ``score``. A clip keeps its own ``picking`` if it has one.

        Raises:
            BadInputError: a record's task does not score one candidate.
        """
        check_call("score_many", think=think, max_new_tokens=max_new_tokens, batch_size=batch_size, progress=progress)
        examples = [picked(example, self._picking) for example in as_examples(examples)]
        chats = [render(example, think=think, template=self.prompt_template) for example in examples]
        settings: dict[str, Any] = {"temperature": 0.0, "seed": 0, "progress": progress}
        settings |= {"max_new_tokens": max_new_tokens, "batch_size": batch_size}
        return score_examples(
            self.responder, examples, chats, partial(self.respond, **settings), think=think, batch_size=batch_size
        )

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
        """Judge all pairs and rank by win rate; a tie, or a judgement that does not parse, is half a win for each side.

        Each presentation order is one judgement; ``win_rate`` is a candidate's wins over its number of judgements.
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
        asked = pairs * (2 if order == "both" else 1)
        return ranking_of(asked, [*straight, *turned], candidates=len(candidates))

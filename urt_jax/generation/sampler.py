"""The host side of sampling: encoded chats in, token ids out, in a bounded number of compiled programs."""

import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from urt_jax.data.collate import Need, collate_prompts
from urt_jax.families.processor import Processor, padding_of
from urt_jax.generation.lanes import cores, make_plan
from urt_jax.generation.loop import advance, completions_of, prefill, row_keys, start, token_draws
from urt_jax.generation.schedule import Schedule
from urt_jax.generation.state import Asked, Completions, DecodeState, SamplingSettings, Vocabulary
from urt_jax.generation.stops import StopTable, no_stops, stop_table
from urt_jax.models.vlm import VisionLanguageModel
from urt_jax.sharding.activations import compiled_ahead, with_mesh
from urt_jax.sharding.placement import for_sampling, mesh_of, own_rows, place_rows, rows_everywhere
from urt_jax.sharding.shares import share_of, shown_by_all
from urt_jax.types import Batch, EncodedChat, Rollout, VisionFeatures

STREAMED_EVERY = 16  # tokens after which finished responses are told of


@dataclass(frozen=True)
class Sampling:
    """Host-side sampling settings; neutral by default. ``max_new_tokens`` counts the end token."""

    max_new_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()  # texts that end a response, kept in it; none by default
    at_once: int | None = None  # responses decoded at a time, the others wait for free rows; None: see ``make_plan``
    gather_weights: bool = True  # once before decoding, see ``placement.for_sampling``


class Finished(NamedTuple):
    """Responses that have ended while others run."""

    rows: np.ndarray  # numbers of the responses, question-major
    texts: tuple[str, ...]


class Sampler:
    """Owns the compiled sampling programs of one model; parameters are given at each call.

    Rows are split over the mesh that the parameters lie on, also along its ``sequence`` where they divide; where it
    spans several processes each asks and gets its own questions, as many as the others, in the same shapes. Programs
    differ by bucket, number of questions, responses and slots only: every setting is traced. ``shapes`` holds the
    shapes compiled so far.
    """

    def __init__(self, model: VisionLanguageModel, processor: Processor):
        self.model, self.processor = model, processor
        self.vocabulary = make_vocabulary(processor)
        self.shapes: set[tuple[Need, int, int, int | None]] = set()
        self._prefill = jax.jit(partial(prefill, model), static_argnames="penalised")
        self._begin = jax.jit(self._first, static_argnames=("plan", "questions", "slots"))
        self._advance = jax.jit(self._further, static_argnames="plan", donate_argnames="state")
        self._telling = Lock()
        self._stopping: dict[tuple[str, ...], Vocabulary] = {(): self.vocabulary}

    def _first(
        self, asked: Asked, first: Any, rng: Any, step: Any, rows: Any, vocabulary: Any, *, plan: Schedule,
        questions: int, slots: int,
    ) -> tuple[Asked, Any, DecodeState]:  # fmt: skip
        """Cut out some of the questions and make ready to decode them."""
        asked = asked if plan.parts * plan.questions == questions else asked.part(first, plan.questions)
        draws = token_draws(row_keys(rng, step, *rows), slots)
        return asked, draws, start(self.model, asked, plan, vocabulary, slots=slots)

    def _further(
        self, params: Any, asked: Any, draws: Any, settings: Any, vocabulary: Any, state: Any, until: Any, *,
        plan: Schedule,
    ) -> tuple[DecodeState, Completions, Any]:  # fmt: skip
        """Decode on; return the state, which the next call uses up, what there is so far, and whether to go on."""
        state = advance(self.model, params, asked, plan, draws, settings, vocabulary, state, until)
        return state, completions_of(state), jnp.asarray(state.rows.live_PB).any()

    def _stopping_at(self, stops: tuple[str, ...]) -> Vocabulary:
        """Return the vocabulary with the automaton of these stop strings, which is made and placed once."""
        if stops not in self._stopping:
            size = self.processor.config.decoder.vocab_size
            table = stop_table(self.processor.tokenizer, stops, vocab_size=size)
            self._stopping[stops] = self.vocabulary._replace(stops=StopTable(*map(jnp.asarray, table)))
        return self._stopping[stops]

    def sample(
        self,
        params: Any,
        chats: Sequence[EncodedChat],
        ids: Sequence[str],
        *,
        bucket: Need,
        responses: int = 1,
        response_index: Sequence[int] | None = None,
        sampling: Sampling,
        slots: int,
        seed: int,
        step: int = 0,
        finished: Callable[[Finished], None] | None = None,
    ) -> Rollout:
        """Sample ``responses`` answers to each chat; the ids name the questions in the random streams.

        ``response_index`` numbers the rows' responses (by default 0 .. responses - 1 within each question).
        ``finished`` is told of responses that have ended, every few tokens, while the device decodes on. It may be
        called from several threads, one call at a time.

        Raises:
            ValueError: more new tokens asked for than the cache has slots; or questions of one of several processes
                that do not divide by its part of the mesh.
        """
        if sampling.max_new_tokens > slots:
            raise ValueError(f"max_new_tokens is {sampling.max_new_tokens}, the response cache has {slots} slots")
        prompts = collate_prompts(chats, bucket=bucket, **self.padding)
        prompts = shown_by_all(prompts, share_of(mesh_of(params)), merge=self.padding["merge"])
        positions = np.array([chat.next_position for chat in chats], np.int32)
        question_B = np.repeat(np.array([question_number(i) for i in ids], np.uint32), responses)
        index = np.tile(np.arange(responses), len(chats)) if response_index is None else np.array(response_index)
        openings = [chat.opening for chat in chats for _ in range(responses)]
        lanes, job = self._job(
            params,
            (prompts, positions),
            (question_B, index.astype(np.uint32)),
            sampling=sampling,
            slots=slots,
            seed=seed,
            step=step,
            finished=finished,
            openings=openings,
        )
        shape = job.shape(bucket, responses)
        threads = lanes if shape in self.shapes else 1  # the first of a shape compiles for all
        self.shapes.add(shape)
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(partial(self._decode, job), range(lanes)))
        tokens, mask, logp, ended = (np.concatenate(part) for part in zip(*(part[:-1] for part in parts)))
        texts = decode_texts(self.processor, tokens, mask, openings)
        steps = max(int(part[-1]) for part in parts)
        return Rollout(
            prompts, positions, tokens, mask, logp, ended, texts,
            policy_step=step, prompt_ids=tuple(ids), decode_steps=steps, features=job.features,
        )  # fmt: skip

    def compile_ahead(
        self, params: Any, buckets: Sequence[Need], *, responses: int, sampling: Sampling, slots: int
    ) -> None:
        """Compile what ``sample`` runs for prompts of these shapes, several at a time; nothing is computed.

        Shapes that were not told of are compiled when they come.
        """
        with ThreadPoolExecutor(cores()) as pool:
            ahead = partial(self._compile, params, responses=responses, sampling=sampling, slots=slots)
            list(pool.map(ahead, buckets))

    def _compile(self, params: Any, bucket: Need, *, responses: int, sampling: Sampling, slots: int) -> None:
        rows = np.zeros(bucket.rows * responses, np.uint32)
        blank = (collate_prompts([], bucket=bucket, **self.padding), np.zeros(bucket.rows, np.int32))
        _, job = self._job(params, blank, (rows, rows), sampling=sampling, slots=slots, ahead=True)
        inputs, fixed = self._first_of(job, 0)
        asked, draws, state = compiled_ahead(self._begin, job.mesh)(*inputs, **fixed)
        compiled_ahead(self._advance, job.mesh)(
            job.params, asked, draws, self._settings_of(job, 0), job.vocabulary, state, jnp.int32(0), plan=job.plan
        )
        self.shapes.add(job.shape(bucket, responses))

    def _job(
        self,
        params: Any,
        prompts: tuple[Batch, np.ndarray],
        rows: tuple[np.ndarray, np.ndarray],
        *,
        sampling: Sampling,
        slots: int,
        seed: int = 0,
        step: int = 0,
        finished: Callable[[Finished], None] | None = None,
        openings: Sequence[str] = (),
        ahead: bool = False,
    ) -> tuple[int, "_Job"]:
        """Run the prompts, or only compile that; return how many lanes there are, and what they share."""
        questions, count = len(prompts[1]), len(rows[0])
        mesh = mesh_of(params)
        share = share_of(mesh)
        if not share.spans:  # there the shares would be others
            mesh, params = rows_everywhere(mesh, params, questions)
        gather = for_sampling(mesh, params, self.model.dtype) if sampling.gather_weights else None
        if gather is not None:
            params = (compiled_ahead if ahead else with_mesh)(gather, mesh)(params)
        place = partial(place_rows, mesh)
        asked_by_all = questions * share.of
        lanes, plan = make_plan(asked_by_all, count // questions, params=params, mesh=mesh, at_once=sampling.at_once)
        run_prompts = (compiled_ahead if ahead else with_mesh)(self._prefill, mesh)
        penalised = sampling.repetition_penalty != 1
        asked, features = run_prompts(params, *map(place, prompts), penalised=penalised)
        return lanes, _Job(
            params=params,
            asked=asked,
            features=features,
            mesh=mesh,
            rows=rows,
            settings=_rows(sampling, count),
            vocabulary=self._stopping_at(sampling.stop),
            key=(jax.random.key(seed), jnp.int32(step)),
            plan=plan,
            questions=asked_by_all,
            slots=slots,
            place=place,
            fetch=partial(own_rows, mesh),
            finished=finished,
            openings=openings,
        )

    def _first_of(self, job: "_Job", lane: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the inputs of ``_begin`` for a lane, and its fixed settings."""
        first = jnp.int32(lane * job.plan.questions)
        rows = job.place(tuple(part[job.rows_of(lane)] for part in job.rows))
        fixed = {"plan": job.plan, "questions": job.questions, "slots": job.slots}
        return (job.asked, first, *job.key, rows, job.vocabulary), fixed

    def _settings_of(self, job: "_Job", lane: int) -> SamplingSettings:
        mine = job.rows_of(lane)
        return job.place(SamplingSettings(*(part[mine] if part.ndim else part for part in job.settings)))

    def _decode(self, job: "_Job", lane: int) -> tuple[np.ndarray, ...]:
        """Decode the responses of one lane; return the ``Completions`` on the host."""
        plan, first = job.plan, job.rows_of(lane).start
        inputs, fixed = self._first_of(job, lane)
        asked, draws, state = with_mesh(self._begin, job.mesh)(*inputs, **fixed)
        settings, further = self._settings_of(job, lane), with_mesh(self._advance, job.mesh)
        every = job.slots * plan.all_responses if job.finished is None else STREAMED_EVERY
        done, until, more = np.zeros(len(job.rows[0][job.rows_of(lane)]), bool), 0, True
        while more:
            until += every
            state, out, more = further(
                job.params, asked, draws, settings, job.vocabulary, state, jnp.int32(until), plan=plan
            )
            tokens, mask, logp, ended, steps = job.fetch(out)
            if job.finished is not None:
                now = ended | (mask.sum(axis=1) >= int(job.settings.max_new_tokens))
                fresh, done = np.flatnonzero(now & ~done), now
                openings = [job.openings[first + row] for row in fresh]
                texts = decode_texts(self.processor, tokens[fresh], mask[fresh], openings)
                with self._telling:
                    job.finished(Finished(fresh + first, texts))
        return tokens, mask, logp, ended, steps

    def programs(self) -> dict[str, int]:
        """Return how many programs of each kind were compiled so far."""
        kinds = {"prefill": self._prefill, "begin": self._begin, "advance": self._advance}
        return {name: getattr(program, "_cache_size")() for name, program in kinds.items()}  # noqa: B009

    @property
    def padding(self) -> dict[str, int]:
        """Keyword arguments of ``collate``."""
        return padding_of(self.processor)


@dataclass(frozen=True)
class _Job:
    """One call of ``sample`` as its lanes see it."""

    params: Any
    asked: Asked
    features: VisionFeatures | None
    mesh: Mesh | None
    rows: tuple[np.ndarray, np.ndarray]  # question number and response number of each response
    settings: SamplingSettings
    vocabulary: Vocabulary
    key: tuple[Any, Any]  # random key and step
    plan: Schedule  # of one lane
    questions: int  # of all lanes
    slots: int
    place: Callable[[Any], Any]
    fetch: Callable[[Any], Any]
    finished: Callable[[Finished], None] | None
    openings: Sequence[str]  # of each response, by its prompt

    def shape(self, bucket: Need, responses: int) -> tuple[Need, int, int, int | None]:
        """Return what tells its programs from those of other calls."""
        return bucket, responses, self.slots, None if self.plan.all_at_once else self.plan.all_rows

    def rows_of(self, lane: int) -> slice:
        """Return which responses a lane decodes."""
        return slice(lane * self.plan.all_responses, (lane + 1) * self.plan.all_responses)


def make_vocabulary(processor: Processor) -> Vocabulary:
    """Return end ids, suppressed ids and padding of a checkpoint as arrays."""
    suppressed = np.zeros(processor.config.decoder.vocab_size, bool)
    suppressed[list(processor.suppressed_ids)] = True
    stops = StopTable(*map(jnp.asarray, no_stops(len(suppressed))))
    ends = jnp.array(processor.end_ids, jnp.int32)
    return Vocabulary(ends, jnp.array(suppressed), jnp.int32(processor.pad_id), stops)


def question_number(question_id: str) -> int:
    """Return a stable 32-bit number for a record id, the same on every machine and in every run."""
    return zlib.crc32(question_id.encode("utf-8", "surrogatepass"))


def decode_texts(
    processor: Processor, tokens_BU: np.ndarray, mask_BU: np.ndarray, openings: Sequence[str] = ()
) -> tuple[str, ...]:
    """Decode each row up to its end token, special tokens left out, behind what its prompt opened of the reply."""
    rows = [row[mask].tolist() for row, mask in zip(tokens_BU, mask_BU)]
    decoded = processor.tokenizer.batch_decode(rows, skip_special_tokens=True)
    return tuple(opening + text for opening, text in zip(openings or [""] * len(rows), decoded, strict=True))


def _rows(sampling: Sampling, rows: int) -> SamplingSettings:
    return SamplingSettings(
        temperature_B=np.full(rows, sampling.temperature, np.float32),
        top_k_B=np.full(rows, sampling.top_k, np.int32),
        top_p_B=np.full(rows, sampling.top_p, np.float32),
        min_p_B=np.full(rows, sampling.min_p, np.float32),
        repetition_penalty_B=np.full(rows, sampling.repetition_penalty, np.float32),
        max_new_tokens=np.array(sampling.max_new_tokens, np.int32),
    )

"""The host side of sampling: encoded chats in, token ids out, in a bounded number of compiled programs."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from urt_jax.data.collate import Need, collate_prompts
from urt_jax.families.processor import Processor
from urt_jax.generation.loop import row_keys, sample_responses
from urt_jax.generation.state import Completions, SamplingSettings, Vocabulary
from urt_jax.generation.stops import StopTable, no_stops, stop_table
from urt_jax.models.vlm import VisionLanguageModel
from urt_jax.sharding.placement import mesh_of, place_rows
from urt_jax.types import Batch, EncodedChat

# Rows decoded at a time where not said otherwise. A CPU is a third faster with few: their caches stay near the cores.
AT_ONCE = {"cpu": 32}


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


class Samples(NamedTuple):
    """Responses to Q questions on the host, ``B = Q * R`` question-major, and the prompts they answer."""

    prompts: Batch  # left-padded, Q rows
    next_position_Q: np.ndarray
    tokens_BU: np.ndarray
    mask_BU: np.ndarray
    logp_BU: np.ndarray
    texts: tuple[str, ...]
    steps: int = 0  # times the decoding rows were run through the model


class Sampler:
    """Owns the compiled sampling programs of one model; parameters are given at each call.

    Rows are split over the mesh that the parameters lie on. Programs differ by bucket, number of questions, responses
    and slots only: every setting is traced. ``shapes`` holds the shapes compiled so far.
    """

    def __init__(self, model: VisionLanguageModel, processor: Processor):
        self.model, self.processor = model, processor
        self.vocabulary = make_vocabulary(processor)
        self.shapes: set[tuple[Need, int, int, int | None]] = set()
        self._program = jax.jit(self._run, static_argnames=("slots", "penalised", "at_once"))
        self._stopping: dict[tuple[str, ...], Vocabulary] = {(): self.vocabulary}

    def _run(
        self, params: Any, prompts: Batch, positions: Any, rng: Any, step: Any, rows: Any, settings: Any,
        vocabulary: Any, *, slots: int, penalised: bool, at_once: int | None,
    ) -> Completions:  # fmt: skip
        keys = row_keys(rng, step, *rows)
        return sample_responses(
            self.model, params, prompts, positions, keys, settings, vocabulary, slots=slots, penalised=penalised,
            rows=at_once,
        )  # fmt: skip

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
        at_once: int | None = None,
    ) -> Samples:
        """Sample ``responses`` answers to each chat; the ids name the questions in the random streams.

        At most ``at_once`` responses (by default all, on a CPU 32) are decoded at a time, the others wait for rows
        that come free; on several devices all are. ``response_index`` numbers the rows' responses (by default 0 ..
        responses - 1 within each question).

        Raises:
            ValueError: more new tokens asked for than the cache has slots.
        """
        if sampling.max_new_tokens > slots:
            raise ValueError(f"max_new_tokens is {sampling.max_new_tokens}, the response cache has {slots} slots")
        mesh = mesh_of(params)
        place = partial(place_rows, mesh)
        prompts = collate_prompts(chats, bucket=bucket, **self.padding)
        positions = np.array([chat.next_position for chat in chats], np.int32)
        rows = len(chats) * responses
        question_B = np.repeat(np.array([question_number(i) for i in ids], np.uint32), responses)
        index = np.tile(np.arange(responses), len(chats)) if response_index is None else np.array(response_index)
        at_once = at_once or AT_ONCE.get(jax.default_backend(), rows)
        at_once = None if at_once >= rows or (mesh is not None and mesh.size > 1) else at_once
        self.shapes.add((bucket, responses, slots, at_once))
        out = self._program(
            params,
            place(prompts),
            place(positions),
            jax.random.key(seed),
            jnp.int32(step),
            place((question_B, index.astype(np.uint32))),
            place(_rows(sampling, rows)),
            self._stopping_at(sampling.stop),
            slots=slots,
            penalised=sampling.repetition_penalty != 1,
            at_once=at_once,
        )
        tokens, mask, logp, steps = (np.asarray(x) for x in out)
        texts = decode_texts(self.processor, tokens, mask)
        return Samples(prompts, positions, tokens, mask, logp, texts, int(steps))

    @property
    def padding(self) -> dict[str, int]:
        """Keyword arguments of ``collate``."""
        return padding_of(self.processor)


def padding_of(processor: Processor) -> dict[str, int]:
    """Return what ``collate`` must know about a checkpoint."""
    vision = processor.config.vision
    return {
        "pad_id": processor.pad_id,
        "patch_features": vision.patch_features,
        "merge": vision.merge_size**2,
        "blend_sources": vision.blend_sources,
    }


def make_vocabulary(processor: Processor) -> Vocabulary:
    """Return end ids, suppressed ids and padding of a checkpoint as arrays."""
    suppressed = np.zeros(processor.config.decoder.vocab_size, bool)
    suppressed[list(processor.suppressed_ids)] = True
    stops = StopTable(*map(jnp.asarray, no_stops(len(suppressed))))
    ends = jnp.array(processor.end_ids, jnp.int32)
    return Vocabulary(ends, jnp.array(suppressed), jnp.int32(processor.pad_id), stops)


def question_number(question_id: str) -> int:
    """Return a stable 32-bit number for a record id, the same on every machine and in every run."""
    return zlib.crc32(question_id.encode())


def decode_texts(processor: Processor, tokens_BU: np.ndarray, mask_BU: np.ndarray) -> tuple[str, ...]:
    """Decode each row up to its end token, special tokens left out."""
    rows = [row[mask].tolist() for row, mask in zip(tokens_BU, mask_BU)]
    return tuple(processor.tokenizer.batch_decode(rows, skip_special_tokens=True))


def _rows(sampling: Sampling, rows: int) -> SamplingSettings:
    return SamplingSettings(
        temperature_B=np.full(rows, sampling.temperature, np.float32),
        top_k_B=np.full(rows, sampling.top_k, np.int32),
        top_p_B=np.full(rows, sampling.top_p, np.float32),
        min_p_B=np.full(rows, sampling.min_p, np.float32),
        repetition_penalty_B=np.full(rows, sampling.repetition_penalty, np.float32),
        max_new_tokens=np.array(sampling.max_new_tokens, np.int32),
    )

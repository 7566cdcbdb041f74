"""The batch call: it samples responses to encoded chats, in a bounded number of compiled programs."""

import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from urt_jax.data.collate import Need, collate_prompts
from urt_jax.families.processor import Processor, padding_of
from urt_jax.generation.engine import Engine
from urt_jax.generation.job import Finished, Job, decode_lane, open_lane
from urt_jax.generation.lanes import cores, make_plan
from urt_jax.generation.sampling import DecodeSettings, Sampling, each_row
from urt_jax.generation.state import row_settings
from urt_jax.generation.vocabulary import StopVocabularies, decode_texts
from urt_jax.models.vlm import VisionLanguageModel
from urt_jax.sharding.activations import compiled_ahead, with_mesh
from urt_jax.sharding.placement import for_sampling, mesh_of, own_rows, place_rows, rows_everywhere
from urt_jax.sharding.shares import share_of, shown_by_all
from urt_jax.types import Batch, EncodedChat, Rollout

ALL_AT_ONCE = DecodeSettings()


class Sampler:
    """Samples batches of responses with one model; each call passes the parameters.

    Rows are split over the mesh of the parameters, also along its ``sequence`` axis if they divide evenly. On a mesh of
    several processes, each process passes its own questions, of the same number and shapes as the others, and gets
    their responses. Programs differ by bucket, number of questions, responses and slots only: every setting is traced.
    ``shapes`` holds the shapes compiled so far.
    """

    def __init__(self, model: VisionLanguageModel, processor: Processor):
        self.model, self.processor = model, processor
        self.engine = Engine(model)
        self.stops = StopVocabularies(processor)
        self.shapes: set[tuple[Need, int, int, int | None]] = set()

    def sample(
        self,
        params: Any,
        chats: Sequence[EncodedChat],
        ids: Sequence[str],
        *,
        bucket: Need,
        responses: int = 1,
        sampling: Sampling | Sequence[Sampling],
        max_new_tokens: int | Sequence[int] | None = None,
        slots: int,
        seed: int | Sequence[int],
        step: int = 0,
        decoding: DecodeSettings = ALL_AT_ONCE,
        finished: Callable[[Finished], None] | None = None,
    ) -> Rollout:
        """Sample ``responses`` responses to each chat; its id selects its random stream.

        ``sampling``, ``max_new_tokens`` (which counts the end token; None = ``slots``) and ``seed`` are one value for
        all responses, or one per response.

        Args:
            slots: slots of the cache per response; step: the run's step, part of the random streams.
            decoding: the number of responses decoded at a time (see ``make_plan``), and when weights are gathered.
            finished: called every few tokens with the responses that have ended, from any thread, one call at a time.

        Raises:
            ValueError: more new tokens than slots; a number of settings that differs from the responses'; or, on
                several processes, questions that do not divide by the process's part of the mesh.
        """
        count = len(chats) * responses
        lengths = each_row(slots if max_new_tokens is None else max_new_tokens, int, count)
        if max(lengths) > slots:
            raise ValueError(f"max_new_tokens is {max(lengths)}, the response cache has {slots} slots")
        prompts = collate_prompts(chats, bucket=bucket, **self.padding)
        prompts = shown_by_all(prompts, share_of(mesh_of(params)), merge=self.padding["merge"])
        positions = np.array([chat.next_position for chat in chats], np.int32)
        job = self._job(
            params, (prompts, positions), _streams(ids, seed, responses),
            sampling=each_row(sampling, Sampling, count), lengths=lengths, slots=slots, step=step, decoding=decoding,
        )  # fmt: skip
        shape = job.shape(bucket, responses)
        threads = job.lanes if shape in self.shapes else 1  # a shape's first lane compiles for all
        self.shapes.add(shape)
        openings = [chat.opening for chat in chats for _ in range(responses)]
        with ThreadPoolExecutor(threads) as pool:
            written = partial(_texts_of, self.processor, openings)
            lane = partial(decode_lane, self.engine, job, texts=written, finished=finished)
            parts = list(pool.map(lane, range(job.lanes)))
        tokens, mask, logp, ended = (np.concatenate(part) for part in zip(*(part[:-1] for part in parts)))
        texts, steps = decode_texts(self.processor, tokens, mask, openings), max(int(part[-1]) for part in parts)
        return Rollout(
            prompts, positions, tokens, mask, logp, ended, texts, policy_step=step, prompt_ids=tuple(ids),
            decode_steps=steps, features=job.features,
        )  # fmt: skip

    def compile_ahead(
        self, params: Any, buckets: Sequence[Need], *, responses: int, sampling: Sampling, slots: int,
        decoding: DecodeSettings = ALL_AT_ONCE,
    ) -> None:  # fmt: skip
        """Compile the programs of ``sample`` for prompts of these shapes, several in parallel, without running them.

        Other shapes are compiled at their first call.
        """

        def compile_one(bucket: Need) -> None:
            rows = np.zeros(bucket.rows * responses, np.uint32)
            blank = (collate_prompts([], bucket=bucket, **self.padding), np.zeros(bucket.rows, np.int32))
            job = self._job(
                params, blank, (rows, rows, rows), sampling=[sampling] * len(rows), lengths=[slots] * len(rows),
                slots=slots, decoding=decoding, ahead=True,
            )  # fmt: skip
            prompts, batch = open_lane(self.engine, job, 0, ahead=True)
            self.engine.advance(
                job.params, prompts, batch, job.vocabulary, jnp.int32(0), plan=job.plan, mesh=job.mesh, ahead=True
            )
            self.shapes.add(job.shape(bucket, responses))

        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(compile_one, buckets))

    def _job(
        self,
        params: Any,
        prompts: tuple[Batch, np.ndarray],
        rows: tuple[np.ndarray, np.ndarray, np.ndarray],
        *,
        sampling: Sequence[Sampling],
        lengths: Sequence[int],
        slots: int,
        decoding: DecodeSettings,
        step: int = 0,
        ahead: bool = False,
    ) -> Job:
        """Prefill the prompts, or only compile the prefill; return the job that the lanes share."""
        questions, count = len(prompts[1]), len(sampling)
        mesh = mesh_of(params)
        share = share_of(mesh)
        if not share.spans:  # over several processes, another mesh would change each one's share
            mesh, params = rows_everywhere(mesh, params, questions)
        gather = for_sampling(mesh, params, self.model.dtype) if decoding.gather_weights else None
        if gather is not None:
            params = (compiled_ahead if ahead else with_mesh)(gather, mesh)(params)
        place = partial(place_rows, mesh)
        of_all = questions * share.of
        lanes, plan = make_plan(of_all, count // questions, params=params, mesh=mesh, at_once=decoding.at_once)
        penalised = any(row.repetition_penalty != 1 for row in sampling)
        cached, features = self.engine.prefill(
            params, *map(place, prompts), penalised=penalised, mesh=mesh, ahead=ahead
        )
        vocabulary, enters = self.stops.of([row.stop for row in sampling])
        return Job(
            params=params,
            prompts=cached,
            features=features,
            mesh=mesh,
            rows=rows,
            settings=row_settings(sampling, lengths, enters.__getitem__),
            vocabulary=vocabulary,
            step=jnp.int32(step),
            lanes=lanes,
            plan=plan,
            questions=of_all,
            slots=slots,
            place=place,
            fetch=partial(own_rows, mesh),
        )

    def programs(self) -> dict[str, int]:
        """Return the number of programs of each kind compiled so far."""
        return self.engine.programs()

    @property
    def padding(self) -> dict[str, int]:
        """Keyword arguments of ``collate``."""
        return padding_of(self.processor)


def _streams(
    ids: Sequence[str], seed: int | Sequence[int], responses: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the seed, question number and response number of each row, which determine its random stream."""
    question_B = np.repeat(np.array([question_number(i) for i in ids], np.uint32), responses)
    response_B = np.tile(np.arange(responses, dtype=np.uint32), len(ids))
    return np.array(each_row(seed, int, len(question_B)), np.int64).astype(np.uint32), question_B, response_B


def _texts_of(
    processor: Processor, openings: Sequence[str], rows: np.ndarray, tokens_BU: np.ndarray, mask_BU: np.ndarray
) -> tuple[str, ...]:
    return decode_texts(processor, tokens_BU, mask_BU, [openings[row] for row in rows])


def question_number(question_id: str) -> int:
    """Return a stable 32-bit number for a record id, the same on every machine and in every run."""
    return zlib.crc32(question_id.encode("utf-8", "surrogatepass"))

"""One call of the sampler, split over lanes: threads that decode in parallel, each its own questions."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from urt_jax.data.collate import Need
from urt_jax.generation.engine import Engine
from urt_jax.generation.prompt_cache import PromptCache
from urt_jax.generation.schedule import Schedule
from urt_jax.generation.state import Decoding, RowSettings, Vocabulary
from urt_jax.types import VisionFeatures

STREAMED_EVERY = 16  # tokens after which finished responses are reported
_REPORTING = Lock()  # one report at a time, whichever lane it comes from


class Finished(NamedTuple):
    """Responses that have ended while others are still decoded."""

    rows: np.ndarray  # numbers of the responses, question-major
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """The values of one call of ``Sampler.sample`` that its lanes share."""

    params: Any
    prompts: PromptCache
    features: VisionFeatures | None
    mesh: Mesh | None
    rows: tuple[np.ndarray, np.ndarray, np.ndarray]  # seed, question number and response number of each response
    settings: RowSettings
    vocabulary: Vocabulary
    step: Any
    lanes: int
    plan: Schedule  # of one lane
    questions: int  # of all lanes
    slots: int
    place: Callable[[Any], Any]
    fetch: Callable[[Any], Any]

    def shape(self, bucket: Need, responses: int) -> tuple[Need, int, int, int | None]:
        """Return a key of the call's compiled programs: calls with equal keys share them."""
        return bucket, responses, self.slots, None if self.plan.all_at_once else self.plan.all_rows

    def rows_of(self, lane: int) -> slice:
        """Return the responses that a lane decodes, as a slice of all."""
        return slice(lane * self.plan.all_responses, (lane + 1) * self.plan.all_responses)


def open_lane(engine: Engine, job: Job, lane: int, *, ahead: bool = False) -> tuple[PromptCache, Decoding]:
    """Return the prompts of a lane, and the batch of its responses before the first token."""
    mine = job.rows_of(lane)
    return engine.begin(
        job.prompts,
        jnp.int32(lane * job.plan.questions),
        job.step,
        job.place(tuple(part[mine] for part in job.rows)),
        job.place(RowSettings(*(part[mine] for part in job.settings))),
        job.vocabulary,
        plan=job.plan,
        questions=job.questions,
        slots=job.slots,
        mesh=job.mesh,
        ahead=ahead,
    )


def decode_lane(
    engine: Engine,
    job: Job,
    lane: int,
    *,
    texts: Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[str, ...]],
    finished: Callable[[Finished], None] | None,
) -> tuple[np.ndarray, ...]:
    """Decode the responses of one lane; return the ``Completions`` on the host.

    ``texts(rows, tokens, mask)`` decodes token ids to texts. ``finished`` is called with the responses that have ended.
    """
    plan, mine = job.plan, job.rows_of(lane)
    prompts, decoding = open_lane(engine, job, lane)
    longest = np.asarray(job.settings.max_new_tokens_B)[mine]
    every = job.slots * plan.all_responses if finished is None else STREAMED_EVERY
    done, until = np.zeros(len(longest), bool), 0
    more: Any = True
    while more:
        until += every
        decoding, out, more = engine.advance(
            job.params, prompts, decoding, job.vocabulary, jnp.int32(until), plan=plan, mesh=job.mesh
        )
        tokens, mask, logp, ended, steps = job.fetch(out)
        if finished is not None:
            now = ended | (mask.sum(axis=1) >= longest)
            fresh, done = np.flatnonzero(now & ~done), now
            with _REPORTING:
                finished(Finished(fresh + mine.start, texts(fresh + mine.start, tokens[fresh], mask[fresh])))
    return tokens, mask, logp, ended, steps

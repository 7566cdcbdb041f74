"""The tiny model's whole programs on any mesh: an SFT step, a GRPO step, and samples, on rows that divide."""

from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

from tests.tiny import EOS, MODEL, PAD, PROCESSOR, WORDS, batch_of, first_groups, make_chat, need, tiny_params
from tests.training.tiny_training import SUPPRESSED, TEMPERATURE, fresh_state, one_device
from urt_jax.generation.sampler import Sampler
from urt_jax.generation.sampling import Sampling
from urt_jax.losses.policy import PolicyLoss
from urt_jax.sharding.mesh import make_mesh
from urt_jax.sharding.placement import place_rows, place_state
from urt_jax.training.compile import compile_grpo_step, compile_score_step, compile_sft_step
from urt_jax.training.rollout import make_grpo_batch
from urt_jax.training.steps import GrpoBatch
from urt_jax.types import Batch, Rollout

MESHES = {
    "data=8": {"data": 8},
    "fsdp=8": {"data": 1, "fsdp": 8},
    "data=2 fsdp=2 tensor=2": {"data": 2, "fsdp": 2, "tensor": 2},
    "data=2 sequence=4": {"data": 2, "sequence": 4},
    "fsdp=2 sequence=4": {"data": 1, "fsdp": 2, "sequence": 4},
    "fsdp=2 sequence=2 tensor=2": {"data": 1, "fsdp": 2, "sequence": 2, "tensor": 2},
}
QUESTIONS, RESPONSES, TOKENS, SLOTS, FRAMES = 8, 2, 16, 8, 8
FAST = ("one device", "data=2 fsdp=2 tensor=2", "data=2 sequence=4")
CHATS = tuple(make_chat(i, text=3 + i % 6, pictures=[(1, 1 + i % 2)]) for i in range(QUESTIONS))
OF_ROWS = ("advantage_B", "old_logp_BU", "ref_logp_BU", "sampler_logp_BU")
MOMENTUM = optax.sgd(0.1, momentum=0.9)  # its state after the first step is the gradient
LOSS = PolicyLoss("grpo", clip_low=0.2, clip_high=0.2, kl_coef=0.1, entropy_coef=0.01)


def some_slow(names: Iterable[str]) -> list[Any]:
    """Return parameters of a test, of which all but a few meshes are slow."""
    return [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in names]


class Stepped(NamedTuple):
    """What a step from the fresh state gave."""

    params: Any
    gradient: Any
    figures: dict[str, np.ndarray]


@cache
def mesh_of(name: str) -> Mesh:
    return make_mesh(**MESHES[name]) if name in MESHES else one_device()


@cache
def sft_rows(count: int = QUESTIONS, parts: int = 1) -> Batch:
    rng = np.random.default_rng(5)
    answers = [[*map(int, rng.integers(WORDS.start, WORDS.stop, i % 4)), EOS] for i in range(count)]
    return batch_of(CHATS[:count], answers, tokens=TOKENS, frames=FRAMES, patches=16, parts=parts)


@cache
def grpo_rows() -> GrpoBatch:
    """Return random responses of all lengths with old and reference log-probabilities near the policy's own."""
    rng, rows = np.random.default_rng(3), QUESTIONS * RESPONSES
    lengths = 1 + rng.permutation(rows) % SLOTS
    mask = np.arange(SLOTS)[None] < lengths[:, None]
    tokens = rng.integers(WORDS.start, WORDS.stop, (rows, SLOTS))
    tokens[np.arange(rows), lengths - 1] = EOS
    prompts = batch_of(CHATS, left=True, tokens=TOKENS, frames=FRAMES, patches=16)
    positions = np.array([chat.next_position for chat in CHATS], np.int32)
    tokens = np.where(mask, tokens, PAD).astype(np.int32)
    logp = np.zeros(mask.shape, np.float32)
    drawn = Rollout(prompts, positions, tokens, mask, logp, np.ones(rows, bool), ("",) * rows)
    advantage = rng.standard_normal(rows).astype(np.float32)
    batch = make_grpo_batch(drawn, advantage, temperature=TEMPERATURE)
    score = compile_score_step(MODEL)
    logp = np.asarray(score(tiny_params(), batch.rows, np.float32(TEMPERATURE), SUPPRESSED).logp_BU)
    near = [logp + 0.1 * rng.standard_normal(logp.shape).astype(np.float32) for _ in range(3)]
    return batch._replace(old_logp_BU=near[0], ref_logp_BU=near[1], sampler_logp_BU=near[2])


def _stepped(state: Any, figures: dict[str, Any]) -> Stepped:
    gradient = state.opt_state[0].trace
    return Stepped(*jax.device_get((state.params, gradient, figures)))


@cache
def sft(name: str, attention: str = "xla", count: int = QUESTIONS) -> Stepped:
    mesh = mesh_of(name)
    state = fresh_state(MOMENTUM, mesh)
    step = compile_sft_step(MODEL.clone(attention=attention), MOMENTUM, state, mesh)
    return _stepped(*step(state, place_rows(mesh, sft_rows(count, mesh.shape["sequence"]))))


def grpo_arguments(name: str, count: int = QUESTIONS) -> tuple[Any, ...]:
    """Return the fresh state, the batch of the first questions and the suppressed tokens on a mesh."""
    mesh, batch, rows = mesh_of(name), grpo_rows(), count * RESPONSES
    some = batch._replace(rows=first_groups(batch.rows, count), **{key: getattr(batch, key)[:rows] for key in OF_ROWS})
    return fresh_state(MOMENTUM, mesh), place_rows(mesh, some), SUPPRESSED


@cache
def compiled_grpo(name: str, attention: str = "xla", count: int = QUESTIONS) -> Any:
    arguments, model = grpo_arguments(name, count), MODEL.clone(attention=attention)
    step = compile_grpo_step(model, MOMENTUM, arguments[0], mesh_of(name), LOSS, first_update=False)
    return step.lower(*arguments).compile()


@cache
def grpo(name: str, attention: str = "xla", count: int = QUESTIONS) -> Stepped:
    return _stepped(*compiled_grpo(name, attention, count)(*grpo_arguments(name, count)))


def sample(sampler: Sampler, name: str, questions: int = QUESTIONS, **settings: Any) -> Rollout:
    """Sample nearly uniform tokens from the tiny model on a mesh."""
    params = place_state(mesh_of(name), tiny_params())
    hot = Sampling(temperature=5.0)
    chats, ids = CHATS[:questions], [f"q{i}" for i in range(questions)]
    bucket = need(chats, tokens=TOKENS, frames=FRAMES, patches=16)
    settings |= {"bucket": bucket, "responses": RESPONSES, "sampling": hot, "slots": SLOTS}
    return sampler.sample(params, chats, ids, seed=0, **settings)


@cache
def samples(name: str, attention: str = "xla", questions: int = QUESTIONS) -> Rollout:
    return sample(Sampler(MODEL.clone(attention=attention), PROCESSOR), name, questions)

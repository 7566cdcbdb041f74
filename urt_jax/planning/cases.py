"""The timed cases: the sampler, the SFT step and the GRPO step as the stages run them, on random inputs.

A case is built once and repeated; each repetition does the same work and returns its seconds, by phase.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from urt_jax.checkpoints.model_folder import LoadedModel
from urt_jax.data.collate import collate, length_of, need_of
from urt_jax.families.processor import padding_of
from urt_jax.generation.sampler import Sampler
from urt_jax.generation.sampling import Sampling
from urt_jax.generation.vocabulary import make_vocabulary
from urt_jax.losses.advantages import group_advantages
from urt_jax.losses.policy import PolicyLoss
from urt_jax.models.config import ModelConfig
from urt_jax.models.vlm import abstract_params, init_params
from urt_jax.planning.workloads import Workload, blank_processor, encode, random_ids, random_pictures
from urt_jax.sharding.placement import place_rows, place_state
from urt_jax.sharding.rules import shardings_for
from urt_jax.training.compile import compile_grpo_step, compile_sft_step
from urt_jax.training.optimizer import make_optimizer
from urt_jax.training.rollout import make_grpo_batch
from urt_jax.training.settings import OptimizerSettings
from urt_jax.training.state import TrainState, init_state
from urt_jax.types import Rollout

TRAINED = (r"^(decoder/|embedding$|head$)",)  # the language model, as in every stage by default
Seconds = dict[str, float]


@dataclass(frozen=True)
class Setting:
    """A workload and how it is run; ``dtype`` is that of the computation, trained weights are float32."""

    work: Workload
    mesh: Mesh
    dtype: Any
    remat: str = "none"
    seed: int = 0


class Case(Protocol):
    """One timed case."""

    def repeat(self) -> Seconds:
        """Do the work once; return its seconds in total (``wall``, and ``cpu`` of all threads) and by phase."""


class SamplerCase:
    """A rollout of Q prompts with R responses each, and the same program for one new token.

    The program runs each of U tokens through the model, the last too: ``T(U) = prefill + U * step``.
    """

    def __init__(self, setting: Setting) -> None:
        self._params = random_params(setting.work.config, setting.mesh, dtype=setting.dtype, seed=setting.seed)
        self._rollout = _Rollout(setting, _blank(setting, self._params))
        self._chats = self._rollout.chats()
        self._count = 0

    def repeat(self) -> Seconds:
        """Time one token, then the whole rollout."""
        length = self._rollout.work.rows.new_tokens
        one = timed(lambda: self._sample(1))
        whole = timed(lambda: self._sample(length))
        step = (whole["wall"] - one["wall"]) / (length - 1)
        return {**whole, "prefill": whole["wall"] - length * step, "decode": length * step}

    def _sample(self, tokens: int) -> Rollout:
        self._count += 1
        return self._rollout.sample(self._params, self._chats, step=self._count, tokens=tokens)


class SftCase:
    """An SFT step on whole rows, each a prompt with pictures and a response."""

    def __init__(self, setting: Setting) -> None:
        work, self._mesh = setting.work, setting.mesh
        rng, rows = np.random.default_rng(setting.seed), work.rows
        words = random_ids(work, rng, (rows.sft_rows, work.text_tokens()))
        pictures = random_pictures(work, rng, rows.sft_rows)
        chats = [encode(work, w, p, name="random") for w, p in zip(words, pictures)]
        responses = list(random_ids(work, rng, (rows.sft_rows, rows.new_tokens)))
        loaded, self._state, optimizer = open_training(setting)
        model = loaded.module(dtype=setting.dtype, remat=setting.remat)
        bucket = need_of([length_of(chat, rows.new_tokens) for chat in chats], rows=rows.sft_rows)
        padding = padding_of(loaded.processor)
        self._batch = collate(chats, responses, bucket=bucket, packed=None, input_responses=None, **padding)
        self._step = compile_sft_step(model, optimizer, self._state, self._mesh)

    def repeat(self) -> Seconds:
        """Place the batch and take one step."""

        def step() -> Any:
            self._state, figures = self._step(self._state, place_rows(self._mesh, self._batch))
            return self._state, figures

        return timed(step)


class GrpoCase:
    """A whole GRPO step: encode prompts, sample responses, compute advantages of random rewards, update once.

    Rewards are random numbers: scoring texts takes a negligible time, and random texts have no verdict.
    """

    def __init__(self, setting: Setting) -> None:
        self._mesh = setting.mesh
        loaded, self._state, optimizer = open_training(setting)
        self._rollout = _Rollout(setting, loaded)
        model = loaded.module(dtype=setting.dtype, remat=setting.remat)
        loss = PolicyLoss(kl_coef=0.0)
        self._update = compile_grpo_step(model, optimizer, self._state, self._mesh, loss, first_update=True)
        self._suppressed = make_vocabulary(loaded.processor).suppressed_V
        self._rng = np.random.default_rng([setting.seed, 1])
        self._count = 0

    def repeat(self) -> Seconds:
        """Take one step."""
        phases: Seconds = {}
        whole = timed(lambda: self._advance(phases))
        return {**whole, **phases}

    def _advance(self, phases: Seconds) -> TrainState:
        rows, self._count = self._rollout.work.rows, self._count + 1
        then = time.perf_counter()

        def lap(phase: str) -> None:
            nonlocal then
            now = time.perf_counter()
            phases[phase], then = now - then, now

        chats = self._rollout.chats()
        lap("prompts")
        samples = self._rollout.sample(self._state.params, chats, step=self._count, tokens=rows.new_tokens)
        lap("rollout")
        rewards_QR = self._rng.random((rows.questions, rows.responses)).astype(np.float32)
        advantage_B = np.asarray(group_advantages(jnp.asarray(rewards_QR))).reshape(-1)
        batch = place_rows(self._mesh, make_grpo_batch(samples.encoded(), advantage_B, temperature=1.0))
        self._state, figures = self._update(self._state, batch, self._suppressed)
        jax.block_until_ready((self._state, figures))
        lap("update")
        return self._state


CASES: dict[str, Callable[[Setting], Case]] = {"sampler": SamplerCase, "sft": SftCase, "grpo": GrpoCase}


def timed(call: Callable[[], Any]) -> Seconds:
    """Run a call and wait for its device arrays; return wall-clock seconds and CPU seconds of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(call())
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def random_params(config: ModelConfig, mesh: Mesh, *, dtype: Any, seed: int) -> dict[str, Any]:
    """Draw weights of this dtype directly to their shards on the mesh."""
    shardings = shardings_for(abstract_params(config), mesh)

    def draw(rng: jax.Array) -> Any:
        return jax.tree.map(lambda leaf: leaf.astype(dtype), init_params(config, rng))

    return jax.jit(draw, out_shardings=shardings)(jax.random.key(seed))


def open_training(setting: Setting) -> tuple[LoadedModel, TrainState, Any]:
    """Return a model with float32 weights, its state of step 0 with the language model trained, and the optimizer."""
    config = setting.work.config
    params = random_params(config, setting.mesh, dtype=jnp.float32, seed=setting.seed)
    optimizer = make_optimizer(OptimizerSettings(), optax.constant_schedule(1e-5))
    state = place_state(setting.mesh, init_state(params, optimizer, TRAINED))
    return _blank(setting, params), state, optimizer


def _blank(setting: Setting, params: Any) -> LoadedModel:
    """Return a model without a folder, which keeps only the shapes of its parameters."""
    return LoadedModel(blank_processor(setting.work.config), jax.eval_shape(lambda: params), Path())


class _Rollout:
    """The questions of a workload and a sampler of responses to them; every response reaches its token limit."""

    def __init__(self, setting: Setting, loaded: LoadedModel) -> None:
        self.work, rows = setting.work, setting.work.rows
        rng = np.random.default_rng(setting.seed)
        self._words = random_ids(self.work, rng, (rows.questions, self.work.text_tokens()))
        self._pictures = random_pictures(self.work, rng, rows.questions)
        model = loaded.module(dtype=setting.dtype, remat=setting.remat)
        self._sampler, self._seed = Sampler(model, loaded.processor), setting.seed

    def chats(self) -> list[Any]:
        """Cut the pictures into patches and encode the prompts."""
        return [encode(self.work, words, p, name="random") for words, p in zip(self._words, self._pictures)]

    def sample(self, params: Any, chats: list[Any], *, step: int, tokens: int) -> Rollout:
        """Sample R responses of ``tokens`` tokens to every question."""
        rows = self.work.rows
        lengths = [length_of(chat) for chat in chats]
        return self._sampler.sample(
            params,
            chats,
            [str(question) for question in range(rows.questions)],
            bucket=need_of(lengths, rows=rows.questions),
            responses=rows.responses,
            sampling=Sampling(),
            max_new_tokens=tokens,
            slots=rows.new_tokens,
            seed=self._seed,
            step=step,
        )

"""The decoding programs of one model, compiled once per shape. Their caches and states are values of the caller.

``PromptCache`` and ``Decoding`` are these values. The batch call (``sampler.Sampler``) and a server that answers
requests as they come run the same programs::

    prompts, _ = engine.prefill(params, chats, positions)
    decoding = engine.empty(plan, vocabulary, prompt_slots=..., slots=...)
    decoding = engine.join(decoding, group, prompts, question, draws, settings, wanted, vocabulary)
    decoding, written, more = engine.advance(params, None, decoding, vocabulary, until, plan=plan)
    longer = engine.extend(params, engine.branch(decoding, rows, group=plan.group), tokens, mask)
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int, Integer

from urt_jax.generation import joining, prompt_cache
from urt_jax.generation.loop import advance, completions_of, row_keys, start, token_draws
from urt_jax.generation.prompt_cache import PromptCache
from urt_jax.generation.schedule import Schedule
from urt_jax.generation.state import Completions, Decoding, RowSettings, Vocabulary
from urt_jax.models.vlm import VisionLanguageModel
from urt_jax.sharding.activations import compiled_ahead, with_mesh
from urt_jax.types import Array, Batch, VisionFeatures

Rows = tuple[Integer[Array, " B"], Integer[Array, " B"], Integer[Array, " B"]]  # seed, question, response of each row


class Engine:
    """The compiled programs of one model; each call passes the parameters.

    Programs differ by shapes only: every setting is traced. ``mesh`` is the mesh on which the arguments lie; with
    ``ahead`` a program is compiled, but not run, and the call returns the shapes of its results.
    """

    def __init__(self, model: VisionLanguageModel) -> None:
        self.model = model
        self._prefill = jax.jit(partial(prompt_cache.prefill, model), static_argnames="penalised")
        self._extend = jax.jit(partial(prompt_cache.extend, model))
        self._branch = jax.jit(prompt_cache.branch, static_argnames="group")
        self._begin = jax.jit(self._begun, static_argnames=("plan", "questions", "slots"))
        names = ("plan", "prompt_slots", "slots", "penalised")
        self._empty = jax.jit(partial(joining.empty, model), static_argnames=names)
        self._draw = jax.jit(_draws, static_argnames="slots")
        self._join = jax.jit(joining.join, donate_argnums=0)
        self._leave = jax.jit(joining.leave, donate_argnums=0)
        self._advance = jax.jit(self._advanced, static_argnames="plan", donate_argnames="decoding")

    def prefill(
        self, params: Any, prompts: Batch, next_position_Q: Int[Array, " Q"], *, penalised: bool = False,
        mesh: Mesh | None = None, ahead: bool = False,
    ) -> tuple[PromptCache, VisionFeatures | None]:  # fmt: skip
        """Run Q left-padded prompts; see ``prompt_cache.prefill``."""
        run = _caller(self._prefill, mesh, ahead)
        return run(params, prompts, next_position_Q, penalised=penalised)

    def extend(
        self, params: Any, prompts: PromptCache, tokens_QU: Int[Array, "Q U"], mask_QU: Bool[Array, "Q U"], *,
        mesh: Mesh | None = None,
    ) -> PromptCache:  # fmt: skip
        """Return the prompts, each followed by text tokens; see ``prompt_cache.extend``."""
        return with_mesh(self._extend, mesh)(params, prompts, tokens_QU, mask_QU)

    def branch(self, decoding: Decoding, rows: Int[Array, " some"], *, group: int) -> PromptCache:
        """Return prompts made of some rows' prompts and responses so far; see ``prompt_cache.branch``."""
        return self._branch(decoding.state, jnp.asarray(rows), group=group)

    def begin(
        self, prompts: PromptCache, first: Int[Array, ""], step: Int[Array, ""], rows: Rows, settings: RowSettings,
        vocabulary: Vocabulary, *, plan: Schedule, questions: int, slots: int, mesh: Mesh | None = None,
        ahead: bool = False,
    ) -> tuple[PromptCache, Decoding]:  # fmt: skip
        """Return ``plan.questions`` of the prompts, from ``first`` on, and their batch before the first token."""
        run = _caller(self._begin, mesh, ahead)
        fixed = {"plan": plan, "questions": questions, "slots": slots}
        return run(prompts, first, step, rows, settings, vocabulary, **fixed)

    def empty(
        self, plan: Schedule, vocabulary: Vocabulary, *, prompt_slots: int, slots: int, penalised: bool = False
    ) -> Decoding:
        """Return a batch that rows can join; see ``joining.empty``."""
        fixed = {"plan": plan, "prompt_slots": prompt_slots, "slots": slots, "penalised": penalised}
        return self._empty(vocabulary=vocabulary, **fixed)

    def draws(self, seed_B: Any, question_B: Any, response_B: Any, *, slots: int, step: int = 0) -> Array:
        """Return the random numbers ``[B, U]`` of rows; see ``loop.row_keys``."""
        rows = tuple(jnp.asarray(part, jnp.uint32) for part in (seed_B, question_B, response_B))
        return self._draw(jnp.int32(step), rows, slots=slots)

    def join(
        self, decoding: Decoding, group: int, prompts: PromptCache, question: int, draws_RU: Float[Array, "R U"],
        settings: RowSettings, wanted_R: Bool[Array, " R"], vocabulary: Vocabulary,
    ) -> Decoding:  # fmt: skip
        """Start a group's rows on a prompt; ``decoding`` is donated. See ``joining.join``."""
        at, which = jnp.int32(group), jnp.int32(question)
        return self._join(decoding, at, prompts, which, draws_RU, settings, wanted_R, vocabulary)

    def leave(self, decoding: Decoding, row: int) -> Decoding:
        """Free a row; ``decoding`` is donated. See ``joining.leave``."""
        return self._leave(decoding, jnp.int32(row))

    def advance(
        self, params: Any, prompts: PromptCache | None, decoding: Decoding, vocabulary: Vocabulary,
        until: Int[Array, ""], *, plan: Schedule, mesh: Mesh | None = None, ahead: bool = False,
    ) -> tuple[Decoding, Completions, Any]:  # fmt: skip
        """Decode until step ``until`` or until no row is active; see ``loop.advance``. ``decoding`` is donated.

        Return the batch, the responses so far, and whether a row is still active (``bool []``).
        """
        run = _caller(self._advance, mesh, ahead)
        return run(params, prompts, decoding, vocabulary, until, plan=plan)

    def programs(self) -> dict[str, int]:
        """Return the number of programs of each kind compiled so far."""
        kinds = {"prefill": self._prefill, "begin": self._begin, "advance": self._advance}
        return {name: getattr(program, "_cache_size")() for name, program in kinds.items()}  # noqa: B009

    def _begun(
        self, prompts: PromptCache, first: Any, step: Any, rows: Rows, settings: RowSettings, vocabulary: Vocabulary,
        *, plan: Schedule, questions: int, slots: int,
    ) -> tuple[PromptCache, Decoding]:  # fmt: skip
        whole = plan.parts * plan.questions == questions
        prompts = prompts if whole else prompts.part(first, plan.questions)
        state = start(self.model, prompts, plan, settings, vocabulary, slots=slots)
        return prompts, Decoding(_draws(step, rows, slots=slots), settings, state)

    def _advanced(
        self, params: Any, prompts: Any, decoding: Decoding, vocabulary: Any, until: Any, *, plan: Schedule
    ) -> tuple[Decoding, Completions, Any]:
        draws, settings, state = decoding
        state = advance(self.model, params, prompts, plan, draws, settings, vocabulary, state, until)
        more = jnp.asarray(state.rows.live_PB).any()
        return Decoding(draws, settings, state), completions_of(state), more


def _draws(step: Any, rows: Rows, *, slots: int) -> Array:
    seed_B, question_B, response_B = rows
    return token_draws(row_keys(seed_B, step, question_B, response_B), slots)


def _caller(program: Any, mesh: Mesh | None, ahead: bool) -> Callable[..., Any]:
    return (compiled_ahead if ahead else with_mesh)(program, mesh)

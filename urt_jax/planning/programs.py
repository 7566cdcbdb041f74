"""The stages' own programs with abstract arguments (shapes and shardings on a mesh), to be compiled but not run."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from urt_jax.generation.loop import advance, start
from urt_jax.generation.prompt_cache import prefill
from urt_jax.generation.schedule import Schedule
from urt_jax.generation.state import RowSettings, Vocabulary
from urt_jax.generation.stops import no_stops
from urt_jax.losses.policy import PolicyLoss
from urt_jax.models.config import ModelConfig, VisionConfig, WindowedVisionConfig
from urt_jax.models.vlm import VisionLanguageModel, abstract_params
from urt_jax.planning.layout import TRAINED
from urt_jax.planning.memory import Program
from urt_jax.planning.roofline import picture_side
from urt_jax.planning.workloads import Workload
from urt_jax.sharding.activations import with_mesh
from urt_jax.sharding.placement import row_sharding, sampling_shapes
from urt_jax.sharding.rules import shardings_for, spec_of
from urt_jax.training.compile import compile_grpo_step, compile_score_step, compile_sft_step
from urt_jax.training.optimizer import make_optimizer
from urt_jax.training.settings import OptimizerSettings
from urt_jax.training.state import init_state
from urt_jax.training.steps import GrpoBatch
from urt_jax.types import Batch, FeatureBlend, PromptedRows, Targets, VisionInput

Prepared = tuple[Any, tuple[Any, ...]]  # a jitted function and its abstract arguments


@dataclass(frozen=True)
class Given:
    """The settings of a program to compile; ``questions`` (rows, in SFT) are those of a step over all parts.

    They are computed in ``pieces``: micro-batches of an update or a score; in decoding, as rows become free.
    """

    work: Workload
    mesh: Mesh
    questions: int
    dtype: Any
    pieces: int = 1
    remat: str = "full"
    attention: str = "xla"

    @property
    def model(self) -> VisionLanguageModel:
        """The model that computes in ``dtype`` on float32 weights."""
        return VisionLanguageModel(self.work.config, self.dtype, np.float32, self.remat, attention=self.attention)

    @property
    def config(self) -> ModelConfig:
        """Its sizes."""
        return self.work.config


def prepare(program: Program, given: Given) -> Prepared:
    """Return a program and its abstract arguments; ``.lower(*arguments).compile()`` compiles it."""
    return {"sft": _sft, "grpo": _grpo, "score": _score, "prefill": _prefill, "decode": _decode}[program](given)


def frame_slots(tower: VisionConfig, pixels: int) -> int:
    """Return the patch slots of one square picture, padded to whole windows if the tower has windows."""
    side = picture_side(tower, pixels)
    if isinstance(tower, WindowedVisionConfig) and side**2 > tower.window_slots:
        window = tower.window_merged * tower.merge_size
        return (-(-side // window)) ** 2 * tower.window_slots
    return side**2


def _shape(mesh: Mesh, shape: tuple[int, ...], dtype: Any, axis: int = 0, rows: str = "rows") -> Any:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=row_sharding(mesh, shape, axis, rows))


def _placed(tree: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree, shardings
    )


def _batch(given: Given, rows: int, tokens: int) -> Batch:
    mesh, tower = given.mesh, given.config.vision
    of = partial(_shape, mesh)
    frames, slots = rows * given.work.rows.pictures, frame_slots(tower, given.work.rows.picture_side)
    of_frames, sources = partial(of, rows="frames"), tower.blend_sources
    return Batch(
        tokens_BT=of((rows, tokens), jnp.int32),
        positions_3BT=of((3, rows, tokens), jnp.int32, 1),
        segments_BT=of((rows, tokens), jnp.int32),
        vision_index_BT=of((rows, tokens), jnp.int32),
        vision=VisionInput(
            of_frames((frames, slots, tower.patch_features), jnp.float32),
            of_frames((frames, slots, 2), jnp.int32),
            of_frames((frames, slots), jnp.bool_),
        ),
        blend=FeatureBlend(of((rows, tokens, sources), jnp.int32), of((rows, tokens, sources), jnp.float32))
        if sources
        else None,
    )


def _prompted(given: Given) -> PromptedRows:
    rows, of = given.work.rows, partial(_shape, given.mesh)
    answers = (given.questions * rows.responses, rows.new_tokens)
    prompts = _batch(given, given.questions, rows.prompt_tokens)
    return PromptedRows(prompts, of((given.questions,), jnp.int32), of(answers, jnp.int32), of(answers, jnp.bool_))


def _params(given: Given) -> Any:
    tree = abstract_params(given.config)
    return _placed(tree, shardings_for(tree, given.mesh))


def _sampled(given: Given) -> Any:
    return sampling_shapes(given.mesh, abstract_params(given.config), given.dtype)


def _training(given: Given) -> tuple[Any, Any]:
    """Return the state of step 0 and the optimizer."""
    optimizer = make_optimizer(OptimizerSettings(), optax.constant_schedule(1e-5))
    state = jax.eval_shape(lambda params: init_state(params, optimizer, TRAINED), abstract_params(given.config))
    return _placed(state, shardings_for(state, given.mesh)), optimizer


def _sft(given: Given) -> Prepared:
    state, optimizer = _training(given)
    tokens = given.work.rows.prompt_tokens + given.work.rows.new_tokens
    step = compile_sft_step(given.model, optimizer, state, given.mesh, micro_batches=given.pieces)
    parts, rows = given.mesh.shape["sequence"], given.questions
    of = partial(_shape, given.mesh, (rows, parts, min(given.work.rows.new_tokens, tokens // parts)))
    batch = _batch(given, rows, tokens)._replace(targets=Targets(of(jnp.int32), of(jnp.int32), of(jnp.bool_)))
    return step, (state, batch)


def _grpo(given: Given) -> Prepared:
    state, optimizer = _training(given)
    rows, of = given.work.rows, partial(_shape, given.mesh)
    batch = given.questions * rows.responses
    floats = of((batch, rows.new_tokens), jnp.float32)
    nothing = of((0, rows.new_tokens), jnp.bool_)
    scalar, advantage = of((), jnp.float32), of((batch,), jnp.float32)
    loss = PolicyLoss(kl_coef=0.0)
    step = compile_grpo_step(
        given.model, optimizer, state, given.mesh, loss, first_update=True, micro_batches=given.pieces
    )
    grpo = GrpoBatch(_prompted(given), advantage, floats, floats, floats, nothing, scalar)
    return step, (state, grpo, _suppressed(given))


def _score(given: Given) -> Prepared:
    arguments = (_params(given), _prompted(given), _shape(given.mesh, (), jnp.float32), _suppressed(given))
    return compile_score_step(given.model, given.mesh, micro_batches=given.pieces), arguments


def _prefill(given: Given) -> Prepared:
    program = jax.jit(with_mesh(partial(prefill, given.model, penalised=False), given.mesh))
    positions = _shape(given.mesh, (given.questions,), jnp.int32)
    return program, (_sampled(given), _batch(given, given.questions, given.work.rows.prompt_tokens), positions)


def _decode(given: Given) -> Prepared:
    """Return the loop over tokens; caches are split as their rows, heads over ``tensor``, prompts over ``sequence``."""
    rows, mesh = given.work.rows, given.mesh
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    every = given.questions * rows.responses
    plan = Schedule.of(questions=given.questions, responses=rows.responses, rows=every // given.pieces, parts=parts)
    prompts, arguments = _prefill(given)
    asked, _ = jax.eval_shape(prompts, *arguments)
    of = partial(_shape, mesh)
    vocabulary = _vocabulary(given)
    floats, whole = of((every,), jnp.float32), of((every,), jnp.int32)
    settings = RowSettings(floats, whole, floats, floats, floats, whole, whole)
    begin = partial(start, given.model, plan=plan, slots=rows.new_tokens)
    state = jax.eval_shape(
        lambda asked, settings, vocabulary: begin(asked, settings=settings, vocabulary=vocabulary),
        asked, settings, vocabulary,
    )  # fmt: skip

    def decode(params: Any, asked: Any, draws: Any, settings: Any, vocabulary: Any, state: Any, until: Any) -> Any:
        return advance(given.model, params, asked, plan, draws, settings, vocabulary, state, until)

    places = [_placed(tree, _cache_shardings(tree, mesh)) for tree in (asked, state)]
    draws = of((every, rows.new_tokens), jnp.float32)
    arguments = (_sampled(given), places[0], draws, settings, vocabulary, places[1], of((), jnp.int32))
    return jax.jit(with_mesh(decode, mesh), donate_argnums=5), arguments


def _vocabulary(given: Given) -> Any:
    """Return the shapes of a vocabulary with one end token and no stop strings, replicated on all devices."""
    size, whole = given.config.decoder.vocab_size, NamedSharding(given.mesh, P())

    def make() -> Vocabulary:
        stops = jax.tree.map(jnp.asarray, no_stops(size))
        return Vocabulary(jnp.zeros(1, jnp.int32), jnp.zeros(size, bool), jnp.int32(0), stops)

    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), jax.eval_shape(make))


def _cache_shardings(tree: Any, mesh: Mesh) -> Any:
    """Return the shardings of prompts and responses: rows split, heads and slots of caches by the table of rules."""

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        if leaf.ndim != 5:
            return row_sharding(mesh, leaf.shape, 0)
        record, kind = (key.name for key in path)
        slots = None if record == "past" else "tokens"  # responses are written one token at a time
        last = (None, slots) if kind == "key" else (slots, None)
        return NamedSharding(mesh, spec_of((None, "rows", "heads", *last), leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(place, tree)


def _suppressed(given: Given) -> jax.ShapeDtypeStruct:
    place = NamedSharding(given.mesh, P())
    return jax.ShapeDtypeStruct((given.config.decoder.vocab_size,), jnp.bool_, sharding=place)

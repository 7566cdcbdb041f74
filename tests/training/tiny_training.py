"""States and batches of the tiny model for the tests of training."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from tests.tiny import EOS, MODEL, PAD, WORDS, as_jnp, batch_of, make_chat, tiny_params
from urt_jax.losses.policy import PolicyLoss
from urt_jax.sharding.mesh import make_mesh
from urt_jax.sharding.placement import place_rows, place_state
from urt_jax.training.compile import compile_grpo_step, compile_score_step, compile_sft_step
from urt_jax.training.rollout import make_grpo_batch
from urt_jax.training.state import TrainState, init_state
from urt_jax.training.steps import GrpoBatch
from urt_jax.types import Batch, PromptedRows, Rollout

TRAINED = (r"^decoder/", r"^embedding$", r"^head$")
PLAIN = optax.sgd(0.1)  # parameters move by a tenth of the gradient, which is compared so
SLOTS, QUESTIONS, RESPONSES = 6, 2, 4
TEMPERATURE = 0.8
SUPPRESSED = np.isin(np.arange(40), [1, 3, 4, 5, 6, 38, 39])
GRPO = PolicyLoss("grpo", clip_low=0.2, clip_high=0.2, kl_coef=0.0)


def one_device() -> Mesh:
    return make_mesh(devices=jax.devices()[:1])


def fresh_state(optimizer: optax.GradientTransformation = PLAIN, mesh: Mesh | None = None) -> TrainState:
    """Return the state of step 0 on one device or a mesh; a step may reuse its memory."""
    return place_state(mesh or one_device(), init_state(as_jnp(tiny_params()), optimizer, TRAINED))


def sft_records() -> tuple[list[Any], list[list[int]]]:
    """Return eight chats, some with a picture, and answers of several lengths."""
    chats = [make_chat(i, text=3 + i % 4, pictures=[(1, 1 + i % 2)] * (i % 2)) for i in range(8)]
    rng = np.random.default_rng(5)
    return chats, [[*map(int, rng.integers(WORDS.start, WORDS.stop, 1 + i % 4)), EOS] for i in range(8)]


def sft_batch(packed: list[list[int]] | None = None, **larger: int) -> Batch:
    chats, answers = sft_records()
    return batch_of(chats, answers, packed=packed, **{"tokens": 16, "frames": 8, **larger})


def learnt_places(batch: Batch) -> np.ndarray:
    """Return where a token is learnt from, ``bool [B, T]``."""
    learnt = np.zeros(batch.tokens_BT.shape, bool)
    for row, (places, mask) in enumerate(zip(batch.targets.place_BZJ[:, 0], batch.targets.mask_BZJ[:, 0])):
        learnt[row, places[mask]] = True
    return learnt


def rollout(pairs: int = 1) -> Rollout:
    """Return a group of random responses to each of two questions (or more pairs of them), the first row ended early.

    The first question of a pair shows a picture.
    """
    chats = [make_chat(i, pictures=[(1, 2)]) if i % 2 else make_chat(i, text=7) for i in range(1, 2 * pairs + 1)]
    rng = np.random.default_rng(3)
    rows = QUESTIONS * pairs * RESPONSES
    lengths = np.tile([3, 6, 6, 4, 6, 5, 6, 2], pairs)
    mask = np.arange(SLOTS)[None] < lengths[:, None]
    tokens = rng.integers(WORDS.start, WORDS.stop, (rows, SLOTS))
    tokens[np.arange(rows), lengths - 1] = EOS
    prompts = batch_of(chats, left=True, tokens=12)
    positions = np.array([chat.next_position for chat in chats], np.int32)
    return Rollout(
        prompts,
        positions,
        np.where(mask, tokens, PAD).astype(np.int32),
        mask,
        np.zeros((rows, SLOTS), np.float32),
        np.ones(rows, bool),
        ("",) * rows,
    )


def grpo_batch(advantage_B: Any, pairs: int = 1) -> GrpoBatch:
    """Return the update's batch on the host, all log-probabilities those of the fresh parameters."""
    batch = make_grpo_batch(rollout(pairs), np.asarray(advantage_B, np.float32), temperature=TEMPERATURE)
    logp = np.asarray(score(tiny_params(), batch.rows))
    return batch._replace(sampler_logp_BU=logp, ref_logp_BU=logp, old_logp_BU=logp)


_score = compile_score_step(MODEL)


def score(params: Any, rows: PromptedRows) -> np.ndarray:
    """Return the log-probabilities of all completions."""
    return np.asarray(_score(params, rows, np.float32(TEMPERATURE), SUPPRESSED).logp_BU)


@cache
def sft_step(mesh: Mesh) -> Any:
    return compile_sft_step(MODEL, PLAIN, fresh_state(mesh=mesh), mesh)


@cache
def grpo_step(mesh: Mesh, loss: PolicyLoss, first_update: bool) -> Any:
    return compile_grpo_step(MODEL, PLAIN, fresh_state(mesh=mesh), mesh, loss, first_update=first_update)


def run_sft(batch: Batch, mesh: Mesh | None = None) -> tuple[TrainState, dict[str, Any]]:
    mesh = mesh or one_device()
    return sft_step(mesh)(fresh_state(mesh=mesh), place_rows(mesh, batch))


def run_grpo(
    batch: GrpoBatch,
    mesh: Mesh | None = None,
    *,
    loss: PolicyLoss = GRPO,
    first_update: bool = True,
    state: TrainState | None = None,
) -> tuple[TrainState, dict[str, Any]]:
    """Take one step from ``state``, or from the fresh one; the given state's memory is kept."""
    mesh = mesh or one_device()
    start = fresh_state(mesh=mesh) if state is None else jax.tree.map(jnp.copy, state)
    return grpo_step(mesh, loss, first_update)(start, place_rows(mesh, batch), SUPPRESSED)


def assert_close(found: Any, wanted: Any, *, atol: float = 2e-6) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
        np.testing.assert_allclose(one, other, atol=atol, rtol=1e-5)


def assert_same(found: Any, wanted: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))

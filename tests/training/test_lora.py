"""Training adapters: what is drawn, what moves and what does not, the same on every mesh and after a stop."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

from tests.tiny import MODEL, as_jnp, tiny_params
from tests.tiny_lora import DECODER, EVERYWHERE, adapted
from tests.training.tiny_training import SUPPRESSED, assert_close, assert_same, grpo_batch, one_device, sft_batch
from urt_jax.errors import BadInputError
from urt_jax.losses.policy import PolicyLoss
from urt_jax.models.lora import without_adapters
from urt_jax.sharding.mesh import make_mesh
from urt_jax.sharding.placement import place_rows, place_state
from urt_jax.training.compile import compile_grpo_step, compile_sft_step
from urt_jax.training.loop import train
from urt_jax.training.lora import ADAPTER_PATTERNS, add_adapters
from urt_jax.training.optimizer import make_optimizer
from urt_jax.training.settings import LoopSettings, OptimizerSettings
from urt_jax.training.skipped import TrainedBatch
from urt_jax.training.state import TrainState, init_state

RANK = 3
ADAMW = make_optimizer(OptimizerSettings(weight_decay=0.1), optax.constant_schedule(1e-2))


def fresh(targets: tuple[str, ...] = DECODER, *, seed: int = 0) -> Any:
    return add_adapters(tiny_params(), rank=RANK, alpha=6.0, targets=targets, rng=jax.random.key(seed))


def state_on(mesh: jax.sharding.Mesh, params: Any, optimizer: Any = ADAMW) -> TrainState:
    return place_state(mesh, init_state(as_jnp(params), optimizer, ADAPTER_PATTERNS))


def paths_of(tree: Any) -> list[str]:
    found = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in found]


def test_fresh_adapters_are_uniform_in_a_and_zero_in_b() -> None:
    layers = fresh()["decoder"]["layers"]
    down = layers["mlp"]["down"]
    assert {name: leaf.shape for name, leaf in down.items()} == {
        "kernel": (2, 24, 32),
        "lora_a": (2, 24, RANK),
        "lora_b": (2, RANK, 32),
        "lora_scale": (2,),
    }
    assert 0.9 / np.sqrt(24) < np.abs(down["lora_a"]).max() < 1.0 / np.sqrt(24)
    np.testing.assert_allclose(np.std(down["lora_a"]), 1.0 / np.sqrt(3 * 24), rtol=0.15)
    np.testing.assert_array_equal(down["lora_b"], 0.0)
    np.testing.assert_array_equal(down["lora_scale"], np.float32(2.0))
    assert not np.array_equal(down["lora_a"][0], down["lora_a"][1])
    query, key = layers["attention"]["q"]["lora_a"], layers["attention"]["k"]["lora_a"]
    assert query.shape == key.shape
    assert not np.array_equal(query, key)
    assert_same(without_adapters(fresh()), tiny_params())


def test_an_adapter_depends_on_the_key_and_its_own_path() -> None:
    few, other = fresh((r"attention/q/",)), fresh((r"attention/q/",), seed=1)
    assert sum("lora_a" in path for path in paths_of(few)) == 1
    drawn = [tree["decoder"]["layers"]["attention"]["q"]["lora_a"] for tree in (fresh(), few, other)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], drawn[2])


def test_projections_that_are_not_stacked_have_one_adapter() -> None:
    projector = fresh(EVERYWHERE)["vision"]["projector"]["mlp"]["output"]
    assert (projector["lora_a"].shape, projector["lora_scale"].shape) == ((64, RANK), ())
    assert "lora_a" not in fresh(EVERYWHERE)["vision"]["patch_embed"]


def test_a_misspelt_target_and_a_second_adapter_are_refused() -> None:
    there = r"decoder/layers/attention/k/kernel, .*vision/projector/mlp/output/kernel"
    with pytest.raises(BadInputError, match=rf"lora targets \['q_proj', 'patch_embed'\] match no projection.*{there}"):
        fresh((r"attention/q/", "q_proj", "patch_embed"))
    with pytest.raises(BadInputError, match=r"have adapters already \(decoder/.*/lora_a\); merge them"):
        add_adapters(fresh(), rank=2, alpha=1.0, targets=DECODER, rng=jax.random.key(0))


def test_nothing_but_adapters_has_gradients_or_moments() -> None:
    state = init_state(fresh(), ADAMW, ADAPTER_PATTERNS)
    assert {path.rsplit("/", 1)[-1] for path in paths_of(state.trainable)} == {"lora_a", "lora_b"}
    assert len(jax.tree.leaves(state.trainable)) == 2 * 7
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(state.trainable))
    widths = {"q": (32, 32), "k": (32, 16), "v": (32, 16), "o": (32, 32), "gate": (32, 24), "up": (32, 24)}
    assert held == 4 * 2 * RANK * sum(map(sum, [*widths.values(), (24, 32)]))
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if np.ndim(leaf)]
    assert sum(leaf.nbytes for leaf in moments) == 2 * held
    assert_same(without_adapters(state.frozen), tiny_params())


def test_some_steps_move_both_matrices_and_nothing_else() -> None:
    start = fresh(EVERYWHERE)
    state = state_on(one_device(), start)
    step = compile_sft_step(MODEL, ADAMW, state, one_device())
    losses = []
    for _ in range(6):
        state, figures = step(state, place_rows(one_device(), sft_batch()))
        losses.append(float(figures["loss"]))
    assert step._cache_size() == 1
    assert losses[-1] < losses[0] - 0.3
    assert_same(without_adapters(state.params), tiny_params())
    assert_same(state.frozen, init_state(start, ADAMW, ADAPTER_PATTERNS).frozen)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.trainable):
        before = dict(jax.tree_util.tree_leaves_with_path(init_state(start, ADAMW, ADAPTER_PATTERNS).trainable))[path]
        assert np.abs(np.asarray(leaf) - np.asarray(before)).max() > 1e-4, jax.tree_util.keystr(path)


@pytest.mark.parametrize("sizes", [(8, 1, 1), (1, 8, 1), (1, 2, 4), (2, 2, 2)], ids=str)
def test_adapters_on_eight_devices_are_those_on_one(sizes: tuple[int, int, int]) -> None:
    plain = optax.sgd(0.1)
    found = []
    for mesh in (one_device(), make_mesh(*sizes)):
        state = state_on(mesh, adapted(tiny_params(), rank=4, targets=EVERYWHERE), plain)
        step = compile_sft_step(MODEL, plain, state, mesh)
        found.append(step(state, place_rows(mesh, sft_batch())))
    (one, figures), (eight, split) = found
    np.testing.assert_allclose(split["loss"], figures["loss"], rtol=1e-6)
    np.testing.assert_allclose(split["grad_norm"], figures["grad_norm"], rtol=1e-4)
    assert_close(eight.trainable, one.trainable)


def test_grpo_moves_adapters_alone() -> None:
    state = state_on(one_device(), fresh())
    loss = PolicyLoss("grpo", clip_low=0.2, clip_high=0.2, kl_coef=0.1)
    step = compile_grpo_step(MODEL, ADAMW, state, one_device(), loss, first_update=True)
    advantage = np.array([1.0, -1.0, 0.5, -0.5, 2.0, -1.0, -1.0, 0.0], np.float32)
    state, figures = step(state, place_rows(one_device(), grpo_batch(advantage)), SUPPRESSED)
    assert float(figures["grad_norm"]) > 0
    assert float(figures["kl"]) == pytest.approx(0.0, abs=1e-6), "fresh adapters are the reference"
    assert_same(without_adapters(state.params), tiny_params())


def test_a_stopped_run_ends_with_the_same_adapters(tmp_path: Path) -> None:
    batch = sft_batch()
    settings = LoopSettings(4, save_every=2, keep=1)

    def go(folder: Path, stop: int | None = None) -> TrainState:
        state = state_on(one_device(), fresh())
        step_fn = compile_sft_step(MODEL, ADAMW, state, one_device())

        def advance(state: TrainState, step: int) -> Any:
            if step == stop:
                raise KeyboardInterrupt
            tokens = (7 + (batch.tokens_BT + step) % 31).astype(np.int32)
            return *step_fn(state, batch._replace(tokens_BT=tokens)), TrainedBatch([], {})

        return train(folder, state, advance, settings, title="lora")

    whole = go(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "stopped", stop=3)
    assert_same(go(tmp_path / "stopped"), whole)
    (described,) = (tmp_path / "whole" / "checkpoints").rglob("_METADATA")
    assert "lora_a" in described.read_text()
    assert "kernel" not in described.read_text(), "frozen weights are not saved"

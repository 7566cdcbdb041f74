"""Adapters: by hand, silent where they are 0 or absent, and merged into the weights they adapt."""

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from tests.tiny import MODEL, PROCESSOR, as_jnp, batch_of, jitted, make_chat, need, tiny_params
from tests.tiny_lora import DECODER, EVERYWHERE, adapted
from urt_jax.generation.sampler import Sampler
from urt_jax.generation.sampling import Sampling
from urt_jax.models.layers import Linear
from urt_jax.models.lora import merge_adapters, without_adapters
from urt_jax.sharding.mesh import make_mesh
from urt_jax.sharding.placement import place_state
from urt_jax.training.lora import add_adapters

X = jnp.array([[1.0, 2.0]])
PARAMS = {
    "kernel": np.array([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]], np.float32),
    "bias": np.array([0.5, 0.5, 0.5], np.float32),
    "lora_a": np.array([[1.0], [3.0]], np.float32),
    "lora_b": np.array([[2.0, 0.0, -1.0]], np.float32),
    "lora_scale": np.float32(0.5),
}


@pytest.fixture(scope="module")
def batch() -> Any:
    return batch_of([make_chat(1, pictures=[(2, 2)]), make_chat(2, text=9), make_chat(3, clip=(2, 1, 2))])


def logits(params: Any, batch: Any) -> np.ndarray:
    return np.asarray(jitted()(params, batch))


def assert_same(found: Any, wanted: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_a_linear_layer_with_an_adapter_by_hand() -> None:
    """x @ A = 7, times B and 0.5: (7, 0, -3.5) on top of (1.5, 2.5, 0.5)."""
    layer = Linear(3, True)
    np.testing.assert_allclose(layer.apply({"params": PARAMS}, X), [[8.5, 2.5, -3.0]])
    plain = without_adapters(PARAMS)
    assert set(plain) == {"kernel", "bias"}
    np.testing.assert_allclose(layer.apply({"params": plain}, X), [[1.5, 2.5, 0.5]])
    np.testing.assert_allclose(layer.apply({"params": merge_adapters(PARAMS)}, X), [[8.5, 2.5, -3.0]])


def test_an_adapter_works_in_the_dtype_of_the_computation_and_sums_in_float32() -> None:
    """In bfloat16 256 + 1 is 256; the sum of the products is taken before the result is rounded."""
    ones = {"kernel": np.full((2, 1), 128.0), "lora_a": np.eye(2), "lora_b": np.full((2, 1), 0.5), "lora_scale": 2.0}
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), ones)
    out = Linear(1, dtype=jnp.bfloat16).apply({"params": params}, jnp.ones((1, 2)))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(out, np.float32), [[258.0]])


def test_fresh_adapters_change_no_bit(batch: Any) -> None:
    fresh = add_adapters(tiny_params(), rank=4, alpha=8.0, targets=EVERYWHERE, rng=jax.random.key(0))
    assert len(jax.tree.leaves(fresh)) > len(jax.tree.leaves(tiny_params()))
    np.testing.assert_array_equal(logits(fresh, batch), logits(tiny_params(), batch))


def test_without_adapters_no_adapter_is_computed(batch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = str(jax.make_jaxpr(MODEL.apply)({"params": tiny_params()}, batch))
    taken_out = without_adapters(adapted(tiny_params(), targets=EVERYWHERE))
    assert_same(taken_out, tiny_params())
    monkeypatch.delattr(Linear, "_adapted")
    assert str(jax.make_jaxpr(MODEL.apply)({"params": taken_out}, batch)) == plain


@pytest.mark.parametrize("targets", [DECODER, (r"^vision/",), EVERYWHERE], ids=["decoder", "vision", "everywhere"])
def test_merged_weights_compute_what_adapters_add(batch: Any, targets: tuple[str, ...]) -> None:
    params = adapted(tiny_params(), targets=targets)
    merged = merge_adapters(params)
    assert jax.tree.structure(merged) == jax.tree.structure(tiny_params())
    assert np.abs(logits(params, batch) - logits(tiny_params(), batch)).max() > 0.02
    np.testing.assert_allclose(logits(merged, batch), logits(params, batch), atol=1e-5, rtol=0)


def test_one_layer_s_adapter_moves_that_layer_alone() -> None:
    params = adapted(tiny_params(), targets=[r"mlp/up/kernel$"])
    params["decoder"]["layers"]["mlp"]["up"]["lora_b"][0] = 0.0
    merged = merge_adapters(params)["decoder"]["layers"]["mlp"]["up"]["kernel"]
    before = tiny_params()["decoder"]["layers"]["mlp"]["up"]["kernel"]
    np.testing.assert_array_equal(merged[0], before[0])
    up = params["decoder"]["layers"]["mlp"]["up"]
    np.testing.assert_allclose(merged[1], before[1] + 2.0 * up["lora_a"][1] @ up["lora_b"][1], rtol=1e-6)


def test_merging_on_devices_keeps_every_kernel_in_its_place() -> None:
    mesh = make_mesh(2, 2, 2)
    host = adapted(tiny_params(), targets=EVERYWHERE)
    placed = place_state(mesh, host)
    merged = merge_adapters(placed)
    base = without_adapters(placed)
    for one, other, wanted in zip(*map(jax.tree.leaves, (merged, base, merge_adapters(host))), strict=True):
        assert one.sharding == other.sharding
        np.testing.assert_allclose(one, wanted, rtol=1e-6, atol=1e-7)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(placed))


def test_kernels_keep_their_dtype_and_are_given_up_when_told() -> None:
    half = jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16), tiny_params())
    host = adapted(half)
    up = host["decoder"]["layers"]["mlp"]["up"]
    assert up["kernel"].dtype == ml_dtypes.bfloat16
    assert {up[name].dtype for name in ("lora_a", "lora_b", "lora_scale")} == {np.dtype(np.float32)}
    exact = up["kernel"].astype(np.float32) + 2.0 * up["lora_a"] @ up["lora_b"]
    devices = as_jnp(host)
    for merged in (merge_adapters(host), merge_adapters(devices, donate=True)):
        kernel = merged["decoder"]["layers"]["mlp"]["up"]["kernel"]
        assert kernel.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(np.asarray(kernel), exact.astype(ml_dtypes.bfloat16))
    assert devices["decoder"]["layers"]["mlp"]["up"]["kernel"].is_deleted()
    assert not devices["embedding"].is_deleted()


def test_the_sampler_runs_with_adapters() -> None:
    chats = [make_chat(1, pictures=[(1, 2)]), make_chat(2, text=6)]
    sampler = Sampler(MODEL, PROCESSOR)

    def sample(params: Any) -> Any:
        settings = {"sampling": Sampling(temperature=1.0), "slots": 6, "seed": 3, "responses": 3}
        return sampler.sample(params, chats, ["one", "two"], bucket=need(chats), **settings)

    params = adapted(tiny_params())
    found, wanted, plain = sample(params), sample(merge_adapters(params)), sample(tiny_params())
    np.testing.assert_array_equal(found.tokens_BU, wanted.tokens_BU)
    np.testing.assert_allclose(found.logp_BU, wanted.logp_BU, atol=1e-5)
    assert np.abs(found.logp_BU[:, 0] - plain.logp_BU[:, 0]).max() > 1e-3

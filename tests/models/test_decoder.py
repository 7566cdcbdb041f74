"""The decoder's layers: features of deeper tower layers added to them (DeepStack), and a last layer of prompts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from urt_jax.models.config import DecoderConfig
from urt_jax.models.decoder import Decoder, Injection, inject
from urt_jax.ops.masking import segment_mask

# Two sets of three features of width 2; the places show: text, feature 0, feature 2, a line end.
FEATURES = jnp.array([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[10.0, 20.0], [30.0, 40.0], [50.0, 60.0]]])
INDEX = jnp.array([[-1, 0, 2, -2]])
X = jnp.full((1, 4, 2), 0.5)


@pytest.mark.parametrize(
    ("layer", "added"),
    [
        (0, [[0, 0], [1, 2], [5, 6], [0, 0]]),
        (1, [[0, 0], [10, 20], [50, 60], [0, 0]]),
        (2, [[0, 0]] * 4),
        (7, [[0, 0]] * 4),
    ],
)
def test_each_of_the_first_layers_gets_its_own_features_where_they_are_shown(
    layer: int, added: list[list[float]]
) -> None:
    found = inject(X, Injection(FEATURES, INDEX), jnp.int32(layer))
    np.testing.assert_array_equal(found[0], 0.5 + np.array(added))


def test_one_program_serves_every_layer_and_keeps_the_dtype() -> None:
    traced = []

    @jax.jit
    def run(x: Array, layer: Array) -> Array:
        traced.append(layer)
        return inject(x, Injection(FEATURES, INDEX), layer)

    found = [run(X.astype(jnp.bfloat16), jnp.int32(layer)) for layer in range(3)]
    assert {one.dtype for one in found} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_array_equal([float(one[0, 2, 1]) for one in found], [6.5, 60.5, 0.5])
    assert len(traced) == 1


def test_gradients_reach_the_features_that_are_shown() -> None:
    def total(features: jax.Array) -> jax.Array:
        return inject(X, Injection(features, INDEX), jnp.int32(1)).sum()

    gradient = np.asarray(jax.grad(total)(FEATURES))
    np.testing.assert_array_equal(gradient[0], 0)
    np.testing.assert_array_equal(gradient[1], [[1, 1], [0, 0], [1, 1]])


@pytest.mark.parametrize("layers", [1, 3])
def test_unrolled_layers_compute_of_a_prompt_what_is_read_and_no_more(layers: int) -> None:
    """Of the last layer that is every key and value, but one output; features may be added to that layer too."""
    config = DecoderConfig(40, 32, layers, 4, 2, 8, 24, mrope_section=(2, 1, 1), rope_theta=1e4)
    rng, places = np.random.default_rng(0), np.arange(24)
    x = jnp.asarray(rng.standard_normal((2, 24, 32)), jnp.float32)
    positions = jnp.broadcast_to(jnp.asarray(places), (3, 2, 24))
    real = jnp.asarray(places >= np.array([[0], [5]]))
    index = np.where(rng.random((2, 24)) < 0.5, rng.integers(0, 6, (2, 24)), -1)
    index[:, -1] = 2, 4
    injection = Injection(jnp.asarray(rng.standard_normal((3, 6, 32)), jnp.float32), jnp.asarray(index))
    mask = jnp.asarray(segment_mask(real.astype(int), real.astype(int), places, places))
    looped, unrolled = Decoder(config), Decoder(config, unroll=8)
    params = looped.init(jax.random.key(0), x, positions, mask)

    def prefill(decoder: Decoder) -> Any:
        return jax.jit(lambda p: decoder.apply(p, x, positions, (mask, real), injection, method="prefill"))

    (hidden, cache), (wanted, filled) = prefill(unrolled)(params), prefill(looped)(params)
    whole = jax.jit(lambda p: unrolled.apply(p, x, positions, mask, injection))
    for found in (hidden, wanted):
        np.testing.assert_allclose(found, whole(params)[:, -1], atol=1e-5)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5), cache, filled)

    def work(program: Any) -> float:
        return float(program.lower(params).compile().cost_analysis()["flops"])

    spared = 1 - work(prefill(unrolled)) / work(whole)
    assert 0.6 / layers < spared < 1 / layers

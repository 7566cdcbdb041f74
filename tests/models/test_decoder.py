"""Features of deeper tower layers added to the decoder's first hidden states (DeepStack)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from urt_jax.models.decoder import Injection, inject

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

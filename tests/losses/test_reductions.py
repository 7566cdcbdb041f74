"""Reductions by hand, and a second term with a mean of its own."""

import jax.numpy as jnp
import pytest

from urt_jax.losses.reductions import add_term, mean_of_sequence_means, mean_of_tokens, sum_over_fixed_length

LOSS = jnp.array([[1.0, 2.0, 3.0, 9.0], [4.0, 9.0, 9.0, 9.0], [9.0, 9.0, 9.0, 9.0]])
MASK = jnp.array([[True, True, True, False], [True, False, False, False], [False] * 4])


@pytest.mark.parametrize(
    ("reduction", "total", "denominator"),
    [(mean_of_sequence_means, 6.0, 3.0), (mean_of_tokens, 10.0, 4.0), (sum_over_fixed_length, 10.0, 24.0)],
)
def test_reductions_by_hand(reduction, total, denominator):
    got = reduction(LOSS, MASK, 8)
    assert (float(got[0]), float(got[1])) == (total, denominator)


def test_an_empty_mask_is_nothing_over_nothing_or_over_what_does_not_depend_on_it():
    empty = jnp.zeros_like(MASK)
    for reduction, denominator in ((mean_of_sequence_means, 3.0), (mean_of_tokens, 0.0), (sum_over_fixed_length, 24.0)):
        assert [*map(float, reduction(LOSS, empty, 8))] == [0.0, denominator]


def test_a_fixed_length_must_be_given():
    with pytest.raises(ValueError, match=r"max_tokens is None, but this loss divides by .*: give max_tokens"):
        sum_over_fixed_length(LOSS, MASK, None)


@pytest.mark.parametrize("term", [(6.0, 4.0), (0.0, 0.0)])
def test_a_term_has_its_own_mean(term):
    """5 / 2 - 0.1 * 6 / 4, whatever the two denominators; an empty term adds 0."""
    total = add_term((jnp.float32(5.0), jnp.float32(2.0)), (jnp.float32(term[0]), jnp.float32(term[1])), -0.1)
    assert float(total) / 2 == pytest.approx(2.5 - 0.1 * term[0] / max(term[1], 1))

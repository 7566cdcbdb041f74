"""Chunked log-probabilities against the plain product, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from urt_jax.losses.grpo import policy_loss
from urt_jax.losses.policy import PolicyLoss
from urt_jax.ops.logprobs import chosen_logps, head_logits, temper_logits

RNG = np.random.default_rng(0)
HIDDEN = jnp.asarray(RNG.normal(size=(2, 5, 4)), jnp.float32)
HEAD = jnp.asarray(RNG.normal(size=(7, 4)), jnp.float32)
TARGETS = jnp.asarray(RNG.integers(0, 7, size=(2, 5)))
SUPPRESS = jnp.asarray([False, False, True, False, False, False, True])
ALLOWED = jnp.asarray([[0, 1, 3, 4, 5], [5, 4, 3, 1, 0]])


def plain(hidden, head, targets, temperature):
    logp = jax.nn.log_softmax(jnp.einsum("btd,vd->btv", hidden, head) / temperature, axis=-1)
    return jnp.take_along_axis(logp, targets[..., None], axis=-1)[..., 0], -jnp.sum(jnp.exp(logp) * logp, axis=-1)


@pytest.mark.parametrize("chunk", [1, 3, 5, 7, 1000])
def test_equals_the_plain_form_for_every_chunk(chunk):
    logp, entropy = chosen_logps(HIDDEN, HEAD, TARGETS, temperature=0.7, chunk=chunk)
    expected_logp, expected_entropy = plain(HIDDEN, HEAD, TARGETS, 0.7)
    np.testing.assert_allclose(logp, expected_logp, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(entropy, expected_entropy, rtol=1e-5, atol=1e-6)


def test_a_padded_last_chunk_changes_nothing():
    logp, entropy = chosen_logps(HIDDEN[0, :, :], HEAD, TARGETS[0], chunk=3)  # 5 tokens in 2 chunks of 3
    expected_logp, expected_entropy = plain(HIDDEN[:1], HEAD, TARGETS[:1], 1.0)
    np.testing.assert_allclose(logp, expected_logp[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(entropy, expected_entropy[0], rtol=1e-5, atol=1e-6)


def test_gradient_equals_the_plain_gradient_and_temperature_is_traced():
    weight = jnp.asarray(RNG.normal(size=(2, 5)), jnp.float32)

    @jax.jit
    def chunked(hidden, head, temperature):
        return jnp.sum(weight * chosen_logps(hidden, head, TARGETS, temperature=temperature, chunk=3)[0])

    ours = jax.grad(chunked, argnums=(0, 1))(HIDDEN, HEAD, 0.7)
    theirs = jax.grad(lambda h, w: jnp.sum(weight * plain(h, w, TARGETS, 0.7)[0]), argnums=(0, 1))(HIDDEN, HEAD)
    for got, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_gradient_reaches_parameters_inside_a_callable_head_and_skips_the_entropy():
    def loss(head, part):
        return jnp.sum(chosen_logps(HIDDEN, lambda x: head_logits(x, head), TARGETS, chunk=4)[part])

    expected = jax.grad(lambda head: jnp.sum(plain(HIDDEN, head, TARGETS, 1.0)[0]))(HEAD)
    np.testing.assert_allclose(jax.grad(loss)(HEAD, 0), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(jax.grad(loss)(HEAD, 1), jnp.zeros_like(HEAD))


@pytest.mark.parametrize("suppress", [None, SUPPRESS])
def test_the_entropy_carries_a_gradient_where_it_is_asked_for(suppress):
    """Of both parts at once, as an entropy bonus needs it; suppressed logits get none."""
    weight = jnp.asarray(RNG.normal(size=(2, 2, 5)), jnp.float32)
    kept = np.arange(7) if suppress is None else np.flatnonzero(~np.asarray(suppress))
    targets = jnp.asarray(np.searchsorted(kept, np.asarray(ALLOWED)))

    def chunked(hidden, head):
        settings = {"temperature": 0.7, "chunk": 3, "suppress_V": suppress, "entropy_gradient": True}
        return sum(jnp.sum(w * part) for w, part in zip(weight, chosen_logps(hidden, head, ALLOWED, **settings)))

    def whole(hidden, head):
        return sum(jnp.sum(w * part) for w, part in zip(weight, plain(hidden, head[kept], targets, 0.7)))

    ours = jax.grad(chunked, argnums=(0, 1))(HIDDEN, HEAD)
    for got, expected in zip(ours, jax.grad(whole, argnums=(0, 1))(HIDDEN, HEAD), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_suppressed_tokens_hold_no_probability():
    logp, entropy = chosen_logps(HIDDEN, HEAD, ALLOWED, suppress_V=SUPPRESS, chunk=4)
    kept = np.flatnonzero(~np.asarray(SUPPRESS))
    position = jnp.asarray(np.searchsorted(kept, np.asarray(ALLOWED)))
    expected_logp, expected_entropy = plain(HIDDEN, HEAD[kept], position, 1.0)
    np.testing.assert_allclose(logp, expected_logp, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(entropy, expected_entropy, rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda head: jnp.sum(chosen_logps(HIDDEN, head, ALLOWED, suppress_V=SUPPRESS)[0]))(HEAD)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[np.asarray(SUPPRESS)], 0.0)


def test_low_precision_hidden_states_give_float32_results():
    logp, entropy = chosen_logps(HIDDEN.astype(jnp.bfloat16), HEAD, TARGETS)
    assert logp.dtype == entropy.dtype == jnp.float32
    rounded = HIDDEN.astype(jnp.bfloat16).astype(jnp.float32), HEAD.astype(jnp.bfloat16).astype(jnp.float32)
    np.testing.assert_allclose(logp, plain(*rounded, TARGETS, 1.0)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("entropy", [False, True])
def test_the_logits_of_all_tokens_are_never_formed(entropy):
    hidden, head = jnp.zeros((64, 4)), jnp.zeros((512, 4))
    targets = jnp.zeros(64, jnp.int32)

    def loss(hidden, head):
        return sum(map(jnp.sum, chosen_logps(hidden, head, targets, chunk=8, entropy_gradient=entropy)))

    text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(hidden, head).as_text()
    assert "8x512x" in text
    assert "64x512x" not in text
    assert "8x8x512x" not in text


def test_no_tokens_give_empty_results():
    logp, entropy = chosen_logps(jnp.zeros((2, 0, 4)), HEAD, jnp.zeros((2, 0), jnp.int32))
    assert logp.shape == entropy.shape == (2, 0)


def test_temperature_zero_counts_as_one_row_by_row():
    logits = jnp.array([[1.0, 3.0], [1.0, 3.0]])
    np.testing.assert_array_equal(temper_logits(logits, jnp.array([0.0, 0.5])), [[1.0, 3.0], [2.0, 6.0]])


@pytest.mark.parametrize("vocabulary", [32_000, 152_000])
def test_memory_of_the_loss_is_one_chunk_of_logits_whatever_the_tokens(vocabulary: int) -> None:
    """By the compiler's own count: value and gradient hold a few chunks of logits, and never those of all tokens."""
    width, chunk = 64, 256

    def temporaries(tokens: int) -> int:
        def loss(hidden: jax.Array, head: jax.Array, targets: jax.Array, advantage: jax.Array) -> jax.Array:
            logp, _ = chosen_logps(hidden, head, targets, chunk=chunk)
            return policy_loss(
                PolicyLoss(kl_coef=0.0), logp_BT=logp[None], old_logp_BT=None, ref_logp_BT=None, sampler_logp_BT=None,
                advantage_B=advantage, mask_BT=jnp.ones((1, tokens), bool),
            )[0]  # fmt: skip

        shapes = [((tokens, width), jnp.float32), ((vocabulary, width), jnp.float32), ((tokens,), jnp.int32)]
        given = [jax.ShapeDtypeStruct(*shape) for shape in (*shapes, ((1,), jnp.float32))]
        program = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*given).compile()
        return int(program.memory_analysis().temp_size_in_bytes)

    of_chunk, of_head = 4 * chunk * vocabulary, 4 * vocabulary * width
    few, many = temporaries(1024), temporaries(4096)
    assert many < 4 * of_chunk + 3 * of_head
    assert many - few < 4 * 3 * 3072 * width * 4, "tokens add hidden states and their gradients, no logits"


def test_what_is_not_wanted_is_left_out_in_value_and_gradient() -> None:
    """Three chunks of two columns: one all wanted, one in part, one not at all."""
    rng = np.random.default_rng(3)
    hidden, targets = jnp.asarray(rng.normal(size=(2, 6, 4)), jnp.float32), jnp.asarray(rng.integers(0, 7, (2, 6)))
    wanted = jnp.array([[True, True, True, False, False, False], [True, True, False, False, False, False]])

    def total(wanted: jax.Array | None, weight: jax.Array, hidden: jax.Array, head: jax.Array) -> jax.Array:
        return jnp.sum(weight * chosen_logps(hidden, head, targets, chunk=4, wanted=wanted)[0])

    given, args = wanted.astype(jnp.float32), (hidden, HEAD)
    full, skipped = (jax.value_and_grad(total, argnums=(2, 3))(w, given, *args) for w in (None, wanted))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), full, skipped)
    logp, entropy = chosen_logps(hidden, HEAD, targets, chunk=4, wanted=wanted)
    assert ((logp == 0) == ~wanted).all()
    assert ((entropy == 0) == ~wanted).all()


def test_a_chunk_without_wanted_tokens_runs_no_product() -> None:
    hidden, targets = jnp.zeros((2, 6, 4)).at[0, 5].set(jnp.nan), jnp.zeros((2, 6), jnp.int32)
    wanted = jnp.broadcast_to(jnp.arange(6) < 2, (2, 6))
    gradient = jax.grad(lambda head: jnp.sum(chosen_logps(hidden, head, targets, chunk=4, wanted=wanted)[0]))(HEAD)
    assert np.isfinite(gradient).all(), "nothing of the last chunk may reach the head"

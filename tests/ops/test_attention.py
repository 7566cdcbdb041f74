"""Queries in blocks, of whole rows and of responses that share prompts: plain attention's values and gradients."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from urt_jax.ops import attention
from urt_jax.ops.masking import segment_mask

QUESTIONS, RESPONSES, PROMPT, LENGTH, KEY_HEADS, GROUPS, WIDTH = 2, 3, 5, 7, 2, 2, 4
ROWS = QUESTIONS * RESPONSES


def inputs(length: int = LENGTH, width: int = WIDTH) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Return queries, keys and values of responses, keys and values of prompts; and both masks, causal and padded."""
    rng = np.random.default_rng(0)
    of_rows = [rng.standard_normal((ROWS, length, heads, width)) for heads in (KEY_HEADS * GROUPS, *[KEY_HEADS] * 2)]
    keys = rng.standard_normal((QUESTIONS, KEY_HEADS, width, PROMPT))
    values = rng.standard_normal((QUESTIONS, KEY_HEADS, PROMPT, width))
    places = np.arange(length)
    real = (places < rng.integers(1, length + 1, (ROWS, 1))).astype(int)
    prompt_mask = np.arange(PROMPT) >= np.array([[2], [0]])
    return (*of_rows, keys, values), (prompt_mask, np.asarray(segment_mask(real, real, places, places)))


def joined(query: Any, key: Any, value: Any, keys: Any, values: Any, prompt_mask: Any, own_mask: Any) -> Any:
    def before(prompt: Any, rows: Any) -> Any:
        return jnp.concatenate([jnp.repeat(prompt, RESPONSES, axis=0), rows], axis=1)

    all_keys, all_values = before(keys.transpose(0, 3, 1, 2), key), before(values.swapaxes(1, 2), value)
    seen = jnp.broadcast_to(jnp.repeat(prompt_mask, RESPONSES, axis=0)[:, None], (*own_mask.shape[:2], PROMPT))
    return attention.attend(query, all_keys, all_values, jnp.concatenate([seen, own_mask], axis=2))


@pytest.mark.parametrize("blocks", [1, 2, 3, LENGTH])
def test_any_number_of_blocks_is_the_joined_sequence(blocks: int) -> None:
    with jax.enable_x64(True):
        arrays, masks = inputs()
        in_blocks = partial(attention.attend_with_prefix, blocks=blocks)
        assert_equal(gradients(in_blocks, arrays, masks), gradients(joined, arrays, masks))


@pytest.mark.parametrize("blocks", [1, 2, 3, LENGTH])
def test_whole_rows_in_any_number_of_blocks(blocks: int) -> None:
    with jax.enable_x64(True):
        ((*of_rows, _, _), (_, mask)) = inputs()
        real = mask.any(axis=2)[..., None, None]  # what sees nothing has an output without meaning

        def seen(attend: Any) -> Any:
            return gradients(lambda *given: jnp.where(real, attend(*given), 0), of_rows, [mask])

        assert_equal(seen(partial(attention.attend_in_blocks, blocks=blocks)), seen(attention.attend))


def gradients(attend: Any, arrays: Any, masks: Any) -> Any:
    """Return the gradient of a random function of the output, and the output."""
    weight = np.random.default_rng(1).standard_normal((ROWS, LENGTH, KEY_HEADS * GROUPS, WIDTH))

    def loss(arrays: Any) -> Any:
        found = attend(*arrays, *map(jnp.asarray, masks))
        return jnp.sum(found * weight), found

    return jax.jit(jax.grad(loss, has_aux=True))(tuple(map(jnp.asarray, arrays)))


def assert_equal(found: Any, wanted: Any) -> None:
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-13), found, wanted)


def test_blocks_leave_out_products_that_the_mask_hides() -> None:
    """Four blocks of four places each see 4, 8, 12 and 16 keys of 16: five eighths."""
    arrays, masks = inputs(16, 64)

    def work(blocks: int) -> float:
        def loss(arrays: Any) -> Any:
            return attention.attend_with_prefix(*arrays, *map(jnp.asarray, masks), blocks=blocks).sum()

        given = tuple(jnp.asarray(x, jnp.float32) for x in arrays)
        return float(jax.jit(jax.grad(loss)).lower(given).compile().cost_analysis()["flops"])

    own = 2 * 7 * ROWS * KEY_HEADS * GROUPS * 16 * 16 * 64  # seven products, two forward and five backward
    assert (work(1) - work(4)) / own == pytest.approx(3 / 8, rel=0.1)

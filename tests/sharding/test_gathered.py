"""Weights that are gathered once before decoding: the same samples, and none of them travels at every token."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.sharding.meshed import QUESTIONS, RESPONSES, mesh_of, sample
from tests.sharding.test_activations import largest_moved
from tests.tiny import MODEL, PROCESSOR, tiny_params
from urt_jax.generation.sampler import Sampler
from urt_jax.generation.sampling import DecodeSettings
from urt_jax.sharding.placement import for_sampling, place_state

MESH = "data=2 fsdp=2 tensor=2"


def test_matrices_are_whole_but_for_tensor_and_the_rest_is_left_alone() -> None:
    params = place_state(mesh_of(MESH), tiny_params())
    found = for_sampling(mesh_of(MESH), params, jnp.bfloat16)(params)
    for (path, leaf), given in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(params)):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith(("kernel", "embedding", "head")):
            assert leaf.dtype == jnp.bfloat16, name
            assert leaf.addressable_shards[0].data.size * 2 in (leaf.size, 2 * leaf.size), name  # split over tensor
        else:
            assert leaf.dtype == jnp.float32, name
            assert leaf.sharding.is_equivalent_to(given.sharding, leaf.ndim), name
        np.testing.assert_array_equal(leaf, np.asarray(given).astype(leaf.dtype), err_msg=name)
    embedding = found["embedding"]
    assert embedding.addressable_shards[0].data.shape == (embedding.shape[0] // 2, embedding.shape[1])


def test_nothing_is_copied_where_nothing_is_to_be_done() -> None:
    params = place_state(mesh_of("data=8"), tiny_params())
    assert for_sampling(mesh_of("data=8"), params, jnp.float32) is None
    here = jax.tree.map(jnp.asarray, tiny_params())
    assert for_sampling(None, here, jnp.float32) is None
    assert for_sampling(None, here, jnp.bfloat16)(here)["embedding"].dtype == jnp.bfloat16


def test_samples_are_the_same_and_no_weight_travels_at_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    found, moved = [], []
    for gather in (True, False):
        sampler = Sampler(MODEL, PROCESSOR)
        advance = sampler.engine._advance

        def watched(*arguments: Any, advance: Any = advance, **static: Any) -> Any:
            moved.append(largest_moved(advance.lower(*arguments, **static).compile()))
            return advance(*arguments, **static)

        monkeypatch.setattr(sampler.engine, "_advance", watched)
        found.append(sample(sampler, "fsdp=8", decoding=DecodeSettings(gather_weights=gather)))
    np.testing.assert_array_equal(found[0].tokens_BU, found[1].tokens_BU)
    np.testing.assert_allclose(found[0].logp_BU, found[1].logp_BU, atol=1e-5)
    matrix = MODEL.config.decoder.width * MODEL.config.decoder.feed_forward
    assert moved[0] <= QUESTIONS * RESPONSES, "a number a row, not its logits"
    assert moved[1] >= matrix, "entries of the largest array that a collective of the loop gives"

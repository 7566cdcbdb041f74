"""Every tower's prompts, with responses that share them, on meshes: hidden states and gradients of one device.

In float64, where what is not exact shows: a random model of this size rounds by 1e-4 in float32.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.test_shared_prefix import deep_prompts, tile_prompts, window_prompts
from tests.sharding.meshed import mesh_of
from tests.tiny import WORDS, random_leaves
from urt_jax.models.vlm import VisionLanguageModel, abstract_params
from urt_jax.sharding.activations import with_mesh
from urt_jax.sharding.placement import place_rows, place_state
from urt_jax.types import TEXT, Batch, FeatureBlend, PromptedRows

pytestmark = pytest.mark.slow
RESPONSES, SLOTS = 2, 8


def widened(prompts: Batch, step: int) -> Batch:
    """Pad prompts in front to a multiple of ``step`` tokens."""
    added = -prompts.tokens_BT.shape[1] % step

    def pad(x: Any, axis: int = 1, fill: int = 0) -> np.ndarray:
        return np.pad(x, [(added * (number == axis), 0) for number in range(np.ndim(x))], constant_values=fill)

    return Batch(
        pad(prompts.tokens_BT),
        pad(prompts.positions_3BT, 2),
        pad(prompts.segments_BT),
        pad(prompts.vision_index_BT, fill=TEXT),
        prompts.vision,
        blend=None if prompts.blend is None else FeatureBlend(*(pad(part) for part in prompts.blend)),
    )


@pytest.mark.parametrize("name", ["data=2 fsdp=2 tensor=2", "data=2 sequence=4"])
@pytest.mark.parametrize("made", [window_prompts, deep_prompts, tile_prompts])
def test_a_family_on_a_mesh(made: Any, name: str) -> None:
    with jax.enable_x64(True):
        assert_as_on_one_device(made, name, unroll=1)


@pytest.mark.parametrize("name", ["data=2 fsdp=2 tensor=2", "data=2 sequence=4"])
def test_unrolled_layers_on_a_mesh(name: str) -> None:
    """The last of them then runs the last place of a prompt alone, which lies on one of the devices of a row."""
    with jax.enable_x64(True):
        assert_as_on_one_device(deep_prompts, name, unroll=8)


def assert_as_on_one_device(made: Any, name: str, *, unroll: int) -> None:
    config, prompts, position = made()
    model = VisionLanguageModel(config, np.float64, np.float64, unroll=unroll)
    params = jax.tree.map(lambda leaf: leaf.astype(np.float64), random_leaves(abstract_params(config), 1))
    rng = np.random.default_rng(4)
    tokens = rng.integers(WORDS.start, WORDS.stop, (2 * RESPONSES, SLOTS)).astype(np.int32)
    mask = np.arange(SLOTS) < np.array([8, 3, 1, 5])[:, None]
    rows = PromptedRows(widened(prompts, 8), position, tokens, mask)
    weight = rng.standard_normal((2 * RESPONSES, SLOTS, 32)) * mask[..., None]

    def loss(params: Any, rows: PromptedRows) -> tuple[jax.Array, jax.Array]:
        _, hidden = model.apply({"params": params}, rows, method="hidden_with_responses")
        return jnp.sum(hidden * weight), jnp.where(mask[..., None], hidden, 0)

    def run(mesh: Any) -> Any:
        step = jax.jit(with_mesh(jax.value_and_grad(loss, has_aux=True), mesh))
        (_, hidden), gradient = step(place_state(mesh, params), place_rows(mesh, rows))
        return jax.device_get((hidden, gradient))

    (hidden, gradient), (found, others) = run(mesh_of("one device")), run(mesh_of(name))
    assert hidden.dtype == np.float64
    np.testing.assert_allclose(found, hidden, atol=1e-12, rtol=0)
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(gradient))
    for one, other in zip(jax.tree.leaves(others), jax.tree.leaves(gradient)):
        np.testing.assert_allclose(one, other, atol=1e-14 * largest, rtol=1e-11)
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(gradient["vision"])) > 1e-3

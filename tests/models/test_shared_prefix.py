"""Prompts run once for all their responses: the same hidden states and gradients as every prompt with each response."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import CONFIG, WORDS, batch_of, make_chat, random_leaves
from urt_jax.data.collate import Need, collate_prompts, join_completions
from urt_jax.families import qwen3_vl
from urt_jax.families.processor import expand_placeholders
from urt_jax.families.tile_layout import lay_out_square, lay_out_tiles
from urt_jax.models.config import DecoderConfig, DeepStackVisionConfig, ModelConfig, TileVisionConfig
from urt_jax.models.vlm import VisionLanguageModel, abstract_params
from urt_jax.types import Batch, PromptedRows

RESPONSES, SLOTS = 3, 5
DECODER = DecoderConfig(40, 32, 3, 4, 2, 8, 24, mrope_section=(2, 1, 1), rope_theta=1e4)


def window_prompts() -> tuple[ModelConfig, Batch, np.ndarray]:
    chats = [make_chat(1, text=3, pictures=[(2, 3), (1, 1)]), make_chat(2, text=9, clip=(2, 1, 2))]
    return CONFIG, batch_of(chats, left=True), np.array([chat.next_position for chat in chats], np.int32)


def deep_prompts() -> tuple[ModelConfig, Batch, np.ndarray]:
    vision = DeepStackVisionConfig(
        2, 16, 2, 24, 32, patch_size=2, temporal_patch_size=1, position_side=3, deepstack_layers=(0, 1)
    )
    config = ModelConfig(DECODER, vision, image_token_id=5, video_token_id=6)
    rng = np.random.default_rng(0)
    layouts = [
        qwen3_vl.lay_out(rng.standard_normal((h * w, vision.patch_features)).astype(np.float32), (1, h, w), config)
        for h, w in ((4, 6), (2, 2))
    ]
    return (config, *prompts_of(config, [[layout] for layout in layouts], 24))


def tile_prompts() -> tuple[ModelConfig, Batch, np.ndarray]:
    from urt_jax.data.anyres import TileGeometry

    vision = TileVisionConfig(
        2, 16, 2, 24, 32, patch_size=2, temporal_patch_size=1, merge_size=1, tile_size=6, feature_layer=2
    )
    config = ModelConfig(DECODER, vision, image_token_id=5, video_token_id=6)
    geometry = TileGeometry(tile_size=6, patch_size=2, grids=((6, 6), (6, 12)), max_tiles=1)
    rng = np.random.default_rng(0)
    tiles = rng.standard_normal((3, 9, 12)).astype(np.float32)
    alone = lay_out_tiles(tiles, (20, 40), geometry)
    square = lay_out_square(tiles[:1], geometry)
    return (config, *prompts_of(config, [[alone], [square, square]], 9))


def prompts_of(config: ModelConfig, media: list[list[Any]], patches: int) -> tuple[Batch, np.ndarray]:
    chats = [
        expand_placeholders(config, np.array([10 + i, *[5] * len(row), 11], np.int32), row, [], name="prompt")
        for i, row in enumerate(media)
    ]
    need = Need(2, max(len(chat.tokens_T) for chat in chats) + 2, sum(len(chat.frames) for chat in chats), patches)
    vision = config.vision
    shape = {"patch_features": vision.patch_features, "merge": vision.merge_size**2}
    batch = collate_prompts(chats, bucket=need, pad_id=0, blend_sources=vision.blend_sources, **shape)
    return batch, np.array([chat.next_position for chat in chats], np.int32)


def gradients(made: Any, *, dtype: Any, shared: bool, **changes: Any) -> tuple[np.ndarray, Any]:
    """Return hidden states of responses and the gradient of their weighted sum, by shared prompts or by whole rows."""
    config, prompts, position = made()
    model = VisionLanguageModel(config, dtype, dtype, **changes)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), random_leaves(abstract_params(config), 1))
    rng = np.random.default_rng(4)
    tokens = rng.integers(WORDS.start, WORDS.stop, (2 * RESPONSES, SLOTS)).astype(np.int32)
    mask = np.arange(SLOTS) < np.array([5, 2, 4, 1, 3, 5])[:, None]
    weight = rng.standard_normal((2 * RESPONSES, SLOTS + 1, 32)).astype(dtype)
    weight *= np.concatenate([np.ones((2 * RESPONSES, 1), bool), mask], axis=1)[..., None]

    def loss(params: Any) -> tuple[jax.Array, jax.Array]:
        if shared:
            rows = PromptedRows(prompts, position, tokens, mask)
            last, hidden = model.apply({"params": params}, rows, method="hidden_with_responses")
            hidden = jnp.concatenate([jnp.repeat(last[:, None], RESPONSES, axis=0), hidden], axis=1)
        else:
            joined = join_completions(prompts, position, tokens, mask)
            hidden = model.apply({"params": params}, joined, method="hidden")[:, -SLOTS - 1 :]
        seen = hidden * (weight != 0)
        return jnp.sum(seen * weight), seen

    (_, seen), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return np.asarray(seen), jax.tree.map(np.asarray, gradient)


def largest(tree: Any) -> float:
    return max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("changes", [{}, {"unroll": 8}, {"unroll": 8, "remat": "full"}], ids=str)
@pytest.mark.parametrize("made", [window_prompts, deep_prompts, tile_prompts])
def test_shared_prompts_are_exact_in_value_and_gradient(made: Any, changes: dict[str, Any]) -> None:
    with jax.enable_x64(True):
        wanted, gradient = gradients(made, dtype=np.float64, shared=False)
        found, others = gradients(made, dtype=np.float64, shared=True, **changes)
    assert found.dtype == wanted.dtype == np.float64
    np.testing.assert_allclose(found, wanted, atol=1e-12, rtol=0)
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(others), jax.tree.leaves(gradient)):
        # Some gradients are 0 but for rounding (a key's bias), so they are measured by the largest of the model.
        message = jax.tree_util.keystr(path)
        np.testing.assert_allclose(one, other, atol=1e-14 * largest(gradient), rtol=1e-11, err_msg=message)
    assert largest(gradient["vision"]) > 1e-3, "pictures must matter"


def test_shared_prompts_round_as_whole_rows_do() -> None:
    """In float32 both are as far from float64 as rounding takes them; of the three families this one rounds most."""
    with jax.enable_x64(True):
        wanted, gradient = gradients(deep_prompts, dtype=np.float64, shared=False)
    shared, whole = (gradients(deep_prompts, dtype=np.float32, shared=shared) for shared in (True, False))
    np.testing.assert_allclose(shared[0], wanted, atol=1e-5, rtol=0)

    def error(found: Any) -> float:
        squares = jax.tree.map(lambda one, other: np.sum((one.astype(np.float64) - other) ** 2), found, gradient)
        return float(sum(jax.tree.leaves(squares)) / sum(np.sum(leaf**2) for leaf in jax.tree.leaves(gradient))) ** 0.5

    assert error(shared[1]) < 2 * error(whole[1]) < 1e-5


def test_a_prompt_is_computed_once_for_its_responses() -> None:
    """The floating-point work of a step grows with responses by their own tokens only."""
    config, prompts, position = window_prompts()
    model, params = VisionLanguageModel(config), random_leaves(abstract_params(config), 1)

    def work(responses: int) -> float:
        tokens = np.full((2 * responses, SLOTS), 20, np.int32)
        rows = PromptedRows(prompts, position, tokens, tokens > 0)
        run = partial(model.apply, method="hidden_with_responses")
        return float(jax.jit(run).lower({"params": params}, rows).compile().cost_analysis()["flops"])

    one, two, nine = work(1), work(2), work(9)
    assert (nine - one) / (two - one) == pytest.approx(8, rel=0.2)
    width = prompts.tokens_BT.shape[1]
    assert two - one < 0.8 * one * SLOTS / width, "a response costs its own tokens, not its prompt's"

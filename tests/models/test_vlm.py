"""The model as a whole: what may influence what, and what must change nothing."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import CONFIG, FEATURES, MODEL, as_jnp, batch_of, jitted, make_chat, tiny_params
from urt_jax.models.vlm import VisionLanguageModel, blended
from urt_jax.types import Batch, FeatureBlend, VisionFeatures

TOLERANCE = {"atol": 1e-5, "rtol": 0}
PACKED = np.array([[1, 1, 1, 1, 2, 2, 2, 0]], np.int32)


def hidden_of(batch: Batch) -> np.ndarray:
    return np.asarray(jitted("hidden")(tiny_params(), batch))


@pytest.fixture(scope="module")
def chats() -> list[Any]:
    """A picture of one window, text only, a clip, a picture of six windows with padded ones among them."""
    return [
        make_chat(1, pictures=[(2, 2)]),
        make_chat(2, text=9),
        make_chat(3, clip=(2, 1, 2)),
        make_chat(4, pictures=[(3, 5), (1, 1)]),
    ]


@pytest.fixture(scope="module")
def alone(chats: list[Any]) -> list[np.ndarray]:
    """The hidden states of each chat by itself, without any padding."""
    return [hidden_of(batch_of([chat]))[0] for chat in chats]


def test_a_logit_depends_on_its_own_past_and_segment_only() -> None:
    params = as_jnp(tiny_params())

    def scores(x_BTD: jax.Array) -> jax.Array:
        mask = jnp.asarray((PACKED[:, :, None] == PACKED[:, None]) & np.tri(8, dtype=bool)[None])

        def forward(model: VisionLanguageModel, x: jax.Array) -> jax.Array:
            positions = jnp.broadcast_to(jnp.array([0, 1, 2, 3, 0, 1, 2, 0]), (3, 1, 8))
            return model.logits(model.decoder(x, positions, mask))

        logits = MODEL.apply({"params": params}, x_BTD, method=forward)
        return logits[0] @ jnp.linspace(-1.0, 1.0, 40)

    x = jax.random.normal(jax.random.key(0), (1, 8, 32))
    influence = np.abs(np.asarray(jax.jit(jax.jacrev(scores))(x))[:, 0]).max(axis=-1)
    may = np.tri(8, dtype=bool) & (PACKED[0][:, None] == PACKED[0])
    np.testing.assert_array_equal(influence[:7] > 0, may[:7])


def test_the_whole_model_masks_by_segment_and_order() -> None:
    """Change one token: only itself and what follows it in its own packed sequence may change."""
    first, second = make_chat(1, text=6), make_chat(2, text=5)
    batch = batch_of([first, second], packed=[[0, 1]], rows=1, tokens=12)
    before = hidden_of(batch)[0]
    for changed, reached in ((2, range(2, 6)), (7, range(7, 11))):
        tokens = batch.tokens_BT.copy()
        tokens[0, changed] = 7 + (tokens[0, changed] - 6) % 31
        after = hidden_of(batch._replace(tokens_BT=tokens))[0]
        moved = [t for t in range(11) if np.abs(after[t] - before[t]).max() > 0]
        assert moved == list(reached)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tokens": 40, "left": True},
        {"frames": 9, "patches": 112, "tokens": 36},
    ],
    ids=str,
)
def test_padding_and_neighbours_change_nothing(
    chats: list[Any], alone: list[np.ndarray], changes: dict[str, Any]
) -> None:
    together = hidden_of(batch_of(chats, **changes))
    for row, expected in enumerate(alone):
        length = len(expected)
        place = slice(-length, None) if changes.get("left") else slice(0, length)
        np.testing.assert_allclose(together[row, place], expected, **TOLERANCE)


def test_packed_records_compute_what_they_compute_alone(chats: list[Any], alone: list[np.ndarray]) -> None:
    batch = batch_of(chats, packed=[[3, 1], [2, 0]], rows=2, tokens=48)
    together = hidden_of(batch)
    for row, records in enumerate(([3, 1], [2, 0])):
        start = 0
        for record in records:
            expected = alone[record]
            np.testing.assert_allclose(together[row, start : start + len(expected)], expected, **TOLERANCE)
            start += len(expected)


def test_one_program_serves_all_picture_sizes() -> None:
    traced = []

    @jax.jit
    def program(params: Any, batch: Batch) -> Any:
        traced.append(batch)
        return MODEL.apply({"params": params}, batch, method="hidden")

    shape = {"tokens": 32, "frames": 2, "patches": 96}
    for seed, size in enumerate([(1, 1), (1, 5), (3, 5)]):
        chat = make_chat(seed, pictures=[size])
        found = np.asarray(program(tiny_params(), batch_of([chat], **shape)))
        np.testing.assert_allclose(found[0, : len(chat.tokens_T)], hidden_of(batch_of([chat]))[0], **TOLERANCE)
    assert len(traced) == 1


def test_what_a_picture_shows_reaches_the_text_after_it() -> None:
    chat = make_chat(1, pictures=[(2, 2)])
    batch = batch_of([chat])
    other = batch._replace(vision=batch.vision._replace(patches_IPC=batch.vision.patches_IPC + 0.5))
    moved = np.abs(hidden_of(other) - hidden_of(batch))[0].max(axis=-1) > 1e-6
    first = int(np.argmax(chat.vision_T2[:, 0] >= 0))
    assert not moved[:first].any()
    assert moved[first:].all()


def loss_and_gradient(model: VisionLanguageModel, batch: Batch) -> tuple[Any, Any]:
    def loss(params: Any) -> jax.Array:
        return jnp.mean(model.apply({"params": params}, batch) ** 2)  # type: ignore[operator]

    return jax.jit(jax.value_and_grad(loss))(tiny_params())


@pytest.fixture(scope="module")
def plain_gradient() -> tuple[Any, Any]:
    return loss_and_gradient(MODEL, batch_of([make_chat(1, pictures=[(2, 2)])]))


@pytest.mark.parametrize("changes", [{"remat": "full"}, {"remat": "dots"}, {"unroll": 2}], ids=str)
def test_remat_and_unroll_change_no_value_and_no_gradient(
    changes: dict[str, Any], plain_gradient: tuple[Any, Any]
) -> None:
    batch = batch_of([make_chat(1, pictures=[(2, 2)])])
    expected, expected_gradient = plain_gradient
    value, gradient = loss_and_gradient(VisionLanguageModel(CONFIG, **changes), batch)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for found, wanted in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient)):
        np.testing.assert_allclose(found, wanted, atol=2e-6 * float(np.abs(wanted).max() + 1e-3))


def test_an_unknown_remat_policy_is_refused_by_name() -> None:
    model = VisionLanguageModel(CONFIG, remat="dotz")
    with pytest.raises(ValueError, match=r"remat is 'dotz'; known policies are none, full, dots"):
        jax.eval_shape(model.init, jax.random.key(0), batch_of([make_chat(1)]))


def test_an_unknown_layer_pattern_is_refused_by_name() -> None:
    config = replace(CONFIG, decoder=replace(CONFIG.decoder, layer_pattern=("attention", "linear")))
    with pytest.raises(ValueError, match=r"layer_pattern is \('attention', 'linear'\); the only known pattern"):
        jax.eval_shape(VisionLanguageModel(config).init, jax.random.key(0), batch_of([make_chat(1)]))


def test_a_tied_head_has_no_parameter_and_is_the_embedding() -> None:
    tied = VisionLanguageModel(replace(CONFIG, decoder=replace(CONFIG.decoder, tied_head=True)))
    batch = batch_of([make_chat(1)])
    shapes = jax.eval_shape(tied.init, jax.random.key(0), batch)["params"]
    assert "head" not in shapes
    params = {name: value for name, value in tiny_params().items() if name != "head"}
    found = jax.jit(tied.apply)({"params": params}, batch)
    same = jitted()({**params, "head": params["embedding"]}, batch)
    np.testing.assert_allclose(found, same, rtol=1e-6)


def test_bfloat16_computes_in_bfloat16_and_gives_float32_logits() -> None:
    model = VisionLanguageModel(CONFIG, jnp.bfloat16, jnp.bfloat16)
    batch = batch_of([make_chat(1, pictures=[(2, 2)])])
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), tiny_params())
    fresh = jax.eval_shape(model.init, jax.random.key(0), batch)["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype(jnp.bfloat16)}
    hidden = jax.eval_shape(partial(model.apply, method="hidden"), {"params": params}, batch)
    assert hidden.dtype == jnp.bfloat16
    logits = jax.jit(model.apply)({"params": params}, batch)
    assert logits.dtype == jnp.float32
    assert len(np.unique(np.asarray(logits))) > 0.9 * logits.size, "float32 sums are not rounded back to bfloat16"
    np.testing.assert_allclose(logits, jitted()(tiny_params(), batch), atol=0.15)


def test_a_batch_without_frames_needs_no_tower() -> None:
    batch = batch_of([make_chat(1)])
    assert batch.vision.patches_IPC.shape == (0, 0, FEATURES)
    broken = {**tiny_params(), "vision": jax.tree.map(lambda x: x * np.nan, tiny_params()["vision"])}
    assert np.isfinite(np.asarray(jitted("hidden")(broken, batch))).all()


FEATURES_ED = jnp.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])


def test_a_blend_is_the_weighted_sum_of_its_features() -> None:
    index = np.array([[[0, 2], [1, 1], [2, 0]]], np.int32)
    weight = np.array([[[0.25, 0.75], [1.0, 0.0], [0.0, 0.0]]], np.float32)
    found = blended(FEATURES_ED, FeatureBlend(index, weight))
    np.testing.assert_allclose(found, [[[3.25, 32.5], [2, 20], [0, 0]]], rtol=1e-6)


def test_a_blend_is_summed_in_float32() -> None:
    """257 is no bfloat16 number, the sum of 256 and 1 must not be rounded to it on the way."""
    features = jnp.array([[256.0], [1.0]], jnp.bfloat16)
    blend = FeatureBlend(np.array([[[0, 1]]], np.int32), np.ones((1, 1, 2), np.float32))
    np.testing.assert_array_equal(blended(features, blend), [[[257.0]]])


@pytest.mark.parametrize("mixed", [False, True], ids=["as it is", "blend"])
def test_features_and_line_ends_take_the_places_that_show_them(mixed: bool) -> None:
    batch = batch_of([make_chat(1, text=4)])._replace(vision_index_BT=np.array([[-1, 1, -2, 0]], np.int32))
    if mixed:  # text and line ends bring weights of 0
        index = np.array([[[0, 0], [1, 2], [0, 0], [0, 0]]], np.int32)
        weight = np.array([[[0, 0], [0.5, 0.5], [0, 0], [1, 0]]], np.float32)
        batch = batch._replace(blend=FeatureBlend(index, weight))
    features = jnp.broadcast_to(FEATURES_ED[:, :1], (3, 32))
    embed = partial(MODEL.apply, {"params": tiny_params()}, method="embed")
    found = embed(batch, VisionFeatures(features, None, jnp.full(32, 9.0)))
    words = tiny_params()["embedding"][batch.tokens_BT[0]]
    np.testing.assert_array_equal(found[0, 0], words[0])
    np.testing.assert_array_equal(found[0, 1:, 0], [3.0 if mixed else 2.0, 9.0, 1.0])
    without = embed(batch, VisionFeatures(features, None, None))
    np.testing.assert_array_equal(without[0, 2], words[2])  # a tower without a line end leaves the token

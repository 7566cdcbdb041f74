"""Qwen2.5-VL equals transformers on identical pixel arrays: logits, greedy continuation, and the trip through files."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch", reason="parity with transformers needs torch 2.13.0 (CPU build)")

from tests.families.reference import (
    EOS,
    PAD,
    TRAITS,
    Trait,
    hf_inputs,
    hf_model,
    random_chat,
    random_medium,
)
from urt_jax.checkpoints.hf_weights import check_shapes, load_weights, save_weights
from urt_jax.data.collate import collate, collate_prompts, length_of, need_of, plan_buckets
from urt_jax.families.qwen2_5_vl import FAMILY, read_config
from urt_jax.generation.loop import row_keys, sample_responses
from urt_jax.generation.state import SamplingSettings, Vocabulary
from urt_jax.models.vlm import VisionLanguageModel

pytestmark = pytest.mark.parity
NO_ANSWER = np.zeros(0, np.int32)


def ours(reference, tmp_path):
    """Save the transformers model and load it as ours."""
    reference.save_pretrained(tmp_path)
    import json

    config = read_config(json.loads((tmp_path / "config.json").read_text()))
    params = load_weights(tmp_path, FAMILY, config)
    return config, VisionLanguageModel(config), params


def mixed_rows(rng):
    """Rows of different lengths: three pictures, a clip and a picture, text only, one picture."""
    return [
        [random_medium(rng, (1, 4, 6)), random_medium(rng, (1, 10, 4)), random_medium(rng, (1, 2, 2))],
        [random_medium(rng, (3, 4, 4), video=True), random_medium(rng, (1, 6, 12))],
        [],
        [random_medium(rng, (1, 18, 10))],
    ]


def shapes(config, chats, token_step=8):
    need = need_of([length_of(chat) for chat in chats], rows=len(chats))
    buckets = plan_buckets([need], window_slots=config.vision.window_slots, token_step=token_step)
    return {"bucket": buckets.fit(need), "pad_id": PAD, "patch_features": 1176, "merge": 4}


@pytest.mark.parametrize("trait", TRAITS, ids=lambda trait: trait.name)
def test_logits_equal_transformers(trait: Trait, tmp_path):
    import torch

    reference = hf_model(trait)
    config, model, params = ours(reference, tmp_path)
    rng = np.random.default_rng(1)
    media = mixed_rows(rng)
    chats = [random_chat(rng, config, row)[0] for row in media]
    batch = collate(chats, [NO_ANSWER] * len(chats), **shapes(config, chats))
    abstract = jax.eval_shape(lambda: model.init(jax.random.key(0), batch))["params"]
    check_shapes(params, abstract, where="test")
    logits = np.asarray(jax.jit(model.apply)({"params": params}, batch))
    with torch.no_grad():
        expected = reference(**hf_inputs(chats, media)).logits.numpy()
    assert np.abs(expected).max() > 0.5, "the comparison must not be of zeros"
    for row, chat in enumerate(chats):
        length = len(chat.tokens_T)
        np.testing.assert_allclose(logits[row, :length], expected[row, :length], atol=1e-4, rtol=0)


@pytest.mark.parametrize("trait", [TRAITS[0], TRAITS[1]], ids=lambda trait: trait.name)
def test_greedy_continuation_equals_transformers(trait: Trait, tmp_path):
    import torch

    reference = hf_model(trait)
    config, model, params = ours(reference, tmp_path)
    rng = np.random.default_rng(2)
    media = mixed_rows(rng)
    chats = [random_chat(rng, config, row)[0] for row in media]
    prompts = collate_prompts(chats, **shapes(config, chats))
    new = 24
    rows = len(chats)
    settings = SamplingSettings(
        jnp.zeros(rows), jnp.zeros(rows, jnp.int32), jnp.ones(rows), jnp.zeros(rows), jnp.int32(new)
    )
    vocabulary = Vocabulary(jnp.array([EOS]), jnp.zeros(trait.vocab, bool), jnp.int32(PAD))
    keys = row_keys(jax.random.key(0), jnp.int32(0), jnp.arange(rows), jnp.arange(rows))
    positions = jnp.array([chat.next_position for chat in chats])
    sample = jax.jit(partial(sample_responses, model, slots=new))
    out = sample(params, prompts, positions, keys, settings, vocabulary)
    with torch.no_grad():
        sequences = reference.generate(
            **hf_inputs(chats, media, left=True), max_new_tokens=new, do_sample=False, use_cache=True
        )
    width = max(len(chat.tokens_T) for chat in chats)
    expected = sequences[:, width:].numpy()
    for row in range(rows):
        tokens = np.asarray(out.tokens_BU[row])[np.asarray(out.mask_BU[row])]
        np.testing.assert_array_equal(tokens, expected[row, : len(tokens)])
        assert len(tokens) == new or tokens[-1] == EOS


def test_the_trip_through_our_files_is_bit_equal(tmp_path):
    from transformers import Qwen2_5_VLForConditionalGeneration

    reference = hf_model(TRAITS[0])
    config, _, params = ours(reference, tmp_path / "in")
    save_weights(tmp_path / "out", params, FAMILY, config, max_shard_bytes=200_000)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 2
    (tmp_path / "out" / "config.json").write_text((tmp_path / "in" / "config.json").read_text())
    again = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "out")
    for name, tensor in reference.state_dict().items():
        assert (again.state_dict()[name] == tensor).all(), name

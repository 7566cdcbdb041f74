"""The grouped sampler: what is sampled, what it is said to be worth, and what it must not depend on."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import CONFIG, EOS, MODEL, PAD, PROCESSOR, VIDEO, WORDS, batch_of, jitted, make_chat, need, tiny_params
from urt_jax.data.collate import join_completions
from urt_jax.generation.sampler import Sampler
from urt_jax.generation.sampling import DecodeSettings, Sampling
from urt_jax.models.kv_cache import init_cache
from urt_jax.sharding.mesh import make_mesh
from urt_jax.sharding.placement import place_state
from urt_jax.training.compile import compile_score_step
from urt_jax.types import PromptedRows, Rollout

SLOTS, RESPONSES = 12, 3
HOT = Sampling(temperature=5.0)  # nearly uniform: every allowed token comes up
CHATS = (make_chat(1, pictures=[(2, 2)]), make_chat(2, text=9), make_chat(3, clip=(2, 1, 2)))
IDS = ("one", "two", "three")
BUCKET = need(CHATS, tokens=24)


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    return Sampler(MODEL, PROCESSOR)


@pytest.fixture(scope="module")
def hot(sampler: Sampler) -> Rollout:
    return sample(sampler, HOT)


def sample(sampler: Sampler, sampling: Sampling, **changes: Any) -> Rollout:
    settings = {"bucket": BUCKET, "responses": RESPONSES, "slots": SLOTS, "seed": 0} | changes
    chats, ids = settings.pop("chats", CHATS), settings.pop("ids", IDS)
    return sampler.sample(tiny_params(), chats, ids, sampling=sampling, **settings)


def test_the_first_token_is_drawn_from_the_last_prompt_position(hot: Rollout, sampler: Sampler) -> None:
    logits = np.asarray(jitted()(tiny_params(), batch_of([CHATS[0]])))[0, -1].astype(np.float64) / HOT.temperature
    logits[list(PROCESSOR.suppressed_ids)] = -np.inf
    logp = logits - np.log(np.exp(logits).sum())
    np.testing.assert_allclose(hot.logp_BU[:RESPONSES, 0], logp[hot.tokens_BU[:RESPONSES, 0]], atol=1e-4)


def test_what_the_pictures_were_encoded_to_comes_back(sampler: Sampler, hot: Rollout) -> None:
    wanted = jitted("features")(tiny_params(), hot.prompts.vision)
    assert hot.encoded().prompts.vision is hot.features
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), hot.features, wanted)
    words = sample(sampler, HOT, chats=CHATS[1:2], ids=IDS[1:2], bucket=need(CHATS[1:2]))
    assert words.encoded() is words, "there is no picture"


def test_greedy_is_top_1(sampler: Sampler) -> None:
    greedy = sample(sampler, Sampling(temperature=0.0))
    top = sample(sampler, Sampling(temperature=1.0, top_k=1))
    np.testing.assert_array_equal(greedy.tokens_BU, top.tokens_BU)
    np.testing.assert_allclose(greedy.logp_BU, top.logp_BU, atol=1e-6)
    assert (greedy.tokens_BU[0] == greedy.tokens_BU[1]).all(), "all responses of a question are the greedy one"


@pytest.mark.parametrize("temperature", [0.6, 5.0])
def test_sampler_logp_is_the_teacher_forced_logp(sampler: Sampler, temperature: float) -> None:
    found = sample(sampler, Sampling(temperature=temperature, top_p=0.95), seed=4)
    rows = PromptedRows(found.prompts, found.next_position_Q, found.tokens_BU, found.mask_BU)
    score = compile_score_step(MODEL)
    scores = score(tiny_params(), rows, np.float32(temperature), sampler.stops.plain.suppressed_V)
    assert found.mask_BU.sum() > 20
    np.testing.assert_allclose(found.logp_BU, np.where(found.mask_BU, scores.logp_BU, 0.0), atol=1e-4, rtol=0)


def test_cached_decoding_computes_what_the_full_forward_does(hot: Rollout) -> None:
    completions = np.where(hot.mask_BU, hot.tokens_BU, WORDS.start).astype(np.int32)
    rows = join_completions(hot.prompts, hot.next_position_Q, completions, np.ones_like(hot.mask_BU))
    full = np.asarray(jitted("hidden")(tiny_params(), rows))[:, -SLOTS:]
    _, prompt = jitted("prefill")(tiny_params(), hot.prompts)
    decoder, count = CONFIG.decoder, len(completions)
    past = init_cache(
        layers=decoder.layers, rows=count, kv_heads=decoder.kv_heads, slots=SLOTS, head_width=8, dtype=jnp.float32
    )
    decode = jitted("decode")
    for step in range(SLOTS):
        position_B = np.repeat(hot.next_position_Q, RESPONSES) + np.int32(step)
        positions = np.broadcast_to(position_B, (3, count))
        seen = jnp.broadcast_to(np.arange(SLOTS) <= step, (count, SLOTS))
        mask = hot.prompts.segments_BT > 0
        tokens, slot = completions[:, step], jnp.int32(step)
        hidden, past = decode(tiny_params(), tokens, positions, prompt, past, slot, mask, seen)
        np.testing.assert_allclose(hidden, full[:, step], atol=1e-5, rtol=0)


def test_a_row_depends_on_seed_step_id_and_response_only(sampler: Sampler, hot: Rollout) -> None:
    """The same question elsewhere in the batch, with other neighbours, another bucket and fewer responses."""
    other = sample(
        sampler,
        HOT,
        chats=(CHATS[2], CHATS[0]),
        ids=(IDS[2], IDS[0]),
        bucket=need((CHATS[2], CHATS[0]), tokens=32, frames=5, patches=32),
        responses=2,
    )
    np.testing.assert_array_equal(other.tokens_BU[:2], hot.tokens_BU[2 * RESPONSES :][:2])
    np.testing.assert_array_equal(other.tokens_BU[2:], hot.tokens_BU[:2])
    np.testing.assert_allclose(other.logp_BU[2:], hot.logp_BU[:2], atol=1e-5)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"step": 1}, {"ids": ("uno", "dos", "tres")}], ids=str)
def test_another_seed_step_or_id_draws_anew(sampler: Sampler, hot: Rollout, changes: dict[str, Any]) -> None:
    other = sample(sampler, HOT, **changes)
    assert (other.tokens_BU != hot.tokens_BU).any(axis=1).sum() >= len(hot.tokens_BU) - 1


def test_the_same_call_gives_the_same_samples_and_responses_differ(sampler: Sampler, hot: Rollout) -> None:
    again = sample(sampler, HOT)
    np.testing.assert_array_equal(again.tokens_BU, hot.tokens_BU)
    # Some rows end at once, and those may be equal.
    assert len({tuple(row) for row in hot.tokens_BU.tolist()}) >= len(hot.tokens_BU) - 2


def test_settings_compile_nothing(sampler: Sampler, hot: Rollout) -> None:
    before = sampler.programs()
    for sampling in (Sampling(0.0), Sampling(0.3, top_k=4), Sampling(1.0, top_p=0.5, min_p=0.1)):
        sample(sampler, sampling, seed=9, step=7, max_new_tokens=3)
    assert sampler.programs() == before


def test_suppressed_ids_are_never_sampled(sampler: Sampler) -> None:
    drawn: set[int] = set()
    for step in range(8):
        found = sample(sampler, dataclasses.replace(HOT, temperature=50.0), step=step)
        drawn |= set(found.tokens_BU[found.mask_BU].tolist())
    assert not drawn & set(PROCESSOR.suppressed_ids)
    assert len(drawn) > 25, "at this temperature nearly every allowed token comes up"
    assert {VIDEO, 38, 39} <= set(PROCESSOR.suppressed_ids)
    assert not {EOS, PAD} & set(PROCESSOR.suppressed_ids)


def test_the_end_token_is_kept_and_padding_follows(sampler: Sampler) -> None:
    found = sample(sampler, dataclasses.replace(HOT, temperature=50.0))
    lengths = found.mask_BU.sum(axis=1)
    np.testing.assert_array_equal(found.mask_BU, np.arange(SLOTS)[None] < lengths[:, None])
    ended = [row for row, length in enumerate(lengths) if length < SLOTS]
    assert ended, "some row must end early for this test to say anything"
    for row in ended:
        assert found.tokens_BU[row, lengths[row] - 1] in (EOS, PAD)
        assert not np.isin(found.tokens_BU[row, : lengths[row] - 1], (EOS, PAD)).any()
        assert (found.tokens_BU[row, lengths[row] :] == PAD).all()
        assert (found.logp_BU[row, lengths[row] :] == 0).all()


def test_texts_leave_special_tokens_out(hot: Rollout) -> None:
    words = [f"w{i}" for i in hot.tokens_BU[0][hot.mask_BU[0]] if i in WORDS]
    assert hot.texts[0] == " ".join(words)
    assert len(hot.texts) == len(CHATS) * RESPONSES


def test_fewer_new_tokens_than_slots_are_respected(sampler: Sampler, hot: Rollout) -> None:
    short = sample(sampler, HOT, max_new_tokens=5)
    np.testing.assert_array_equal(short.tokens_BU[:, :5], hot.tokens_BU[:, :5])
    assert short.mask_BU.sum(axis=1).max() == 5


def test_more_new_tokens_than_slots_are_refused(sampler: Sampler) -> None:
    with pytest.raises(ValueError, match=f"max_new_tokens is 13, the response cache has {SLOTS} slots"):
        sample(sampler, HOT, max_new_tokens=SLOTS + 1)


def test_prompt_keys_are_held_once_per_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every attention of the decode loop reads Q prompt rows and B = Q * R response rows."""
    from urt_jax.models import decoder_layer

    seen: list[tuple[int, int]] = []
    plain = decoder_layer.attend_group

    def noted(query: Any, prompt_key: Any, *others: Any) -> Any:
        seen.append((prompt_key.shape[0], query.shape[0]))
        return plain(query, prompt_key, *others)

    monkeypatch.setattr(decoder_layer, "attend_group", noted)
    chats = (CHATS[1], CHATS[1])
    sample(
        Sampler(MODEL, PROCESSOR),
        HOT,
        decoding=DecodeSettings(10),
        chats=chats,
        ids=IDS[:2],
        bucket=need(chats),
        responses=5,
    )
    assert set(seen) == {(2, 10)}


def compiled(caplog: pytest.LogCaptureFixture, call: Callable[[], Any]) -> set[str]:
    """Return which programs of the sampler a call compiled, in any thread."""
    caplog.clear()
    jax.config.update("jax_log_compiles", True)
    try:
        call()
    finally:
        jax.config.update("jax_log_compiles", False)
    names = ("gather_weights", "prefill", "_begun", "_advanced")
    return {name for name in names for record in caplog.records if f"Compiling jit({name})" in record.getMessage()}


@pytest.mark.parametrize(("fsdp", "further"), [(1, set()), (2, {"gather_weights"})])
def test_what_was_compiled_ahead_is_not_compiled_again(
    fsdp: int, further: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    sampler = Sampler(MODEL, PROCESSOR)
    params = place_state(make_mesh(fsdp=fsdp, devices=jax.devices()[:fsdp]), tiny_params())
    settings = {"sampling": HOT, "slots": SLOTS}

    def sampled(responses: int) -> set[str]:
        asked = partial(sampler.sample, params, CHATS, IDS, bucket=BUCKET, seed=0, **settings)
        return compiled(caplog, lambda: asked(responses=responses))

    ahead = compiled(caplog, lambda: sampler.compile_ahead(params, [BUCKET], responses=RESPONSES, **settings))
    assert ahead == {"prefill", "_begun", "_advanced"} | further
    assert sampled(RESPONSES) == set()
    assert sampled(RESPONSES + 1) == {"_begun", "_advanced"}

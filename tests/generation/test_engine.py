"""The engine: a cache is a value, rows join and leave while others decode, and every setting is a row's own."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import CONFIG, EOS, MODEL, PAD, PROCESSOR, WORDS, batch_of, jitted, make_chat, need, tiny_params
from urt_jax.data.collate import collate_prompts
from urt_jax.families.processor import padding_of
from urt_jax.generation.engine import Engine
from urt_jax.generation.prompt_cache import PromptCache
from urt_jax.generation.sampler import Sampler, question_number
from urt_jax.generation.sampling import Sampling
from urt_jax.generation.schedule import Schedule
from urt_jax.generation.state import Completions, Decoding, row_settings
from urt_jax.generation.vocabulary import make_vocabulary
from urt_jax.types import EncodedChat, Rollout

SLOTS, TOKENS, GROUP = 10, 16, 2
HOT, GREEDY = Sampling(temperature=5.0), Sampling(0.0)
CHATS = [make_chat(1, pictures=[(2, 2)]), make_chat(2, text=9), make_chat(3, clip=(2, 1, 2))]
IDS = ["one", "two", "three"]
PLAN = Schedule.of(questions=3, responses=GROUP, rows=3 * GROUP)
VOCABULARY = make_vocabulary(PROCESSOR)


@pytest.fixture(scope="module", params=[1, CONFIG.decoder.layers], ids=["stacked", "apart"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return Engine(MODEL.clone(unroll=request.param))


@pytest.fixture(scope="module")
def alone() -> Rollout:
    """Return what the batch call samples: two hot responses to each chat."""
    bucket = need(CHATS, tokens=TOKENS)
    settings: dict[str, Any] = {"bucket": bucket, "responses": GROUP, "slots": SLOTS, "seed": 0}
    return Sampler(MODEL, PROCESSOR).sample(tiny_params(), CHATS, IDS, sampling=HOT, **settings)


def prompts_of(
    engine: Engine, chats: Sequence[EncodedChat], tokens: int = TOKENS, *, penalised: bool = False
) -> PromptCache:
    batch = collate_prompts(chats, bucket=need(chats, tokens=tokens), **padding_of(PROCESSOR))
    positions = np.array([chat.next_position for chat in chats], np.int32)
    return engine.prefill(tiny_params(), batch, positions, penalised=penalised)[0]


def joined(
    engine: Engine, decoding: Decoding, group: int, prompts: PromptCache, question: int, *, name: str,
    sampling: Sampling = HOT, seed: int = 0, longest: int = SLOTS, wanted: Sequence[bool] = (True, True),
) -> Decoding:  # fmt: skip
    """Let both responses of a question begin in a group."""
    named = np.full(GROUP, question_number(name), np.uint32)
    draws = engine.draws(np.full(GROUP, seed), named, np.arange(GROUP), slots=SLOTS)
    settings = row_settings([sampling] * GROUP, [longest] * GROUP, lambda stop: 0)
    return engine.join(decoding, group, prompts, question, draws, settings, np.array(wanted), VOCABULARY)


def empty(engine: Engine, prompt_slots: int = TOKENS, *, penalised: bool = False) -> Decoding:
    return engine.empty(PLAN, VOCABULARY, prompt_slots=prompt_slots, slots=SLOTS, penalised=penalised)


def advanced(engine: Engine, decoding: Decoding, until: int) -> tuple[Decoding, Completions, bool]:
    decoding, out, more = engine.advance(tiny_params(), None, decoding, VOCABULARY, jnp.int32(until), plan=PLAN)
    return decoding, jax.device_get(out), bool(more)


def written(out: Any, row: int) -> list[int]:
    return np.asarray(out.tokens_BU)[row][np.asarray(out.mask_BU)[row]].tolist()


def test_rows_that_join_late_write_what_they_write_alone(engine: Engine, alone: Rollout) -> None:
    """Each question begins when the one before is some tokens on, in another order than the batch call has them."""
    decoding, out = empty(engine), None
    for turn, question in enumerate((2, 0, 1)):
        prompts = prompts_of(engine, [CHATS[question]])
        decoding = joined(engine, decoding, turn, prompts, 0, name=IDS[question])
        decoding, out, _ = advanced(engine, decoding, 3 * (turn + 1))
    decoding, out, more = advanced(engine, decoding, 100)
    assert not more
    for turn, question in enumerate((2, 0, 1)):
        for response in range(GROUP):
            row, of_batch = turn * GROUP + response, question * GROUP + response
            assert written(out, row) == alone.tokens_BU[of_batch][alone.mask_BU[of_batch]].tolist()
            count = int(alone.mask_BU[of_batch].sum())
            np.testing.assert_allclose(out.logp_BU[row, :count], alone.logp_BU[of_batch, :count], atol=1e-5)
            assert out.ended_B[row] == alone.ended_B[of_batch]


def test_a_group_takes_one_question_after_the_other(engine: Engine, alone: Rollout) -> None:
    """Nothing is left of what the rows wrote before, though the ring has turned."""
    prompts, decoding, step = prompts_of(engine, CHATS), empty(engine), 0
    for question in (1, 0, 2):
        decoding = joined(engine, decoding, 1, prompts, question, name=IDS[question])
        more = True
        while more:
            step += 4
            decoding, out, more = advanced(engine, decoding, step)
        for response in range(GROUP):
            of_batch = question * GROUP + response
            assert written(out, GROUP + response) == alone.tokens_BU[of_batch][alone.mask_BU[of_batch]].tolist()
            assert (out.tokens_BU[GROUP + response][~out.mask_BU[GROUP + response]] == PAD).all()
    assert not out.mask_BU[[0, 1, 4, 5]].any(), "groups that nobody joined write nothing"


def test_a_narrow_prompt_joins_a_wide_batch_and_a_wide_one_is_refused(engine: Engine, alone: Rollout) -> None:
    decoding = joined(engine, empty(engine, 24), 0, prompts_of(engine, CHATS), 0, name="one")
    _, out, _ = advanced(engine, decoding, 100)
    assert written(out, 0) == alone.tokens_BU[0][alone.mask_BU[0]].tolist()
    wide = prompts_of(engine, CHATS, tokens=TOKENS + 8)
    with pytest.raises(ValueError, match="prompts of 24 slots do not fit a batch that holds 8 fewer"):
        joined(engine, empty(engine), 0, wide, 0, name="one")
    with pytest.raises(ValueError, match="both be made with `penalised`"):
        joined(engine, empty(engine), 0, prompts_of(engine, CHATS, penalised=True), 0, name="one")


def test_a_row_that_leaves_stops_and_its_neighbours_go_on(engine: Engine, alone: Rollout) -> None:
    decoding = joined(engine, empty(engine), 0, prompts_of(engine, CHATS), 0, name="one")
    decoding, before, _ = advanced(engine, decoding, 2)
    decoding = engine.leave(decoding, 1)
    _, out, more = advanced(engine, decoding, 100)
    assert not more
    assert written(out, 1) == written(before, 1), "no token after it left"
    assert len(written(before, 1)) == 2
    assert written(out, 0) == alone.tokens_BU[0][alone.mask_BU[0]].tolist()


def test_only_wanted_rows_of_a_group_begin(engine: Engine, alone: Rollout) -> None:
    prompts = prompts_of(engine, CHATS)
    decoding = joined(engine, empty(engine), 0, prompts, 1, name="two", wanted=(False, True))
    _, out, _ = advanced(engine, decoding, 100)
    assert written(out, 0) == []
    assert written(out, 1) == alone.tokens_BU[3][alone.mask_BU[3]].tolist()


def test_an_extended_prompt_is_the_joined_prompt(engine: Engine) -> None:
    """One by three and one by five words, left-padded, against prompts that held the words from the start."""
    texts = [[WORDS.start + 3, WORDS.start + 1, WORDS.start + 4], [WORDS.start + n for n in (5, 9, 2, 6, 5)]]
    tokens, mask = np.full((2, 6), PAD, np.int32), np.zeros((2, 6), bool)
    for row, text in enumerate(texts):
        tokens[row, -len(text) :], mask[row, -len(text) :] = text, True
    found = engine.extend(tiny_params(), prompts_of(engine, CHATS[:2], penalised=True), tokens, mask)
    answers = [np.array(text, np.int32) for text in texts]
    whole = batch_of(CHATS[:2], answers)
    hidden = np.asarray(jitted("hidden")(tiny_params(), whole))
    for row, (chat, text) in enumerate(zip(CHATS, texts)):
        np.testing.assert_allclose(found.hidden_QD[row], hidden[row, len(chat.tokens_T) + len(text) - 1], atol=1e-5)
        assert int(found.position_Q[row]) == chat.next_position + len(text)
        assert set(np.flatnonzero(found.seen_QV[row])) == {*chat.tokens_T.tolist(), *text}
    assert found.mask_QS.shape == (2, TOKENS + 6)
    assert np.asarray(found.mask_QS).sum(axis=1).tolist() == [
        len(chat.tokens_T) + len(text) for chat, text in zip(CHATS, texts)
    ]


def test_a_branch_goes_on_as_its_row_would_have(engine: Engine, alone: Rollout) -> None:
    """After five tokens of each of two rows: forked, each branch writes the rest of its row greedily."""
    prompts = prompts_of(engine, CHATS)
    whole = joined(engine, empty(engine), 0, prompts, 0, name="one", sampling=GREEDY)
    _, wanted, _ = advanced(engine, whole, 100)
    decoding = joined(engine, empty(engine), 0, prompts, 0, name="one", sampling=GREEDY)
    for group, question in ((1, 1), (2, 2)):  # neighbours under way, so that the ring is not the row's alone
        decoding = joined(engine, decoding, group, prompts, question, name=IDS[question])
    decoding, before, _ = advanced(engine, decoding, 5)
    branches = engine.branch(decoding, jnp.array([0, 3]), group=GROUP)
    assert branches.mask_QS.shape == (2, TOKENS + SLOTS)
    assert np.asarray(branches.mask_QS).sum(axis=1).tolist() == [
        len(CHATS[0].tokens_T) + len(written(before, 0)),
        len(CHATS[1].tokens_T) + len(written(before, 3)),
    ]
    begun = written(before, 0)
    assert EOS not in begun, "the greedy response must go on for this test to say anything"
    later = joined(engine, empty(engine, TOKENS + SLOTS), 0, branches, 0, name="x", sampling=GREEDY)
    _, out, _ = advanced(engine, later, 100)
    assert begun == written(wanted, 0)[:5]
    left = written(wanted, 0)[5:]
    assert left
    assert written(out, 0)[: len(left)] == left
    assert written(out, 1)[: len(left)] == left, "both rows of the group read the branch"


def test_a_batch_in_which_responses_wait_takes_no_request_and_is_not_branched(engine: Engine) -> None:
    prompts, plan = prompts_of(engine, CHATS), Schedule.of(questions=3, responses=GROUP, rows=GROUP)
    rows = tuple(np.zeros(3 * GROUP, np.uint32) for _ in range(3))
    settings = row_settings([HOT] * 3 * GROUP, [SLOTS] * 3 * GROUP, lambda stop: 0)
    fixed: dict[str, Any] = {"plan": plan, "questions": 3, "slots": SLOTS}
    _, waiting = engine.begin(prompts, jnp.int32(0), jnp.int32(0), rows, settings, VOCABULARY, **fixed)
    with pytest.raises(ValueError, match="branch only from a batch of `empty`; in this one, responses wait"):
        engine.branch(waiting, jnp.array([0]), group=GROUP)
    with pytest.raises(ValueError, match="in this one, responses wait for rows"):
        joined(engine, waiting, 0, prompts, 0, name="one")


def test_taking_forks_and_drops(engine: Engine) -> None:
    prompts = prompts_of(engine, CHATS)
    some = prompts.take(jnp.array([2, 0, 2]))
    jax.tree.map(np.testing.assert_array_equal, some.take(jnp.array([1])), prompts.part(jnp.int32(0), 1))
    jax.tree.map(np.testing.assert_array_equal, some.take(jnp.array([0])), some.take(jnp.array([2])))
    assert some.seen(jnp.array([0])) is None


def test_every_setting_is_a_rows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Temperature, filters, penalty, length, seed and stop strings in one call, against a call for each."""
    from types import SimpleNamespace

    added = {20: SimpleNamespace(special=False, content="stop"), 21: SimpleNamespace(special=False, content="hold")}
    monkeypatch.setattr(type(PROCESSOR.tokenizer), "added_tokens_decoder", added)
    monkeypatch.setattr(type(PROCESSOR.tokenizer), "get_vocab", lambda self: {"w20": 20, "w21": 21}, raising=False)
    sampler = Sampler(MODEL, PROCESSOR)
    rows = [
        (HOT, 10, 0), (GREEDY, 4, 0), (Sampling(5.0, top_k=3), 10, 7), (Sampling(5.0, repetition_penalty=3.0), 9, 1),
        (Sampling(5.0, stop=("top",)), 10, 2), (Sampling(5.0, stop=("ol", "zz")), 10, 2),
    ]  # fmt: skip
    settings: dict[str, Any] = {"bucket": need(CHATS, tokens=TOKENS), "responses": GROUP, "slots": SLOTS}
    mixed = sampler.sample(
        tiny_params(), CHATS, IDS, sampling=[row[0] for row in rows], max_new_tokens=[row[1] for row in rows],
        seed=[row[2] for row in rows], **settings,
    )  # fmt: skip
    for row, (sampling, longest, seed) in enumerate(rows):
        one = sampler.sample(
            tiny_params(), CHATS, IDS, sampling=sampling, max_new_tokens=longest, seed=seed, **settings
        )
        assert written(mixed, row) == written(one, row), rows[row]
    assert len(written(mixed, 1)) <= 4
    assert mixed.ended_B[4] == (20 in written(mixed, 4) or EOS in written(mixed, 4))


def test_settings_of_another_number_are_refused() -> None:
    settings: dict[str, Any] = {"bucket": need(CHATS, tokens=TOKENS), "responses": GROUP, "slots": SLOTS, "seed": 0}
    with pytest.raises(ValueError, match="2 Sampling settings for 6 responses; give one, or one per response"):
        Sampler(MODEL, PROCESSOR).sample(tiny_params(), CHATS, IDS, sampling=[HOT, GREEDY], **settings)

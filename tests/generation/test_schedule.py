"""Rows are refilled as responses end: by hand, and the same samples however many rows decode at a time."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.generation.test_sampler import HOT, RESPONSES, SLOTS, sample
from tests.tiny import EOS, MODEL, PROCESSOR, make_chat, need, tiny_params
from urt_jax.generation import lanes
from urt_jax.generation.job import Finished
from urt_jax.generation.lanes import cpu_rows, make_plan
from urt_jax.generation.sampler import Sampler
from urt_jax.generation.sampling import DecodeSettings, Sampling
from urt_jax.generation.schedule import Schedule, first_rows, refill
from urt_jax.models.kv_cache import ring_mask
from urt_jax.models.tuning import CPU
from urt_jax.sharding.mesh import make_mesh
from urt_jax.sharding.placement import place_state


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    return Sampler(MODEL, PROCESSOR)


def test_rows_stand_in_groups_of_whole_questions_or_parts_of_one() -> None:
    assert Schedule.of(questions=5, responses=3, rows=15).all_at_once
    assert Schedule.of(questions=5, responses=3, rows=99).rows == 15
    some = Schedule.of(questions=5, responses=3, rows=7)
    assert (some.rows, some.group, some.groups, some.all_at_once) == (6, 3, 2, False)
    part = Schedule.of(questions=5, responses=4, rows=2)
    assert (part.rows, part.group, part.groups) == (2, 2, 1)
    with pytest.raises(ValueError, match="rows is 0; at least one"):
        Schedule.of(questions=1, responses=1, rows=0)


def test_free_rows_take_the_next_response_then_the_next_question_by_hand() -> None:
    """Three questions of three responses, four rows in two groups of two."""
    plan = Schedule(questions=3, responses=3, rows=4, group=2)
    rows = first_rows(plan)
    np.testing.assert_array_equal(rows.places(plan), [0, 1, 3, 4])
    rows, fresh = refill(rows.after_token(jnp.array([False, True, False, False])), plan)
    np.testing.assert_array_equal(rows.places(plan), [0, 2, 3, 4])
    np.testing.assert_array_equal(fresh, [False, True, False, False])
    np.testing.assert_array_equal(rows.used, [1, 0, 1, 1])
    rows, fresh = refill(rows.after_token(jnp.array([True, False, False, False])), plan)
    np.testing.assert_array_equal(rows.places(plan), [9, 2, 3, 4])  # question 0 has no response left: the row idles
    assert not fresh.any()
    rows, fresh = refill(rows.after_token(jnp.array([False, True, False, False])), plan)
    np.testing.assert_array_equal(rows.places(plan), [6, 7, 3, 4])  # question 2 comes
    np.testing.assert_array_equal(fresh, [True, True, False, False])
    rows, _ = refill(rows.after_token(jnp.array([False, False, True, True])), plan)
    np.testing.assert_array_equal(rows.places(plan), [6, 7, 5, 9])
    rows, _ = refill(rows.after_token(jnp.ones(4, bool)), plan)
    np.testing.assert_array_equal(rows.places(plan), [8, 9, 9, 9])
    rows, _ = refill(rows.after_token(jnp.ones(4, bool)), plan)
    assert not rows.live.any()


@pytest.mark.parametrize(("questions", "responses", "at_once"), [(1, 1, 1), (7, 1, 3), (4, 6, 4), (5, 2, 4), (3, 5, 1)])
def test_every_response_is_decoded_exactly_once(questions: int, responses: int, at_once: int) -> None:
    plan = Schedule.of(questions=questions, responses=responses, rows=at_once)
    rng, rows, step = np.random.default_rng(0), first_rows(plan), jax.jit(lambda rows: refill(rows, plan))
    begun = [int(place) for place in rows.places(plan)]
    for _ in range(200):
        if not rows.live.any():
            break
        rows, fresh = step(rows.after_token(jnp.asarray(rng.random(plan.rows) < 0.3) & rows.live))
        begun += np.asarray(rows.places(plan))[np.asarray(fresh)].tolist()
    assert sorted(begun) == list(range(questions * responses))


def test_a_row_sees_its_own_past_in_the_ring() -> None:
    mask = ring_mask(jnp.array([2, 4, 0]), jnp.int32(5), 4)
    np.testing.assert_array_equal(mask, [[1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]])


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_what_is_sampled_does_not_depend_on_how_many_rows_decode(sampler: Sampler, at_once: int) -> None:
    """Prompts of pictures, text and a clip; responses of all lengths, so that rows come free one by one."""
    whole = sample(sampler, HOT)
    assert len(set(whole.mask_BU.sum(axis=1).tolist())) > 2, "the responses must differ in length"
    some = sample(sampler, HOT, decoding=DecodeSettings(at_once))
    np.testing.assert_array_equal(some.tokens_BU, whole.tokens_BU)
    np.testing.assert_array_equal(some.mask_BU, whole.mask_BU)
    np.testing.assert_allclose(some.logp_BU, whole.logp_BU, atol=1e-5, rtol=0)
    assert some.texts == whole.texts


def test_penalty_and_stop_strings_start_anew_with_each_response(sampler: Sampler) -> None:
    sampling = Sampling(temperature=5.0, repetition_penalty=1.7)
    whole, some = sample(sampler, sampling), sample(sampler, sampling, decoding=DecodeSettings(2))
    np.testing.assert_array_equal(some.tokens_BU, whole.tokens_BU)


def test_throughput_does_not_fall_to_the_slowest_row(sampler: Sampler) -> None:
    """Few rows run the model about as often as there are tokens for each of them."""
    whole = sample(sampler, HOT, decoding=DecodeSettings(3 * RESPONSES))
    lengths = whole.mask_BU.sum(axis=1)
    assert whole.decode_steps == lengths.max()
    some = sample(sampler, HOT, decoding=DecodeSettings(RESPONSES))
    assert some.decode_steps < 0.9 * SLOTS * len(lengths) / RESPONSES, "waves of full length would take this long"
    assert some.decode_steps >= lengths.sum() / RESPONSES
    assert (whole.tokens_BU == EOS).any()


def test_finished_responses_are_told_of_once_while_others_run(sampler: Sampler) -> None:
    told: list[Finished] = []
    found = sample(sampler, HOT, decoding=DecodeSettings(2), finished=told.append)
    assert len(told) > 2, "responses must end at different times for this test to say anything"
    rows = np.concatenate([some.rows for some in told])
    assert sorted(rows.tolist()) == list(range(len(found.texts)))
    texts = [text for some in told for text in some.texts]
    assert texts == [found.texts[row] for row in rows]
    whole = sample(sampler, HOT)
    np.testing.assert_array_equal(found.tokens_BU, whole.tokens_BU)


def test_lanes_of_a_cpu_sample_what_one_program_does(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sample(sampler, HOT, decoding=DecodeSettings(3 * RESPONSES))
    monkeypatch.setattr(lanes, "tuning", lambda: replace(CPU, few_rows=RESPONSES))
    monkeypatch.setattr(lanes, "cores", lambda: 3)
    assert make_plan(3, RESPONSES, params=tiny_params(), mesh=None, at_once=None)[0] == 3
    apart = sample(sampler, HOT)
    np.testing.assert_array_equal(apart.tokens_BU, whole.tokens_BU)
    np.testing.assert_array_equal(apart.ended_B, whole.ended_B)


def test_a_cpu_decodes_few_rows_of_a_model_that_its_caches_hold() -> None:
    small = {"decoder": np.zeros((1024, 1024), np.float32), "vision": np.zeros((4096, 4096), np.float32)}
    large = {**small, "head": jax.ShapeDtypeStruct((32000, 512), np.float32)}
    assert (cpu_rows(small, CPU), cpu_rows(large, CPU)) == (CPU.few_rows, CPU.many_rows)


@pytest.mark.parametrize(("data", "fsdp"), [(4, 1), (2, 2)])
def test_rows_are_refilled_on_a_mesh(data: int, fsdp: int) -> None:
    """Eight questions of three responses: every device decodes two rows at a time of its own two questions."""
    chats, ids = [make_chat(i, text=4 + i) for i in range(8)], [f"q{i}" for i in range(8)]
    settings = {"bucket": need(chats, tokens=16), "responses": RESPONSES, "slots": SLOTS, "seed": 0}
    alone = Sampler(MODEL, PROCESSOR).sample(tiny_params(), chats, ids, sampling=HOT, **settings)
    mesh = make_mesh(data, fsdp, 1, devices=jax.devices()[:4])
    split = Sampler(MODEL, PROCESSOR)
    found = split.sample(
        place_state(mesh, tiny_params()), chats, ids, sampling=HOT, decoding=DecodeSettings(8), **settings
    )
    np.testing.assert_array_equal(found.tokens_BU, alone.tokens_BU)
    np.testing.assert_allclose(found.logp_BU, alone.logp_BU, atol=1e-5, rtol=0)
    assert next(iter(split.shapes))[-1] == 8
    assert found.decode_steps > alone.decode_steps


def test_questions_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="5 questions do not divide into 2 parts; give a multiple of 2"):
        Schedule.of(questions=5, responses=3, rows=4, parts=2)

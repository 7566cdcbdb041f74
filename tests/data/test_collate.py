"""Padding, packing and shapes: where every token and frame of a record goes."""

import numpy as np
import pytest

from tests.tiny import FEATURES, MERGE, PAD, batch_of, make_chat, need
from urt_jax.data.collate import (
    Buckets,
    Length,
    Need,
    collate,
    collate_prompts,
    join_completions,
    length_of,
    need_of,
    pack,
    plan_buckets,
    targets_of,
)
from urt_jax.types import EncodedChat, FrameBlend, FramePatches


def lengths_of(*tokens: int) -> list[Length]:
    return [Length(count, 0, 0) for count in tokens]


def test_pack_puts_the_longest_first_into_the_first_row_that_has_room() -> None:
    assert pack(lengths_of(3, 7, 5, 2, 3), width=10) == [[1, 0], [2, 4, 3]]
    assert pack(lengths_of(4, 4, 4), width=4) == [[0], [1], [2]]
    assert pack([], width=4) == []


def test_pack_holds_every_record_once_within_the_width() -> None:
    tokens = [int(n) for n in np.random.default_rng(0).integers(1, 60, 200)]
    rows = pack(lengths_of(*tokens), width=64)
    assert sorted(record for row in rows for record in row) == list(range(200))
    assert max(sum(tokens[record] for record in row) for row in rows) <= 64
    assert len(rows) <= 1.25 * sum(tokens) / 64


def test_pack_keeps_both_budgets() -> None:
    rng = np.random.default_rng(0)
    lengths = [Length(*map(int, rng.integers((1, 0, 4), (60, 5, 32)))) for _ in range(200)]
    rows = pack(lengths, width=64, patch_budget=100)
    assert sorted(record for row in rows for record in row) == list(range(200))
    for row in rows:
        assert sum(lengths[i].tokens for i in row) <= 64
        assert len(row) == 1 or sum(lengths[i].frames * lengths[i].patches for i in row) <= 100
    assert len(rows) > len(pack(lengths, width=64))


def test_pack_gives_a_record_above_the_patch_budget_a_row_of_its_own() -> None:
    lengths = [Length(4, 1, 30), Length(3, 1, 8), Length(2, 0, 0), Length(1, 1, 12)]
    assert pack(lengths, width=10, patch_budget=20) == [[0], [1, 2, 3]]


def test_pack_refuses_a_record_longer_than_a_row() -> None:
    with pytest.raises(ValueError, match="record 1 has 11 tokens, a row holds 10"):
        pack(lengths_of(3, 11), width=10)


def test_buckets_hold_every_need_in_at_most_8_shapes() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        needs = [Need(*(int(n) for n in rng.integers(1, (9, 300, 20, 200)))) for _ in range(12)]
        buckets = plan_buckets(needs, slot_step=16, row_step=2)
        assert buckets.count <= 8
        for one in needs:
            shape = buckets.fit(one)
            assert all(have >= want for have, want in zip(shape, one))
            assert shape in {
                Need(r, t, f, p)
                for r in buckets.rows
                for t in buckets.tokens
                for f in buckets.frames
                for p in buckets.patches
            }
            assert shape.rows % 2 == 0
            assert shape.tokens % 8 == 0
            assert shape.patches % 16 == 0


def test_buckets_take_a_second_size_where_it_saves_a_quarter() -> None:
    needs = [Need(4, 30, 4, 16), Need(4, 30, 4, 16), Need(4, 100, 4, 16)]
    assert plan_buckets(needs, slot_step=16) == Buckets((4,), (32, 104), (4,), (16,))
    assert plan_buckets([Need(4, 90, 4, 16), *needs[1:2], needs[2]], slot_step=16).tokens == (104,)


def test_frames_of_one_window_take_no_whole_windows() -> None:
    assert plan_buckets([Need(1, 8, 1, 12)], slot_step=64).patches == (12,)
    assert plan_buckets([Need(1, 8, 1, 68)], slot_step=64).patches == (128,)


def test_text_alone_needs_no_frames() -> None:
    assert plan_buckets([Need(2, 8, 0, 0)], slot_step=64).fit(Need(2, 5, 0, 0)) == Need(2, 8, 0, 0)


def test_shapes_of_a_sample_go_on_by_doubling_where_a_batch_is_larger() -> None:
    buckets = Buckets((4,), (32, 56), (12,), (16,), endless=True)
    assert buckets.fit(Need(4, 40, 12, 3)) == (4, 56, 12, 16, 0)
    assert buckets.fit(Need(5, 57, 25, 16)) == (8, 112, 48, 16, 0)
    with pytest.raises(ValueError, match="a batch needs 1 frames, the largest bucket holds 0"):
        Buckets((4,), (32,), (0,), (0,), endless=True).fit(Need(4, 32, 1, 4))


def test_a_need_beyond_the_largest_bucket_is_refused() -> None:
    buckets = Buckets((4,), (32, 64), (4,), (16,))
    assert buckets.fit(Need(4, 33, 1, 4)) == Need(4, 64, 4, 16)
    with pytest.raises(ValueError, match="a batch needs 65 tokens, the largest bucket holds 64; plan buckets over all"):
        buckets.fit(Need(4, 65, 4, 16))


def test_lengths_and_needs_by_hand() -> None:
    chat = make_chat(1, text=5, pictures=[(2, 2), (1, 1)])  # 5 words, 3 + 4 and 3 + 1 tokens around and in pictures
    assert length_of(chat, 6) == Length(tokens=5 + 7 + 4 + 6, frames=2, patches=16, learnt=6)
    assert length_of(make_chat(2, text=3)) == Length(3, 0, 0)
    lengths = [Length(22, 2, 16), Length(3, 0, 0), Length(9, 1, 4)]
    assert need_of(lengths, rows=2) == Need(2, 22, 3, 16)
    assert need_of(lengths, rows=2, tokens=40) == Need(2, 40, 3, 16)
    learnt = [length._replace(learnt=count) for length, count in zip(lengths, (6, 1, 4))]
    assert need_of(learnt, rows=3).learnt == 6
    assert need_of(learnt, rows=2, packed=[[0], [1, 2]]).learnt == 6
    assert need_of(learnt, rows=1, packed=[[0, 1, 2]]).learnt == 11


def test_training_rows_are_padded_to_the_right() -> None:
    chat = make_chat(1, text=2, pictures=[(1, 2)])
    batch = batch_of([chat], [[20, 21, 2]], tokens=12)
    length = len(chat.tokens_T)
    np.testing.assert_array_equal(batch.tokens_BT[0], [*chat.tokens_T, 20, 21, 2, *[PAD] * (9 - length)])
    np.testing.assert_array_equal(batch.segments_BT[0], [1] * (length + 3) + [0] * (9 - length))
    np.testing.assert_array_equal(batch.targets.place_BZJ[0, 0], [length - 1, length, length + 1])
    np.testing.assert_array_equal(batch.targets.token_BZJ[0, 0], [20, 21, 2])
    assert batch.targets.mask_BZJ.all()
    after = chat.next_position
    np.testing.assert_array_equal(batch.positions_3BT[:, 0, length : length + 3], [[after, after + 1, after + 2]] * 3)


def test_a_history_is_read_in_place_of_the_response_that_is_learnt() -> None:
    chats, learnt, read = [make_chat(1, text=3), make_chat(2, text=2)], [[20, 21, 2], [22, 2]], [[20, 30, 2], [31, 2]]
    plain = batch_of(chats, learnt, packed=[[1, 0]], rows=1, tokens=12)
    shape = {
        "bucket": need(chats, answer=3, rows=1, tokens=12),
        "pad_id": PAD,
        "patch_features": FEATURES,
        "merge": MERGE,
    }
    batch = collate(
        chats, [np.array(ids) for ids in learnt], packed=[[1, 0]], histories=[np.array(ids) for ids in read], **shape
    )
    place = plain.targets.place_BZJ[0, 0]
    np.testing.assert_array_equal(place, batch.targets.place_BZJ[0, 0])
    np.testing.assert_array_equal(batch.targets.token_BZJ[0, 0], [22, 2, 20, 21, 2])
    np.testing.assert_array_equal(plain.targets.token_BZJ[0, 0], plain.tokens_BT[0][place + 1])
    np.testing.assert_array_equal(batch.tokens_BT[0][place + 1], [31, 2, 20, 30, 2])
    others = np.delete(np.arange(12), place + 1)
    np.testing.assert_array_equal(batch.tokens_BT[0][others], plain.tokens_BT[0][others])


def test_packed_records_keep_their_own_segments_positions_and_frames() -> None:
    chats = [make_chat(1, text=2, pictures=[(1, 2)]), make_chat(2, text=3), make_chat(3, text=1, pictures=[(1, 1)])]
    batch = batch_of(chats, [[20, 2], [21, 2], [22, 2]], packed=[[0, 2], [1]], rows=2, tokens=18, patches=16)
    first, third = len(chats[0].tokens_T), len(chats[2].tokens_T)
    np.testing.assert_array_equal(
        batch.segments_BT[0], [1] * (first + 2) + [2] * (third + 2) + [0] * (14 - first - third)
    )
    np.testing.assert_array_equal(batch.positions_3BT[:, 0, first + 2 : first + 2 + third], chats[2].positions_3T)
    shown = batch.vision_index_BT[0]
    np.testing.assert_array_equal(shown[shown >= 0], [0, 1, 16 // MERGE])
    np.testing.assert_array_equal(batch.vision.patches_IPC[1, :4], chats[2].frames[0].patches_PC)
    assert not batch.vision.mask_IP[1, 4:].any()


def test_prompts_are_padded_to_the_left() -> None:
    chats = [make_chat(1, text=2), make_chat(2, text=4, pictures=[(1, 1)])]
    shape = need(chats, tokens=10)
    batch = collate_prompts(chats, bucket=shape, pad_id=PAD, patch_features=FEATURES, merge=MERGE)
    for row, chat in enumerate(chats):
        np.testing.assert_array_equal(batch.tokens_BT[row, -len(chat.tokens_T) :], chat.tokens_T)
        np.testing.assert_array_equal(
            batch.segments_BT[row], [0] * (10 - len(chat.tokens_T)) + [1] * len(chat.tokens_T)
        )
        np.testing.assert_array_equal(batch.positions_3BT[:, row, -len(chat.tokens_T) :], chat.positions_3T)
    assert batch.targets is None


def test_targets_by_hand() -> None:
    """Two rows of six places; of the second a single one is learnt, so that it is filled up."""
    learnt = np.array([[0, 1, 1, 0, 1, 0], [0, 0, 0, 1, 0, 0]], bool)
    following = np.arange(12).reshape(2, 6) + 100
    found = targets_of(following, learnt)
    np.testing.assert_array_equal(found.place_BZJ[0, 0], [1, 2, 4])
    np.testing.assert_array_equal(found.token_BZJ[0, 0], [101, 102, 104])
    np.testing.assert_array_equal(found.mask_BZJ[:, 0], [[1, 1, 1], [1, 0, 0]])
    assert (found.place_BZJ[1, 0, 0], found.token_BZJ[1, 0, 0]) == (3, 109)
    assert targets_of(following, learnt, learnt=5).place_BZJ.shape == (2, 1, 5)
    assert targets_of(following, learnt, learnt=50).place_BZJ.shape == (2, 1, 6), "a row has no more places"
    assert targets_of(following, ~learnt & learnt).place_BZJ.shape == (2, 1, 0)


def test_where_tokens_are_split_each_part_has_its_own_targets() -> None:
    learnt = np.array([[0, 1, 1, 0, 1, 0], [0, 0, 0, 1, 1, 1]], bool)
    found = targets_of(np.arange(12).reshape(2, 6) + 100, learnt, parts=2)
    np.testing.assert_array_equal(found.mask_BZJ, [[[1, 1, 0], [1, 0, 0]], [[0, 0, 0], [1, 1, 1]]])
    np.testing.assert_array_equal(found.place_BZJ[found.mask_BZJ], [1, 2, 1, 0, 1, 2])
    np.testing.assert_array_equal(found.token_BZJ[found.mask_BZJ], [101, 102, 104, 109, 110, 111])


def test_completions_are_joined_question_major_and_share_frames() -> None:
    chats = [make_chat(1, text=2), make_chat(2, text=4, pictures=[(1, 1)])]
    prompts = batch_of(chats, left=True)
    width = prompts.tokens_BT.shape[1]
    completions = np.arange(12, dtype=np.int32).reshape(4, 3) + 20
    mask = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]], bool)
    positions = np.array([chat.next_position for chat in chats], np.int32)
    rows = join_completions(prompts, positions, completions, mask)
    np.testing.assert_array_equal(rows.tokens_BT[:, width:], completions)
    np.testing.assert_array_equal(rows.segments_BT[:, width:], mask)
    np.testing.assert_array_equal(rows.tokens_BT[1, :width], prompts.tokens_BT[0])
    np.testing.assert_array_equal(rows.vision_index_BT[3, :width], prompts.vision_index_BT[1])
    np.testing.assert_array_equal(rows.vision_index_BT[:, width:], -1)
    np.testing.assert_array_equal(rows.positions_3BT[:, 1, width:], [positions[0] + np.arange(3)] * 3)
    np.testing.assert_array_equal(rows.positions_3BT[:, 2, width:], [positions[1] + np.arange(3)] * 3)
    assert rows.vision is prompts.vision


def mixing_chat(frames: int, *places: dict[tuple[int, int], float] | str) -> EncodedChat:
    """Return a chat of frames with 3 patches: words, line ends, and mixes of two (frame, patch) with their weights."""
    shown, sources, weights = [], np.zeros((len(places), 2, 2), np.int32), np.zeros((len(places), 2), np.float32)
    for place, what in enumerate(places):
        if isinstance(what, str):
            shown.append({"word": (-1, -1), "end": (-2, -2)}[what])
        else:
            shown.append(next(iter(what)))
            sources[place, : len(what)], weights[place, : len(what)] = list(what), list(what.values())
    count = len(places)
    return EncodedChat(
        tokens_T=np.arange(7, 7 + count, dtype=np.int32),
        positions_3T=np.tile(np.arange(count, dtype=np.int32), (3, 1)),
        vision_T2=np.array(shown, np.int32),
        frames=(FramePatches(np.ones((3, 2), np.float32), np.zeros((3, 2), np.int32), np.ones(3, bool)),) * frames,
        blend=FrameBlend(sources, weights),
    )


# One frame, a mix of its patches 2 and 1; then two frames, a patch of the second and a mix of both.
MIXING = (
    mixing_chat(1, "word", {(0, 2): 0.75, (0, 1): 0.25}, "end"),
    mixing_chat(2, {(1, 0): 1.0}, "word", {(0, 1): 0.5, (1, 2): 0.5}, "end"),
)
MIXED_SHAPE = {"pad_id": PAD, "patch_features": 2, "merge": 1, "blend_sources": 2}


def test_blends_count_the_frames_of_the_batch() -> None:
    """Frames take 3 slots each, those of the second record begin at slot 3; words and padding mix nothing."""
    answers = [np.array([20, 2]), np.array([2])]
    batch = collate(MIXING, answers, bucket=Need(2, 6, 4, 3), **MIXED_SHAPE)
    np.testing.assert_array_equal(batch.vision_index_BT, [[-1, 2, -2, -1, -1, -1], [6, -1, 4, -2, -1, -1]])
    assert batch.blend is not None
    none = [0, 0]
    np.testing.assert_array_equal(
        batch.blend.index_BTK, [[none, [2, 1], none, none, none, none], [[6, 0], none, [4, 8], none, none, none]]
    )
    np.testing.assert_array_equal(
        batch.blend.weight_BTK,
        [[none, [0.75, 0.25], none, none, none, none], [[1, 0], none, [0.5, 0.5], none, none, none]],
    )


def test_blends_of_packed_records_follow_each_other() -> None:
    answers = [np.array([20]), np.array([2])]
    batch = collate(MIXING, answers, bucket=Need(1, 10, 4, 3), packed=[[1, 0]], **MIXED_SHAPE)
    np.testing.assert_array_equal(batch.vision_index_BT, [[3, -1, 1, -2, -1, -1, 8, -2, -1, -1]])
    assert batch.blend is not None
    np.testing.assert_array_equal(batch.blend.index_BTK[0, [0, 2, 6]], [[3, 0], [1, 5], [8, 7]])
    np.testing.assert_array_equal(batch.blend.weight_BTK[0].sum(axis=-1), [1, 0, 1, 0, 0, 0, 1, 0, 0, 0])


def test_blends_are_padded_to_the_left_and_joined_with_completions() -> None:
    prompts = collate_prompts(MIXING, bucket=Need(2, 5, 4, 4), **MIXED_SHAPE)  # 4 slots a frame
    assert prompts.blend is not None
    np.testing.assert_array_equal(prompts.vision_index_BT, [[-1, -1, -1, 2, -2], [-1, 8, -1, 5, -2]])
    np.testing.assert_array_equal(prompts.blend.index_BTK[:, 3], [[2, 1], [5, 10]])
    np.testing.assert_array_equal(prompts.blend.weight_BTK.sum(axis=-1), [[0, 0, 0, 1, 0], [0, 1, 0, 1, 0]])
    rows = join_completions(prompts, np.array([3, 4]), np.full((4, 2), 20, np.int32), np.ones((4, 2), bool))
    assert rows.blend is not None
    for ours, theirs in zip(rows.blend, prompts.blend):
        np.testing.assert_array_equal(ours[:, :5], np.asarray(theirs)[[0, 0, 1, 1]])
        np.testing.assert_array_equal(ours[:, 5:], np.zeros((4, 2, 2)))
    third = rows.take_groups(np.array([2]))
    assert third.blend is not None
    np.testing.assert_array_equal(third.blend.index_BTK, rows.blend.index_BTK[[2]])
    np.testing.assert_array_equal(third.blend.weight_BTK, rows.blend.weight_BTK[[2]])
    assert third.vision is prompts.vision


def test_where_nothing_is_mixed_there_is_no_blend() -> None:
    prompts = batch_of([make_chat(1, pictures=[(1, 1)])], left=True)
    assert prompts.blend is None
    rows = join_completions(prompts, np.array([9]), np.full((1, 2), 20, np.int32), np.ones((1, 2), bool))
    assert rows.blend is None
    assert rows.take_groups(np.array([0])).blend is None

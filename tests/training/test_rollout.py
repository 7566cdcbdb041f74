"""Where texts become rewards, advantages and the batch of an update, by hand."""

import numpy as np
import pytest

from tests.training.tiny_training import rollout
from urt_jax.data.examples import Example
from urt_jax.rewards import RewardError, UserReward
from urt_jax.sharding.shares import Share
from urt_jax.training.rollout import (
    Scoring,
    advantages_of,
    groups_to_keep,
    join_groups,
    make_grpo_batch,
    rows_to_train,
    score_texts,
    scored,
    spread_groups,
)
from urt_jax.types import Rollout

WEIGHTS = {"format": 1.0, "accuracy": 2.0, "consistency": 0.0}
REASONING = (
    "<think>\n1. Semantic consistency: Image 1 (9/10) - fine; Image 2 (6/10) - off\n"
    "2. Aesthetics: Image 1 (9/10) - fine; Image 2 (7/10) - noisy\n"
    "3. Authenticity: Image 1 (5/10) - odd; Image 2 (8/10) - fine\n"
    "Total score:\nImage 1: 9+9+5=23\nImage 2: 6+7+8=21\n</think>\n"
)
GOOD = REASONING + "<answer>Image 1 is better</answer>"
AGAINST = REASONING + "<answer>Image 2 is better</answer>"


def rewarded(accuracy: list[list[float]], format_: list[list[float]]) -> Rollout:
    """Two responses to each of two questions, with these rewards."""
    rewards = {"accuracy": np.array(accuracy, np.float32), "format": np.array(format_, np.float32)}
    return rollout()._replace(rewards=rewards | {"consistency": np.zeros((2, 2), np.float32)})


def question(name: str, label: int) -> Example:
    return Example(name, task="image_gen", label=label)  # type: ignore[arg-type]


QUESTIONS = [question("a", 1), question("b", 2)]


def test_texts_are_scored_against_their_own_question() -> None:
    parts = score_texts([GOOD, "hm", GOOD, AGAINST], [1] * 4, QUESTIONS, Scoring())
    assert set(parts) == {"format", "accuracy", "consistency"}
    np.testing.assert_array_equal(parts["format"], [[1, 0], [1, 1]])
    np.testing.assert_array_equal(parts["accuracy"], [[1, 0], [0, 1]])
    np.testing.assert_array_equal(parts["consistency"], [[1, 0], [1, 0]])


def test_twins_are_compared_with_each_other_alone() -> None:
    """Two pairs in both orders; of the last nothing parsed in one order, so the other has nothing to compare with."""
    texts = [GOOD, AGAINST, AGAINST, "hm", "hm", "", GOOD, AGAINST]
    parts = score_texts(texts, [1] * 8, [*QUESTIONS, *QUESTIONS], Scoring(twins=True))
    np.testing.assert_array_equal(parts["swap_consistency"], [[1, 0], [0.5, 0], [0, 0], [np.nan, np.nan]])


def test_lengths_and_a_users_own_rewards_are_parts_too() -> None:
    def shown(*, text: str, solution: str, example: Example) -> float | None:
        return None if text == "hm" else float(solution == f"Image {example.label} is better" and example.id == "b")

    scoring = Scoring(overlong=(8, 4), user=(UserReward("shown", shown),))
    parts = score_texts([GOOD, "hm", GOOD, AGAINST], [4, 5, 8, 20], QUESTIONS, scoring)
    np.testing.assert_array_equal(parts["overlong"], [[0, -0.25], [-1, -1]])
    np.testing.assert_array_equal(parts["shown"], [[0, np.nan], [1, 1]])


def test_shorter_is_better_in_groups_that_are_all_right_alone() -> None:
    scoring = Scoring(brevity=True)
    parts = score_texts([GOOD, GOOD, GOOD, "hm"], [4, 8, 4, 2], [QUESTIONS[0], QUESTIONS[0]], scoring)
    np.testing.assert_array_equal(parts["brevity"], [[0.5, -0.5], [0, 0]])


def test_an_error_in_a_users_reward_is_not_passed_over() -> None:
    scoring = Scoring(user=(UserReward("broken", lambda **given: 1 / 0),))
    with pytest.raises(RewardError, match="reward 'broken' on record a raised ZeroDivisionError"):
        score_texts(["x"] * 4, [1] * 4, QUESTIONS, scoring)


def test_a_scored_rollout_keeps_what_a_later_update_needs() -> None:
    drawn = rollout()._replace(texts=(GOOD, *[""] * 7), policy_step=7)
    made = scored(drawn, [question("q1", 1), question("q2", 1)])
    assert made.policy_step == 7
    assert made.logp_BU is drawn.logp_BU
    np.testing.assert_array_equal(made.rewards["accuracy"], [[1, 0, 0, 0], [0, 0, 0, 0]])


def test_advantages_by_hand() -> None:
    """Rewards 3 and 1 in the first group: (3 - 2) / (sqrt(2) + 1e-4); equal rewards in the second: exactly 0."""
    made = rewarded(accuracy=[[1, 0], [1, 1]], format_=[[1, 1], [0, 0]])
    found = advantages_of(made, WEIGHTS, scale="group")
    assert (found.dtype, found.shape) == (np.float32, (4,))
    np.testing.assert_allclose(found[:2], [1 / (2**0.5 + 1e-4), -1 / (2**0.5 + 1e-4)], rtol=1e-6)
    np.testing.assert_array_equal(found[2:], 0.0)
    np.testing.assert_allclose(advantages_of(made, WEIGHTS, scale="none"), [1, -1, 0, 0])


def test_groups_of_equal_or_missing_rewards_have_no_spread() -> None:
    made = rewarded(accuracy=[[1, 0], [1, 1]], format_=[[1, 1], [0, 0]])
    assert spread_groups(made, WEIGHTS).tolist() == [True, False]
    assert spread_groups(made, WEIGHTS | {"accuracy": 0.0}).tolist() == [False, False]
    missing = made._replace(rewards={"own": np.array([[np.nan, 1.0], [np.nan, np.nan]], np.float32)})
    assert spread_groups(missing, {"own": 1.0}).tolist() == [False, False]


@pytest.mark.parametrize(
    ("spread_of", "kept"),
    [
        ([[True, False, True]], [(0, 0), (0, 1), (0, 2)]),
        ([[False, True, False], [False, True, False]], [(1, 1), (0, 1), (0, 2)]),
        ([[False, True, False], [False, True, False], [True, True, True]], [(1, 1), (0, 1), (2, 0)]),
    ],
)
def test_groups_without_spread_are_replaced_in_the_order_of_sampling(
    spread_of: list[list[bool]], kept: list[tuple[int, int]]
) -> None:
    assert groups_to_keep([np.array(spread) for spread in spread_of]) == kept


def test_groups_of_several_rollouts_are_joined_whole() -> None:
    first, second = rollout(), rollout()
    second = second._replace(
        tokens_BU=second.tokens_BU[::-1], mask_BU=second.mask_BU[::-1], texts=(*[GOOD] * 4, *[AGAINST] * 4),
    )  # fmt: skip
    made = [
        scored(drawn._replace(prompt_ids=names), [question(name, 1) for name in names])
        for drawn, names in ((first, ("a", "b")), (second, ("c", "d")))
    ]
    positions = np.array([107, 5])
    joined = join_groups(made, [(1, 1), (0, 1)], first.prompts, positions)
    assert joined.prompt_ids == ("d", "b")
    assert joined.prompts is first.prompts
    assert joined.next_position_Q is positions
    np.testing.assert_array_equal(joined.tokens_BU, np.concatenate([second.tokens_BU[4:], first.tokens_BU[4:]]))
    np.testing.assert_array_equal(joined.mask_BU, np.concatenate([second.mask_BU[4:], first.mask_BU[4:]]))
    assert joined.texts == (*[AGAINST] * 4, *first.texts[4:])
    np.testing.assert_array_equal(joined.rewards["format"], [[1] * 4, [0] * 4])


def test_the_batch_of_an_update_joins_prompts_and_responses() -> None:
    drawn = rollout()
    batch = make_grpo_batch(drawn, np.arange(8, dtype=np.float32), temperature=0.5)
    np.testing.assert_array_equal(batch.rows.tokens_BU, drawn.tokens_BU)
    np.testing.assert_array_equal(batch.rows.prompts.tokens_BT, drawn.prompts.tokens_BT)
    np.testing.assert_array_equal(batch.rows.mask_BU, drawn.mask_BU)
    assert float(batch.temperature) == 0.5


@pytest.mark.parametrize(
    ("advantage", "groups"),
    [
        ([0, 0, 1, -1, 0, 0, 2, -2], [1, 3]),
        ([0, 0, 0, 0, 0, 0, -1, 1], [0, 3]),  # filled up to the smallest size with the first idle group
        ([0] * 8, [0, 1]),
        ([1, -1, 1, -1, 0, 0, 1, -1], [0, 1, 2, 3]),
    ],
)
def test_groups_without_advantage_are_left_out(advantage: list[float], groups: list[int]) -> None:
    kept = rows_to_train(np.array(advantage, np.float32), responses=2, sizes=(2, 4))
    assert kept.tolist() == [row for group in groups for row in (2 * group, 2 * group + 1)]


def test_the_batch_of_some_rows_keeps_the_masks_of_the_others() -> None:
    drawn = rollout()
    batch = make_grpo_batch(drawn, np.arange(8, dtype=np.float32), temperature=0.5, trained=np.arange(4, 8))
    np.testing.assert_array_equal(batch.rows.tokens_BU, drawn.tokens_BU[4:])
    np.testing.assert_array_equal(batch.rows.prompts.tokens_BT, drawn.prompts.tokens_BT[1:])
    np.testing.assert_array_equal(batch.advantage_B, [4, 5, 6, 7])
    np.testing.assert_array_equal(batch.idle_mask_XU, drawn.mask_BU[:4])
    assert batch.rows.prompts.vision is drawn.prompts.vision


@pytest.mark.parametrize(("widths", "width"), [((), 6), ((2, 4, 6), 4), ((2, 3), 6)])
def test_columns_behind_the_longest_response_are_cut(widths: tuple[int, ...], width: int) -> None:
    """To the smallest width that holds it, of all responses: those left out count in the loss's denominator."""
    drawn = rollout()
    mask = drawn.mask_BU & (np.arange(6) < 4)
    batch = make_grpo_batch(
        drawn._replace(mask_BU=mask),
        np.arange(8, dtype=np.float32),
        temperature=0.5,
        trained=np.arange(4),
        widths=widths,
    )
    np.testing.assert_array_equal(batch.rows.tokens_BU, drawn.tokens_BU[:4, :width])
    np.testing.assert_array_equal(batch.rows.mask_BU, mask[:4, :width])
    np.testing.assert_array_equal(batch.idle_mask_XU, mask[4:, :width])
    assert batch.sampler_logp_BU.shape == batch.old_logp_BU.shape == (4, width)


@pytest.mark.parametrize("trained", [None, np.arange(4, 12)])
def test_the_shares_of_several_processes_are_the_batch_of_one(trained: np.ndarray | None) -> None:
    """Of four questions two shares have two each; where some are left out their prompts are dealt out anew."""
    whole, advantage = rollout(pairs=2), np.arange(16, dtype=np.float32)
    at_once = make_grpo_batch(whole, advantage, temperature=0.5, trained=trained, widths=(4, 6))
    groups = np.arange(4) if trained is None else trained[::4] // 4
    for number in range(2):
        share = Share(number, of=2)
        own = share.cut(np.arange(4))
        mine = whole._replace(prompts=whole.prompts.take_groups(own), next_position_Q=whole.next_position_Q[own])
        dealt = share.cut(groups)
        prompts = whole.prompts.take_groups(dealt), whole.next_position_Q[dealt]
        batch = make_grpo_batch(
            mine, advantage, temperature=0.5, share=share, trained=trained, widths=(4, 6),
            prompts=None if trained is None else prompts,
        )  # fmt: skip
        for name in ("advantage_B", "sampler_logp_BU", "old_logp_BU", "idle_mask_XU"):
            np.testing.assert_array_equal(getattr(batch, name), share.cut(getattr(at_once, name)), err_msg=name)
        for name in ("next_position_Q", "tokens_BU", "mask_BU"):
            np.testing.assert_array_equal(getattr(batch.rows, name), share.cut(getattr(at_once.rows, name)), name)
        found, wanted = batch.rows.prompts.tokens_BT, share.cut(at_once.rows.prompts.tokens_BT)
        np.testing.assert_array_equal(found, wanted)

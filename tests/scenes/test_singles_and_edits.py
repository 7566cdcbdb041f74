"""Single pictures, edits and groups of the built-in world: gold scores, labels, and what only the source tells."""

from collections import Counter

import numpy as np
import pytest

from urt_jax.data.examples import Media
from urt_jax.data.pairing import pairs_of
from urt_jax.rewards.gold import gold_scores, score_accuracy
from urt_jax.rewards.verifiable import accuracy_reward, consistency_reward, format_reward
from urt_jax.scenes import direct_answer, make_example, make_group, write_reasoning
from urt_jax.scenes.edits import EDIT_SCALES
from urt_jax.tasks import TASKS


@pytest.mark.parametrize("task", ["image_score", "video_score"])
def test_a_single_candidate_has_every_score_and_its_answer_earns_the_reward(task: str) -> None:
    examples = [make_example(task, split="train", seed=0, index=index) for index in range(80)]
    for example in examples:
        assert example.judged
        assert [item.kind for item in example.candidates if isinstance(item, Media)] == [TASKS[task].medium]
        answer = f"<think>x</think>{direct_answer(example)}"
        assert format_reward(answer, task=task) == 1
        assert gold_scores(text=answer, solution="", example=example) == 1
        assert score_accuracy(text=answer, solution="", example=example) == 1
    seen = Counter(example.meta["scores"]["Alignment"][0] for example in examples)
    assert set(seen) == {4.5, 3.0, 2.0, 1.0}
    again = make_example(task, split="train", seed=0, index=3)
    np.testing.assert_array_equal(again.candidates[0].source, examples[3].candidates[0].source)  # type: ignore[union-attr]


def test_a_score_that_is_near_earns_most_of_the_reward() -> None:
    example = make_example("image_score", split="train", seed=0, index=0)
    gold = {name: value for name, (value,) in example.meta["scores"].items()}
    lines = [f"{name} Score (1-5): {min(gold[name] + 0.5, 5):g}" for name in gold]
    near = f"<think>x</think><answer>{chr(10).join(lines)}</answer>"
    assert score_accuracy(text=near, solution="", example=example) == pytest.approx(1 - 0.5 / 4)
    assert score_accuracy(text="no", solution="", example=example) == 0
    assert (
        score_accuracy(text=near, solution="", example=make_group("image_gen", size=3, split="train", seed=0, index=0))
        == 0
    )


def test_edits_share_ground_and_places_with_their_source() -> None:
    kept = 0
    for index in range(60):
        example = make_example("image_edit", split="train", seed=0, index=index)
        scores = example.meta["scores"]
        assert tuple(scores) == TASKS["image_edit"].dimensions
        totals = [sum(values[place] for values in scores.values()) for place in (0, 1)]
        assert example.label == (1 if totals[0] > totals[1] else 2)
        source = example.context[0].source
        for place, edit in enumerate(example.candidates):
            assert isinstance(edit, Media)
            triple = [values[place] for values in scores.values()]
            if triple == [EDIT_SCALES[0].scores[0], EDIT_SCALES[1].scores[0], EDIT_SCALES[2].scores[0]]:
                kept += 1  # only the object's colour differs: most of the picture is the source's, bit for bit
                assert 0.4 < (edit.source == source).all(-1).mean() < 1
            elif triple[0] == EDIT_SCALES[0].scores[1] and triple[1:] == [scale.scores[0] for scale in EDIT_SCALES[1:]]:
                np.testing.assert_array_equal(edit.source, source)
    assert kept > 5


def test_the_better_edit_stands_on_either_side_and_its_reasoning_is_right() -> None:
    labels = Counter()
    for index in range(40):
        example = make_example("image_edit", split="heldout", seed=1, index=index)
        labels[example.label] += 1
        text = write_reasoning(example, np.random.default_rng(0))
        assert format_reward(text, task="image_edit") == 1
        assert accuracy_reward(text, str(example.solution)) == 1
        assert consistency_reward(text, task="image_edit") == 1
    assert labels == {1: 20, 2: 20}


def test_a_group_is_ranked_by_its_gold_sums() -> None:
    group = make_group("image_gen", size=5, split="train", seed=0, index=7)
    totals = [sum(values[place] for values in group.meta["scores"].values()) for place in range(5)]
    assert group.ranking is not None
    assert [sorted(totals, reverse=True).index(total) + 1 for total in totals] == list(group.ranking)
    for pair in pairs_of(group, seed=0):
        first, second = (sum(values[place] for values in pair.meta["scores"].values()) for place in (0, 1))
        assert pair.label == ("tie" if first == second else 1 if first > second else 2)

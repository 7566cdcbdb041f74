import time

import numpy as np
import pytest

from urt_jax.errors import BadInputError
from urt_jax.scenes import make_example
from urt_jax.scenes.world import UNSEEN, has_unseen
from urt_jax.tasks import PAPER_TASKS, TASKS

COUNT = 160


@pytest.fixture(scope="module")
def pools():
    return {
        (task, split): [make_example(task, split=split, seed=1, index=index) for index in range(COUNT)]
        for task in PAPER_TASKS
        for split in ("train", "heldout")
    }


def shown_words(example):
    """Every group of words that names, shows or asks about things."""
    groups = [example.meta["seen"]] if "seen" in example.meta else []
    if "seen" in example.meta:
        values = TASKS[example.task].dimensions[1]
        for candidate in example.meta["candidates"]:
            words = list(example.meta["seen"])
            for (said, _), slot in zip(candidate[values], example.meta["value_slots"]):
                words[slot] = said
            for (said, _), slot in zip(candidate[TASKS[example.task].dimensions[0]], example.meta["name_slots"]):
                words[slot] = said
            groups.append(words)
        return groups
    for candidate in example.meta["candidates"]:
        pairs = candidate[TASKS[example.task].dimensions[0]]
        groups += [[seen for seen, _ in pairs], [wanted for _, wanted in pairs]]
    return groups


def arrays(example):
    media = [*example.context, *(item for item in example.candidates if not isinstance(item, str))]
    return [medium.source for medium in media]


@pytest.mark.parametrize("task", PAPER_TASKS)
def test_the_same_arguments_give_the_same_record(task):
    first, second = (make_example(task, split="train", seed=7, index=3) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(arrays(first), arrays(second)))
    assert (first.id, first.prompt, first.label, first.meta) == (second.id, second.prompt, second.label, second.meta)


@pytest.mark.parametrize("task", PAPER_TASKS)
def test_the_label_is_the_larger_total(pools, task):
    for example in pools[task, "train"]:
        first, second = (sum(pair[side] for pair in example.meta["scores"].values()) for side in (0, 1))
        assert first != second
        assert example.label == (1 if first > second else 2)
        assert example.meta["margin"] == abs(first - second)
        assert tuple(example.meta["scores"]) == TASKS[task].dimensions


@pytest.mark.parametrize("task", PAPER_TASKS)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_hard_share_and_order_balance(pools, task, split):
    pool = pools[task, split]
    assert 0.36 <= np.mean([example.meta["difficulty"] == "hard" for example in pool]) <= 0.54
    assert sum(example.label == 1 for example in pool) == COUNT // 2
    firsts = [pool[index].label == 1 for index in range(0, COUNT, 2)]
    assert 0.3 < np.mean(firsts) < 0.7  # which of two neighbours it is stays open


@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_difficulty_sets_the_share_of_hard_pairs(difficulty):
    examples = [make_example("image_und", split="train", seed=0, index=i, difficulty=difficulty) for i in range(20)]
    assert all((example.meta["difficulty"] == "hard") == bool(difficulty) for example in examples)


@pytest.mark.parametrize("task", PAPER_TASKS)
def test_training_never_holds_a_held_out_combination(pools, task):
    assert not any(has_unseen(words) for example in pools[task, "train"] for words in shown_words(example))
    assert not any(example.meta["unseen"] for example in pools[task, "train"])


@pytest.mark.parametrize("task", PAPER_TASKS)
def test_half_of_the_held_out_records_hold_an_unseen_combination(pools, task):
    pool = pools[task, "heldout"]
    assert 0.38 < np.mean([example.meta["unseen"] for example in pool]) < 0.62
    for example in pool:
        assert any(has_unseen(words) for words in shown_words(example)) == example.meta["unseen"]
    assert len(UNSEEN) == 3


@pytest.mark.parametrize("task", PAPER_TASKS)
def test_splits_share_no_picture(pools, task):
    seen, held = (
        {array.tobytes() for e in pools[task, split] for array in arrays(e)} for split in ("train", "heldout")
    )
    assert len(seen) == len(held) == COUNT * len(arrays(pools[task, "train"][0]))
    assert not seen & held


@pytest.mark.parametrize("task", PAPER_TASKS)
def test_a_swapped_record_mirrors_everything(pools, task):
    example = pools[task, "train"][0]
    swapped = example.swapped()
    assert swapped.label == 3 - example.label
    assert swapped.meta["candidates"] == example.meta["candidates"][::-1]
    for name, pair in example.meta["scores"].items():
        assert swapped.meta["scores"][name] == pair[::-1]
    assert swapped.meta["margin"] == example.meta["margin"]


def test_a_picture_pair_takes_few_milliseconds():
    make_example("image_gen", split="train", seed=0, index=0)
    start = time.process_time()
    for index in range(50):
        make_example("image_gen", split="train", seed=0, index=index)
    # About 3 ms; the annotation checks of the tests and a busy machine may take as much again.
    assert (time.process_time() - start) / 50 < 0.02


def test_bad_arguments_are_refused_by_name():
    with pytest.raises(
        BadInputError, match=r"task 'image_generation' is unknown; did you mean 'image_gen'\? known: image_gen, "
    ):
        make_example("image_generation", split="train", seed=0, index=0)
    with pytest.raises(BadInputError, match=r"from 0 to 1; got 2"):
        make_example("image_gen", split="train", seed=0, index=0, difficulty=2.0)

import math

import numpy as np
import pytest

from urt_jax.data.examples import Example, Media
from urt_jax.errors import BadInputError
from urt_jax.evals.baselines import blind_baselines
from urt_jax.scenes import make_example
from urt_jax.tasks import PAPER_TASKS


def pair(index, label, prompt="a red circle", light=(100, 100), scores=None, answers=None):
    pictures = tuple(Media("image", np.full((8, 8, 3), value, np.uint8)) for value in light)
    task = "image_und" if answers else "image_gen"
    meta = {"scores": {"Semantic consistency": scores}} if scores else {}
    return Example(id=str(index), task=task, prompt=prompt, candidates=answers or pictures, label=label, meta=meta)


def labels(count):
    return [1 if index % 2 else 2 for index in range(count)]


def test_a_caption_that_gives_the_label_away_is_found():
    records = [pair(i, label, prompt=f"word{label} here") for i, label in enumerate(labels(20))]
    assert blind_baselines(records, records)["caption only"] == 1.0


def test_a_candidate_whose_scores_give_it_away_is_found():
    records = [pair(i, label, scores=[9, 2] if label == 1 else [2, 9]) for i, label in enumerate(labels(20))]
    assert blind_baselines(records, records)["one candidate only"] == 1.0


def test_longer_answers_that_win_are_found():
    long, short = "the red circle is here", "it is red"
    records = [
        pair(i, label, answers=(long, short) if label == 1 else (short, long)) for i, label in enumerate(labels(20))
    ]
    result = blind_baselines(records, records)
    assert result["answer length"] == 1.0
    assert result["pixel statistics"] == 0.5  # no pictures to look at


def test_brighter_pictures_that_win_are_found():
    records = [pair(i, label, light=(150, 90) if label == 1 else (90, 150)) for i, label in enumerate(labels(20))]
    assert blind_baselines(records, records)["pixel statistics"] == 1.0


def test_what_tells_nothing_is_a_coin_and_missing_scores_are_nan():
    result = blind_baselines(*[[pair(i, label) for i, label in enumerate(labels(20))]] * 2)
    assert result["caption only"] == 0.5
    assert result["answer length"] == 0.5
    assert result["pixel statistics"] == 0.5
    assert math.isnan(result["one candidate only"])


def test_pictures_may_lie_in_files(tmp_path):
    from PIL import Image

    for name, value in (("dark.png", 60), ("light.png", 200)):
        Image.new("RGB", (8, 8), (value, value, value)).save(tmp_path / name)
    dark, light = (Media("image", str(tmp_path / name)) for name in ("dark.png", "light.png"))
    records = [
        Example(id=str(i), task="image_gen", candidates=(light, dark) if label == 1 else (dark, light), label=label)
        for i, label in enumerate(labels(10))
    ]
    assert blind_baselines(records, records)["pixel statistics"] == 1.0


def test_ties_are_left_out_and_no_pair_at_all_is_refused():
    with pytest.raises(BadInputError, match="none of the 1 records of 'train'"):
        blind_baselines([pair(0, "tie")], [pair(0, 1)])


@pytest.mark.parametrize("task", ["image_gen", "image_und"])
def test_the_built_in_task_is_hard_to_guess_blindly(task):
    train, heldout = (
        [make_example(task, split=split, seed=11, index=index) for index in range(count)]
        for split, count in (("train", 400), ("heldout", 300))
    )
    # 300 pairs: two standard errors are nearly 6 points; the full size is the slow test below.
    assert max(blind_baselines(train, heldout).values()) <= 0.64


@pytest.mark.slow
@pytest.mark.parametrize("task", PAPER_TASKS)
def test_blind_baselines_stay_at_or_below_sixty_percent(task):
    train, heldout = (
        [make_example(task, split=split, seed=11, index=index) for index in range(count)]
        for split, count in (("train", 2000), ("heldout", 1000))
    )
    assert max(blind_baselines(train, heldout).values()) <= 0.60

"""From hashes of pictures back to scenes: order shown, answers shown, nothing guessed."""

from dataclasses import replace

import pytest

from urt_jax.data.examples import Example
from urt_jax.scenes import make_example
from urt_jax.scenes.pool import OracleSettings, RefusalError, ScenePool, picture_hashes


def pool(task: str, count: int) -> ScenePool:
    return ScenePool(OracleSettings(counts={task: count}, seed=3))


def scene(task: str, index: int = 1) -> Example:
    return make_example(task, split="train", seed=3, index=index)


@pytest.mark.parametrize("task", ["image_gen", "video_gen"])
def test_a_pair_is_found_in_the_order_shown(task: str) -> None:
    known, given = pool(task, 3), scene(task)
    for shown in (given, given.swapped()):
        found = known.find(picture_hashes(shown), f"caption: {given.prompt}\n")
        assert (found.id, found.label, found.meta) == (shown.id, shown.label, shown.meta)


@pytest.mark.parametrize("task", ["image_und", "video_und"])
def test_written_answers_are_found_in_the_order_of_the_prompt(task: str) -> None:
    known, given = pool(task, 3), scene(task)
    for shown in (given, given.swapped()):
        prompt = f"question: {given.prompt}\nanswer 1: {shown.candidates[0]}\nanswer 2: {shown.candidates[1]}"
        found = known.find(picture_hashes(given), prompt)
        assert (found.candidates, found.label) == (shown.candidates, shown.label)


def test_an_answer_inside_the_other_does_not_confuse_the_order() -> None:
    def make(task: str, **where: object) -> Example:
        return replace(scene("image_und", 0), candidates=("the circle is red", "i think the circle is red"))

    known = ScenePool(OracleSettings(counts={"image_und": 1}), make)
    example = make("image_und")
    for first, second in (example.candidates, example.candidates[::-1]):
        prompt = f"{example.prompt}\nanswer 1: {first}\nanswer 2: {second}"
        assert known.find(picture_hashes(example), prompt).candidates == (first, second)
    with pytest.raises(RefusalError, match="only one of the two answers"):
        known.find(picture_hashes(example), f"{example.prompt} answer 1: {example.candidates[1]}")


def test_pictures_of_no_scene_and_a_prompt_of_another_are_refused() -> None:
    known, given, other = pool("image_gen", 2), scene("image_gen", 1), scene("image_gen", 7)
    with pytest.raises(RefusalError, match="the 2 pictures are no scene of this pool"):
        known.find(picture_hashes(other), f"caption: {other.prompt}")
    with pytest.raises(RefusalError, match="the prompt holds neither the caption"):
        known.find(picture_hashes(given), "caption: a grey elephant")


def test_scenes_are_made_only_as_far_as_asked_for() -> None:
    made: list[int] = []

    def make(task: str, *, index: int, **rest: object) -> Example:
        made.append(index)
        return scene(task, index)

    known = ScenePool(OracleSettings(counts={"image_gen": 50}, seed=3), make)
    known.find(picture_hashes(scene("image_gen", 2)), scene("image_gen", 2).prompt)
    assert made == [0, 1, 2]

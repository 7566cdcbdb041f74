"""What a task says of itself, and what is made of all tasks together."""

import pytest

from urt_jax.errors import BadInputError
from urt_jax.tasks import LABELS, NOUNS, TASKS, TIES, Task, find_task
from urt_jax.tasks.labels import noun_of
from urt_jax.tasks.wording import WORDINGS, read_wording


def test_the_four_tasks_of_the_paper() -> None:
    assert {name: (task.noun, task.medium, task.answers) for name, task in TASKS.items()} == {
        "image_gen": ("Image", "image", False),
        "video_gen": ("Video", "video", False),
        "image_und": ("Answer", "image", True),
        "video_und": ("Answer", "video", True),
    }
    assert NOUNS == ("Image", "Video", "Answer")
    assert LABELS["Answer 2 is better"] == 2
    assert len(LABELS) == 6
    assert "Both videos are equally good" in TIES


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_its_labels_are_read_back_and_its_wording_is_there(task: Task) -> None:
    for label, winner in ((task.label(1), 1), (task.label(2), 2), (task.tie, "tie")):
        assert task.read(f"<think>x</think><answer>{label}</answer>").winner == winner
        assert task.read(f"<answer>{label}</answer>", think=False).winner == winner
        assert noun_of(label) == task.noun
    for family in WORDINGS:
        for think in (True, False):
            wording, _ = read_wording(family, task.name, think=think)
            slots = task.slots("a caption", ["one", "two"])
            assert f"{{{task.prompt_field}}}" in wording
            assert wording.format(**slots)
    assert find_task(task.medium, answers=task.answers) is task


def test_what_no_prompt_can_be_written_for_is_refused() -> None:
    with pytest.raises(BadInputError, match="a prompt for image_gen needs a caption and the record has none"):
        TASKS["image_gen"].slots("  ", [])
    with pytest.raises(BadInputError, match=r"a prompt for video_und needs a question"):
        TASKS["video_und"].slots("", ["a", "b"])
    with pytest.raises(BadInputError, match="a prompt for image_und needs 2 or more written answers, the record has 1"):
        TASKS["image_und"].slots("what?", ["a"])


def test_answers_fill_numbered_slots_and_a_caption_its_own() -> None:
    assert TASKS["video_gen"].slots("a cat", []) == {"caption": "a cat"}
    assert TASKS["image_und"].slots("what?", ["a", "b", "c"]) == {
        "question": "what?", "answer_1": "a", "answer_2": "b", "answer_3": "c",
    }  # fmt: skip

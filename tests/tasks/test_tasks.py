"""What a task says of itself, and what is made of all tasks together."""

import pytest

from urt_jax.errors import BadInputError
from urt_jax.rewards.verifiable import format_reward
from urt_jax.tasks import LABELS, NOUNS, PAPER_TASKS, TASKS, TIES, Task, find_task
from urt_jax.tasks.labels import noun_of
from urt_jax.tasks.points import points_text
from urt_jax.tasks.wording import WORDINGS, read_wording


def test_the_four_tasks_of_the_paper() -> None:
    assert {name: (task.noun, task.medium, task.answers) for name, task in TASKS.items() if name in PAPER_TASKS} == {
        "image_gen": ("Image", "image", False),
        "video_gen": ("Video", "video", False),
        "image_und": ("Answer", "image", True),
        "video_und": ("Answer", "video", True),
    }
    assert NOUNS == ("Image", "Video", "Answer")
    assert LABELS["Answer 2 is better"] == 2
    assert len(LABELS) == 6
    assert "Both videos are equally good" in TIES


@pytest.mark.parametrize("task", [TASKS[name] for name in PAPER_TASKS], ids=PAPER_TASKS)
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


def test_what_the_media_of_a_record_are_where_it_does_not_say() -> None:
    shared = {
        name: TASKS[name].context_media(3) for name in ("image_gen", "image_edit", "image_und", "image_score", "open")
    }
    assert shared == {"image_gen": 0, "image_edit": 1, "image_und": 3, "image_score": 0, "open": 3}
    assert TASKS["image_edit"].prompt_field == "instruction"
    assert TASKS["image_edit"].label(2) == "Image 2 is better"


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        ("<think>x</think><answer>7</answer>", None),
        ("<think>x</think><answer> </answer>", "the answer is empty"),
        ("<answer>7</answer>", "no <think>"),
        ("<think>x</think>7", "no <answer>"),
    ],
)
def test_an_open_question_takes_any_answer_in_the_strict_form(reply: str, failure: str | None) -> None:
    verdict = TASKS["open"].read(reply)
    assert (verdict.winner, verdict.scores, verdict.failure) == (None, {}, failure)
    assert format_reward(reply, task="open") == (failure is None)


POINTS = "Alignment Score (1-5): 4\nCoherence Score (1-5): 2.5\nStyle Score (1-5): 5"


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        (("", ""), None),
        (("4\n", "4\n\n  "), None),
        (("4\n", "6\n"), "Alignment is 6, outside 1 to 5"),
        (("4\n", "0.5\n"), "Alignment is 0.5, outside 1 to 5"),
        (("(1-5): 4", "(1-10): 4"), "'Alignment Score (1-10): 4' is not 'Alignment Score (1-5): x'"),
        (("Coherence", "Physics"), "'Physics Score (1-5): 2.5' is not 'Coherence Score (1-5): x'"),
        (("\nStyle Score (1-5): 5", ""), "2 lines in <answer>; needed one for each of Alignment, Coherence, Style"),
        (("4\n", "four\n"), "'Alignment Score (1-5): four' is not 'Alignment Score (1-5): x'"),
    ],
)
def test_scores_of_one_candidate(change: tuple[str, str], failure: str | None) -> None:
    verdict = TASKS["image_score"].read(f"<think>x</think><answer>{POINTS.replace(*change, 1)}</answer>")
    assert verdict.failure == failure
    assert verdict.scores == ({"Alignment": (4.0,), "Coherence": (2.5,), "Style": (5.0,)} if failure is None else {})
    assert (verdict.winner, verdict.totals, verdict.margin) == (None, None, None)


def test_scores_are_written_as_they_are_read() -> None:
    scores = {"Alignment": 4.0, "Coherence": 2.5, "Style": 5.0}
    assert points_text(TASKS["image_score"], scores) == POINTS

"""The forms that published judges write, read whole; and a label that is another task's."""

import time
from types import SimpleNamespace

import pytest

from urt_jax.rewards.gold import gold_scores
from urt_jax.rewards.verifiable import accuracy_reward, consistency_reward, format_reward
from urt_jax.rewards.votes import swap_consistency
from urt_jax.tasks import PAPER_TASKS, TASKS
from urt_jax.tasks.replies import WRONG_NOUN, parse, read_scores


def written(*lines: str, totals: tuple[str, str], answer: int = 1) -> str:
    body = "\n".join((*lines, "Total score:", f"Image 1: {totals[0]}", f"Image 2: {totals[1]}"))
    return f"<think>\n{body}\n</think>\n<answer>Image {answer} is better</answer>"


HONEST = {
    "a dimension without a number": written(
        "1. Semantic consistency: Image 1 (9/10) - a; Image 2 (6/10) - b",
        "Overall impression: Image 1 (8/10) - a; Image 2 (7/10) - b",
        totals=("9+8=17", "6+7=13"),
    ),
    "names equal up to the first colon": written(
        "1. Detail: hands: Image 1 (9/10) - a; Image 2 (6/10) - b",
        "2. Detail: faces: Image 1 (8/10) - a; Image 2 (7/10) - b",
        totals=("9+8=17", "6+7=13"),
    ),
    "one name twice": written(
        "1. Detail: Image 1 (9/10); Image 2 (6/10)",
        "2. Detail: Image 1 (8/10); Image 2 (7/10)",
        "3. Detail: Image 1 (1/10); Image 2 (1/10)",
        totals=("9+8+1=18", "6+7+1=14"),
    ),
    "bold headings": written(
        "**1. Semantic consistency:** Image 1 (9/10) - a; Image 2 (6/10) - b",
        "### 2. **Aesthetics**:",
        "- Image 1 (8/10) - a: with a colon",
        "- Image 2 (7/10) - b",
        totals=("9+8=17", "6+7=13"),
    ),
    "scores behind a colon, with spaces": written(
        "1. Semantic consistency: Image 1: 9/10 - a; Image 2: 6/10 - b",
        "2. Aesthetics: Image 1 (8 / 10); Image 2 (7 / 10)",
        totals=("9+8=17", "6+7=13"),
    ),
    "bold candidates and scores": written(
        "1. A: **Image 1** (9/10) - a; **Image 2 (6/10)** - b",
        "2. B: Image 1 (**8/10**) - a; Image 2: **7/10** - b",
        totals=("9+8=17", "6+7=13"),
    ),
    "no colon behind the name, numbers in brackets": written(
        "(1) A - Image 1 ( 9 /10 ) - a; Image 2 (6/10) - b",
        "(2) B (detail): Image 1 (8/10); Image 2 (7/10)",
        totals=("9+8=17", "6+7=13"),
    ),
    "bold totals": written("1. A: Image 1 (9/10); Image 2 (6/10)", totals=("9=9", "6=6"))
    .replace("Total score:", "**Total score:**")
    .replace("Image 1: 9=9", "- **Image 1**: 9=9")
    .replace("Image 2: 6=6", "**Image 2:** 6=6"),
    "twelve dimensions": written(
        *[f"{n}. D{n}: Image 1 (9/10) - a; Image 2 (6/10) - b" for n in range(1, 13)],
        totals=("+".join("9" * 12) + "=108", "+".join("6" * 12) + "=72"),
    ),
    "half points": written("1. A: Image 1 (7.5/10); Image 2 (6.5/10)", totals=("7.5=7.5", "6.5=6.5")),
    "blocks without numbers": written(
        "Semantic consistency:",
        "  Image 1 (9/10) - a",
        "  Image 2 (6/10) - b",
        "Aesthetics:",
        "  Image 2 (7/10) - b",
        "  Image 1 (8/10) - a",
        totals=("9+8=17", "6+7=13"),
    ),
}


@pytest.mark.parametrize("form", HONEST)
def test_an_honest_reply_adds_up(form: str) -> None:
    verdict = parse(HONEST[form])
    assert verdict.winner == 1
    assert verdict.totals == tuple(map(sum, zip(*verdict.scores.values())))
    assert consistency_reward(HONEST[form]) == 1


def test_names_are_short_where_they_can_be() -> None:
    assert list(parse(HONEST["names equal up to the first colon"]).scores) == ["Detail", "Detail: faces"]
    assert list(parse(HONEST["one name twice"]).scores) == ["Detail", "Detail (2)", "Detail (3)"]
    assert list(parse(HONEST["bold headings"]).scores) == ["Semantic consistency", "Aesthetics"]
    assert list(parse(HONEST["a dimension without a number"]).scores) == ["Semantic consistency", "Overall impression"]


def test_remarks_are_no_dimensions() -> None:
    lines = ("1. A:", "  Image 1 (9/10) - why: it is fine", "  Reason: see Image 2 (6/10)", "Note: Image 1 was good")
    text = "\n".join((*lines, "2. B: Image 1 (3/10)"))
    assert read_scores(text) == {"A": (9, 6)}


@pytest.mark.parametrize("task", PAPER_TASKS)
@pytest.mark.parametrize("noun", ["Image", "Video", "Answer"])
def test_a_label_of_another_task_is_none_everywhere(task: str, noun: str) -> None:
    wanted, text = TASKS[task].noun, f"<think>\nx\n</think>\n<answer>{noun} 2 is better</answer>"
    verdict, fits = parse(text, noun=wanted), noun == wanted
    assert verdict.winner == (2 if fits else None)
    assert bool(verdict.failure and verdict.failure.startswith(WRONG_NOUN)) is not fits
    assert format_reward(text, task=task) == fits
    assert accuracy_reward(text, f"{wanted} 2 is better") == fits
    honest = HONEST["half points"].replace("Image", noun)
    assert consistency_reward(honest, task=task) == fits
    example = SimpleNamespace(task=task, meta={"scores": {"A": (7.5, 6.5)}})
    assert gold_scores(text=honest, solution=f"{wanted} 1 is better", example=example) == fits
    assert parse(f"<answer>Both {noun.lower()}s are equally good</answer>", think=False, noun=wanted).winner == (
        "tie" if fits else None
    )
    mirrored = [text.replace("2 is", "1 is")]
    assert (swap_consistency([text], mirrored, task=task) == [1.0]) is fits


@pytest.mark.parametrize(
    "hostile",
    ["1. A: " * 100_000, "1. " * 200_000, "(9/10)" * 100_000, "Image 1 (" * 100_000, ":" * 500_000, "*" * 500_000,
     "Detail: Image 1 (9/10); Image 2 (8/10)\n" * 25_000, "9+" * 200_000, "<think>" * 100_000,
     "".join(f"A{': a' * (n % 2)}: Image 1 (9/10); Image 2 (8/10)\nA (3): Image 1 (9/10); Image 2 (8/10)\n"
             for n in range(12_000)), "Image 1" + " *" * 500_000, "1. Image 1:" + ":(*" * 300_000],
    ids=range(12),
)  # fmt: skip
def test_hostile_texts_take_linear_time(hostile: str) -> None:
    started = time.process_time()
    parse(f"<think>\n{hostile}\n</think>\n<answer>Image 1 is better</answer>", noun="Image")
    assert time.process_time() - started < 5

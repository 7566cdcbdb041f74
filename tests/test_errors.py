"""How a misspelt name is told: once for the whole project, and in a message of bounded length."""

from pathlib import Path

import pytest

from urt_jax.errors import MAX_NAME, did_you_mean, nearest, unknown_choice

PACKAGE = Path(__file__).parents[1] / "urt_jax"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("gpro", "'gpro' is unknown; did you mean 'grpo'? known: gspo, grpo, sft"),
        ("xyzw", "'xyzw' is unknown; known: gspo, grpo, sft"),
        (None, "None is unknown; known: gspo, grpo, sft"),
        (["sft"], "['sft'] is unknown; did you mean 'sft'? known: gspo, grpo, sft"),
    ],
)
def test_the_nearest_name_is_told_and_all_that_are_known(given: object, told: str) -> None:
    assert unknown_choice(given, ("gspo", "grpo", "sft")) == told


def test_swapped_letters_are_nearer_than_other_ones() -> None:
    assert nearest("gpro", ("gppo", "grpo"))[0] == "grpo"


def test_what_else_may_be_meant_can_be_given() -> None:
    assert unknown_choice("a", ("b",), ["x.a", "y.a"]) == "'a' is unknown; did you mean 'x.a' or 'y.a'? known: b"
    assert did_you_mean("zz", ("b",)) == did_you_mean("b", ("b",), []) == ""
    assert unknown_choice("a", ()) == "'a' is unknown; known: none"


def test_a_very_long_name_is_compared_and_told_by_its_start() -> None:
    assert nearest("x" * 10**6, ("x" * MAX_NAME,)) == ["x" * MAX_NAME]
    assert len(unknown_choice("x" * 10**6, ("y",))) < 150


def test_the_question_is_worded_in_one_place() -> None:
    asking = [path.name for path in PACKAGE.rglob("*.py") if "did you mean" in path.read_text(encoding="utf-8").lower()]
    assert asking == ["errors.py"]

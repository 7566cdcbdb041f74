"""Fields are taken by type and within bounds, and a wrong one is told with its place and name."""

import math
from typing import Any

import pytest

from urt_jax.errors import BadInputError, shown
from urt_jax.files.fields import Fields


def fields(**values: Any) -> Fields:
    return Fields(values, "config.json")


def test_values_come_back_as_they_are() -> None:
    given = fields(n=3, whole=7.0, x=1, t="a", b=False, o={"n": 1}, many=[1, 2], some=[0.5, 1], words=["a"])
    assert given.integer("n", at_most=3) == 3
    assert given.integer("whole", at_most=9) == 7
    assert type(given.integer("whole", at_most=9)) is int
    assert given.number("x") == 1.0
    assert given.text("t") == "a"
    assert given.flag("b") is False
    assert given.group("o").integer("n", at_most=1) == 1
    assert given.integers("many", size=2, at_most=2) == (1, 2)
    assert given.numbers("some", above=0) == (0.5, 1.0)
    assert given.texts("words") == ("a",)
    assert dict(given)["n"] == 3
    assert len(given) == 9


@pytest.mark.parametrize("missing", [{}, {"n": None}])
def test_missing_and_null_are_the_default_or_an_error(missing: dict[str, Any]) -> None:
    given = Fields(missing, "config.json")
    assert given.integer("n", None, at_most=3) is None
    assert given.integer("n", 5, at_most=3) == 5
    assert given.group("n", {}) == {}
    assert given.integers("n", (1,), at_most=3) == (1,)
    with pytest.raises(BadInputError, match=r"config.json: n is missing; needed a whole number from 0 to 3"):
        given.integer("n", at_most=3)


@pytest.mark.parametrize("value", [True, 1.5, "1", [1], {}, -1, 11, 10**400, math.nan, math.inf])
def test_a_whole_number_is_one_within_its_bounds(value: Any) -> None:
    with pytest.raises(BadInputError, match=r"config.json: n is .*; needed a whole number from 0 to 10"):
        fields(n=value).integer("n", at_most=10)


@pytest.mark.parametrize("value", [True, "1", [1], math.nan, math.inf, -math.inf, 10**400, 0, 2.5])
def test_a_number_is_finite_and_within_its_bounds(value: Any) -> None:
    with pytest.raises(BadInputError, match=r"needed a number above 0 and at most 2"):
        fields(n=value).number("n", above=0, at_most=2)


@pytest.mark.parametrize(
    ("take", "needed"),
    [
        (lambda given: given.text("n"), "a text"),
        (lambda given: given.flag("n"), "true or false"),
        (lambda given: given.group("n"), "an object"),
        (lambda given: given.texts("n"), "a list"),
        (lambda given: given.integers("n", size=2, at_most=9), "a list of 2 to 2"),
    ],
)
def test_other_kinds_are_refused_by_name(take: Any, needed: str) -> None:
    with pytest.raises(BadInputError, match=rf"config.json: n is 7; needed {needed}"):
        take(fields(n=7))


def test_items_and_groups_tell_their_place() -> None:
    with pytest.raises(BadInputError, match=r"config.json: a: 1 is 'x'; needed a number"):
        fields(a=[1, "x"]).numbers("a")
    with pytest.raises(BadInputError, match=r"config.json: a: b is missing"):
        fields(a={}).group("a").text("b")
    with pytest.raises(BadInputError, match=r"a has 3 items; needed a list of 2 to 2"):
        fields(a=[1, 2, 3]).numbers("a", size=2)


def test_a_choice_tells_the_nearest() -> None:
    assert fields(a="silu").choice("a", ("silu", "gelu")) == "silu"
    with pytest.raises(BadInputError, match=r"config.json: a 'sillu' is unknown; did you mean 'silu'"):
        fields(a="sillu").choice("a", ("silu", "gelu"))


def test_the_error_is_of_the_callers_making() -> None:
    class Told(BadInputError):
        pass

    with pytest.raises(Told):
        Fields({"g": {"n": []}}, "line 3", error=Told).group("g").text("n")


def test_values_are_shown_short_and_without_addresses() -> None:
    assert shown("x" * 500).startswith("'xxx")
    assert len(shown("x" * 500)) < 90
    assert shown(object()) == "a value of type object"
    assert shown([object(), 1]) == "[a value of type object, 1]"
    assert shown(list(range(99))) == "a list of 99"
    assert shown({"a": 1, "b": 2}) == "an object of 2 keys"

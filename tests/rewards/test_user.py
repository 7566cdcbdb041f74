"""A user's own rewards: found by name, told apart by their errors, never passed over."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from urt_jax.rewards import RewardError, UserReward, load_reward

MODULE = """
def brevity(*, text, solution, example):
    return -len(text) / 10 if example.id != "none" else None

def _hidden(**given):
    return 0.0

number = 3
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_rewards.py").write_text(MODULE)
    (tmp_path / "own_broken.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def score(value: Any) -> float:
    reward = UserReward("made", lambda *, text, solution, example: value)
    return reward.score(text="t", solution="s", example=SimpleNamespace(id="r7"))


def test_a_reward_is_found_by_its_name_and_called_by_keyword() -> None:
    reward = load_reward("own_rewards:brevity")
    assert reward.name == "brevity"
    assert reward.score(text="12345", solution="", example=SimpleNamespace(id="a")) == -0.5
    assert math.isnan(reward.score(text="12345", solution="", example=SimpleNamespace(id="none")))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("brevity", r"reward 'brevity' names no function; give module:function, such as my_rewards:clarity"),
        ("own_rewards:", r"names no function"),
        ("own_rewardz:brevity", r"there is no module 'own_rewardz'; run from the folder that holds it"),
        ("own_rewards.deep:f", r"importing 'own_rewards.deep' raised|there is no module 'own_rewards.deep'"),
        ("own_rewards:brevty", r"module 'own_rewards' has no function 'brevty'; did you mean 'brevity'\?"),
        ("own_rewards:number", r"has no function 'number'; it has brevity"),
        ("own_broken:f", r"importing 'own_broken' raised ModuleNotFoundError: No module named 'no_such_library'; fix"),
    ],
)
def test_what_cannot_be_found_says_why(spec: str, message: str) -> None:
    with pytest.raises(RewardError, match=message):
        load_reward(spec)


@pytest.mark.parametrize(("value", "number"), [(1, 1.0), (True, 1.0), (np.float32(0.5), 0.5), (-2.5, -2.5)])
def test_numbers_of_any_kind_are_taken(value: Any, number: float) -> None:
    assert score(value) == number


@pytest.mark.parametrize("value", ["0.5", float("nan"), float("inf"), [1.0], 1j])
def test_what_is_no_finite_number_stops_the_run(value: Any) -> None:
    with pytest.raises(RewardError, match=r"reward 'made' on record r7 gave .*; give a finite number, or None"):
        score(value)


def test_an_error_in_a_reward_names_the_reward_and_the_record() -> None:
    reward = UserReward("made", lambda *, text, solution, example: {}["gone"])
    with pytest.raises(RewardError, match=r"reward 'made' on record r7 raised KeyError: 'gone'") as caught:
        reward.score(text="t", solution="s", example=SimpleNamespace(id="r7"))
    assert isinstance(caught.value.__cause__, KeyError)

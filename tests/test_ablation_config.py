"""Settings of an ablation: each is the shared run with a few knobs changed, and none gets more than another."""

import pytest
from ml_collections import ConfigDict

from urt_jax.config import AblationConfig, resolve, with_defaults
from urt_jax.errors import BadInputError

SHARED = {
    "steps": 20,
    "questions_per_step": 4,
    "responses_per_question": 4,
    "optimizer": {"learning_rate": 1e-4, "warmup_steps": 2},
    "rewards": {"accuracy": 2.0},
}


def ablation(**settings: object) -> AblationConfig:
    rows = tuple({"name": name, "changes": changes} for name, changes in settings.items())
    values = {"stage": "ablation", "workdir": "here", "grpo": SHARED, "settings": rows, "seeds": (3, 5)}
    resolved = resolve(with_defaults(ConfigDict(values)))
    assert isinstance(resolved, AblationConfig)
    return resolved


def refused(**settings: object) -> str:
    with pytest.raises(BadInputError) as caught:
        ablation(**settings)
    return str(caught.value)


def test_a_setting_changes_what_it_names_and_nothing_else() -> None:
    changes = {"optimizer": {"learning_rate": 3e-4}, "rewards": {"swap_consistency": 0.5}, "kl_coef": 0.0}
    runs = ablation(plain={}, **{"the best": changes}).runs()
    assert list(runs) == ["plain", "the best"]
    plain, best = runs["plain"][1], runs["the best"][1]
    assert (plain.workdir, best.workdir) == ("here/plain/seed-5", "here/the_best/seed-5")
    assert [run.seed for run in runs["the best"]] == [3, 5]
    assert (plain.optimizer.learning_rate, best.optimizer.learning_rate) == (1e-4, 3e-4)
    assert best.optimizer.warmup_steps == plain.optimizer.warmup_steps == 2
    assert (best.rewards.accuracy, best.rewards.swap_consistency) == (2.0, 0.5)
    assert (plain.kl_coef, best.kl_coef) == (0.04, 0.0)
    assert (plain.steps, best.steps) == (20, 20)


def test_every_problem_names_its_setting() -> None:
    text = refused(
        plain={},
        misspelt={"optimizer": {"learning_rte": 1.0}},
        clash={"loss": "cispo", "delta": 2.0},
        own={"seed": 1, "eval_data": {"count": 3}},
        **{"a b": {}, "a/b": {}, "start": {}},
    )
    assert text.startswith("6 problems in the config of stage 'ablation':")
    assert "config.settings[1].changes.optimizer.learning_rte: 'learning_rte' is unknown; did you mean" in text
    assert "config.settings[2].changes.delta: 2.0 is not read by loss 'cispo'" in text
    assert "config.settings[3].changes.seed: must be the same in all settings; give config.seeds instead" in text
    assert (
        "config.settings[3].changes.eval_data: must be the same in all settings; give config.grpo.eval_data instead"
        in text
    )
    assert "config.settings[5].name: 'a/b' would share a folder with 'a b'; make names differ" in text
    assert "config.settings[6].name: 'start' is the row of the model all settings start from" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 21}, "336 responses may be sampled, by config.grpo 320; for equal compute lower steps"),
        ({"data": {"count": 64}, "dynamic_sampling": 1}, "640 responses may be sampled, by config.grpo 320"),
        ({"updates_per_rollout": 2}, "640 responses may be trained on, by config.grpo 320"),
        ({"model": {"path": "urt-tiny-cold"}}, ".model.path: is another model; all settings start from"),
        ({"data": {"path": "nowhere.jsonl"}}, ".data.path: there is no 'nowhere.jsonl'"),
    ],
)
def test_no_setting_gets_more_than_the_shared_run(changes: dict[str, object], message: str) -> None:
    text = refused(plain={}, greedy=changes)
    assert "config.settings[1].changes" in text
    assert message in text


def test_less_and_the_same_are_fine() -> None:
    changes = {"steps": 10, "dynamic_sampling": 1, "data": {"count": 64}}
    runs = ablation(plain={}, refilled=changes, wider={"questions_per_step": 8, "steps": 10}).runs()
    assert runs["refilled"][0].dynamic_sampling == 1
    assert runs["wider"][0].questions_per_step == 8


def test_a_missing_file_of_the_shared_run_is_told_once() -> None:
    values = {
        "stage": "ablation",
        "grpo": {**SHARED, "data": {"path": "gone.jsonl"}},
        "settings": ({"name": "a"}, {"name": "b"}),
    }
    with pytest.raises(BadInputError, match=r"1 problem .*\n.*config\.grpo\.data\.path: there is no 'gone\.jsonl'"):
        resolve(ConfigDict(values))

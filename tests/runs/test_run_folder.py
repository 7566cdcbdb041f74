"""A run folder belongs to one set of settings, and its files are whole or absent."""

import json
from pathlib import Path

import pytest

from urt_jax.errors import BadInputError
from urt_jax.runs.run_folder import open_run, read_result, write_result

CONFIG = {"stage": "sft", "steps": 5, "data": [{"path": "a"}], "workdir": "w", "mesh": {"data": -1}}


def test_the_same_settings_go_on(tmp_path: Path) -> None:
    folder = open_run(tmp_path / "run", CONFIG)
    assert json.loads((folder / "config.json").read_text()) == CONFIG
    assert open_run(folder, {**CONFIG, "data": ({"path": "a"},)}) == folder


def test_what_a_killed_process_was_writing_goes_when_the_run_goes_on(tmp_path: Path) -> None:
    open_run(tmp_path, CONFIG)
    (tmp_path / "checkpoints" / ".unfinished-77").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".unfinished-77" / "a").write_text("x")
    for name in (".result.json.24731.tmp", "checkpoints/.config.json.1.tmp", ".kept", "records.tmp"):
        (tmp_path / name).write_text("x")
    open_run(tmp_path, CONFIG)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert {".kept", "records.tmp", "config.json", "checkpoints"} <= left
    assert not [name for name in left if "24731" in name or ".1.tmp" in name or "unfinished" in name]


def test_where_and_how_split_may_change(tmp_path: Path) -> None:
    open_run(tmp_path, CONFIG)
    open_run(tmp_path, {**CONFIG, "workdir": "elsewhere", "mesh": {"data": 4}})


def test_a_workdir_of_another_config_is_refused_key_by_key(tmp_path: Path) -> None:
    open_run(tmp_path, CONFIG)
    with pytest.raises(BadInputError) as caught:
        open_run(tmp_path, {"stage": "sft", "steps": 6, "data": [{"path": "b"}], "seed": 1})
    text = str(caught.value)
    assert f"{tmp_path} holds a run of another config" in text
    assert "steps: 5 there, 6 here" in text
    assert 'data: [{"path": "a"}] there, [{"path": "b"}] here' in text
    assert "seed: no such setting there, 1 here" in text
    assert "another --workdir" in text
    assert "mesh" not in text


def test_a_run_of_an_older_version_is_refused_by_the_settings_that_are_gone(tmp_path: Path) -> None:
    open_run(tmp_path, {"stage": "grpo", "steps": 5, "difficulty": 0.45, "optimizer": {"b1": 0.9, "b2": 0.98}})
    with pytest.raises(BadInputError) as caught:
        open_run(tmp_path, {"stage": "grpo", "steps": 5, "wording": "v1", "optimizer": {"b2": 0.98}})
    text = str(caught.value)
    assert "difficulty: 0.45 there, no such setting here" in text
    assert 'wording: no such setting there, "v1" here' in text
    assert "optimizer.b1: 0.9 there, no such setting here" in text
    assert "another --workdir" in text


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(BadInputError, match="is not a run folder"):
        open_run(tmp_path, CONFIG)
    with pytest.raises(BadInputError, match="is not a run folder"):
        open_run(tmp_path / "thesis.tex", CONFIG)


def test_a_folder_killed_before_its_config_was_whole_is_started_anew(tmp_path: Path) -> None:
    (tmp_path / ".config.json.tmp").write_text('{"sta')
    open_run(tmp_path, CONFIG)
    assert json.loads((tmp_path / "config.json").read_text()) == CONFIG


def test_result_marks_the_end(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None
    write_result(tmp_path, "a table", accuracy=0.5)
    assert read_result(tmp_path) == {"table": "a table", "accuracy": 0.5}


def test_credentials_are_not_written_and_may_change(tmp_path: Path) -> None:
    given = {**CONFIG, "teacher": {"base_url": "https://me:pass-1@host/v1?api_key=k3y"}}
    open_run(tmp_path, given)
    assert "https://***@host/v1?api_key=***" in (tmp_path / "config.json").read_text()
    open_run(tmp_path, {**CONFIG, "teacher": {"base_url": "https://me:pass-2@host/v1?api_key=k4y"}})
    with pytest.raises(BadInputError, match=r"https://\*\*\*@host/v1\?api_key=\*\*\*. there") as caught:
        open_run(tmp_path, {**CONFIG, "teacher": {"base_url": "https://me:pass-1@other/v1"}})
    assert "pass-" not in str(caught.value)
    (tmp_path / "config.json").write_text(json.dumps(given))  # written by an earlier version
    open_run(tmp_path, given)
    write_result(tmp_path, "sent Bearer abcd1234efgh5678", figures={"n": (1, 2)})
    result = read_result(tmp_path)
    assert result is not None
    assert (result["table"], result["figures"]) == ("sent Bearer ***", {"n": [1, 2]})

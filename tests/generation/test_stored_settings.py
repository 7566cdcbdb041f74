"""generation_config.json: what a judge takes of it, what it says of the rest, and what it refuses."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from urt_jax import RewardModel
from urt_jax.checkpoints.model_folder import ASSETS
from urt_jax.errors import BadInputError
from urt_jax.generation.stored_settings import DEFAULT_NEW_TOKENS, MAX_NEW_TOKENS, stored_new_tokens


def write(folder: Path, settings: Any) -> Path:
    (folder / "generation_config.json").write_text(settings if isinstance(settings, str) else json.dumps(settings))
    return folder


def test_the_limit_is_taken_or_its_default(tmp_path: Path) -> None:
    assert stored_new_tokens(tmp_path) == DEFAULT_NEW_TOKENS
    assert stored_new_tokens(write(tmp_path, {})) == DEFAULT_NEW_TOKENS
    assert stored_new_tokens(write(tmp_path, {"max_new_tokens": 77, "nobody": {"a": [1]}})) == 77
    assert stored_new_tokens(write(tmp_path, {"max_new_tokens": MAX_NEW_TOKENS})) == MAX_NEW_TOKENS


@pytest.mark.parametrize("value", [None, 0, -1, 1.5, "96", True, [96], {}, 10**30, MAX_NEW_TOKENS + 1, float("nan")])
def test_a_limit_that_is_none_is_refused_by_file_and_key(tmp_path: Path, value: Any) -> None:
    with pytest.raises(BadInputError, match=r"generation_config\.json: max_new_tokens is .*(needed|give)"):
        stored_new_tokens(write(tmp_path, {"max_new_tokens": value}))


@pytest.mark.parametrize("content", ["", "{", "[]", "7", "null", "[" * 5000, '{"a": 1, "a": 2}'])
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    with pytest.raises(BadInputError, match=r"generation_config\.json: .*copy the file again"):
        stored_new_tokens(write(tmp_path, content))


def test_a_file_of_another_code_or_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(BadInputError, match=r"generation_config\.json: not UTF-8"):
        stored_new_tokens(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(BadInputError, match=r"generation_config\.json"):
        stored_new_tokens(tmp_path)


def test_what_is_not_applied_is_told_once(
    tmp_path: Path, test_data: Path, caplog: pytest.LogCaptureFixture, tiny_judge: Path
) -> None:
    published = test_data / "qwen-tokenizer" / "qwen2_5_vl_7b" / "generation_config.json"
    write(tmp_path, published.read_text())
    judge = RewardModel.load(str(tiny_judge))
    with caplog.at_level(logging.WARNING, "urt_jax"):
        for _ in range(3):
            assert RewardModel(replace(judge.loaded, folder=tmp_path)).max_new_tokens == DEFAULT_NEW_TOKENS
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == (
        f"{tmp_path / 'generation_config.json'}: judging ignores repetition_penalty 1.05; a judge decodes by "
        "the settings of its call"
    )


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"no_repeat_ngram_size": 3}, "no_repeat_ngram_size 3"),
        ({"suppress_tokens": [1, 2], "bad_words_ids": []}, "suppress_tokens [1, 2];"),
        ({"forced_eos_token_id": 7}, "forced_eos_token_id 7"),
        ({"top_p": 0.8, "top_k": 20, "repetition_penalty": 1.0}, "top_k 20, top_p 0.8;"),
        ({"repetition_penalty": "x"}, "repetition_penalty 'x'"),
        ({"num_beams": 4, "bad_words_ids": [[1]]}, "num_beams 4, bad_words_ids"),
    ],
)
def test_every_setting_that_changes_a_text_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, settings: dict[str, Any], named: str
) -> None:
    with caplog.at_level(logging.WARNING, "urt_jax"):
        stored_new_tokens(write(tmp_path, settings))
    assert named in caplog.text


def test_what_changes_nothing_is_not_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    neutral = {
        "do_sample": True, "temperature": 1e-6, "repetition_penalty": 1.0, "top_p": 1.0, "num_beams": 1,
        "bad_words_ids": None, "min_length": 0, "eos_token_id": [1, 2], "transformers_version": "5.23.0",
    }  # fmt: skip
    with caplog.at_level(logging.WARNING, "urt_jax"):
        stored_new_tokens(write(tmp_path, neutral))
        stored_new_tokens(ASSETS / "urt-tiny")
    assert caplog.records == []

"""Tokenizer files and wordings that are spoiled: each is named, nothing else comes out."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import write_judge
from urt_jax.checkpoints.model_folder import load_processor
from urt_jax.data.examples import Chat, Example
from urt_jax.data.prompts import prompt_text
from urt_jax.data.tokenizer import load_tokenizer
from urt_jax.errors import BadInputError
from urt_jax.families.processor import encode_chat
from urt_jax.tasks.wording import MAX_WORDING, find_template, template_provenance

CHAT = Chat([{"role": "user", "content": "which?"}])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_judge(tmp_path / "judge")


def changed(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Return what changes the value of a JSON file."""

    def into(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(change(json.loads(path.read_text()) if path.is_file() else {})))

    return into


def setting(name: str, key: str, value: Any) -> Callable[[Path], None]:
    return changed(name, lambda stored: {**stored, key: value})


def with_bytes(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def with_id(number: int) -> Callable[[Path], None]:
    """Give the first word of the vocabulary another id."""

    def change(stored: dict[str, Any]) -> dict[str, Any]:
        words = stored["model"]["vocab"]
        words[next(iter(words))] = number
        return stored

    return changed("tokenizer.json", change)


def without(tokens: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [token for token in tokens if token["content"] != "<|im_end|>"]


SPOILED: dict[str, tuple[Callable[[Path], None], str]] = {
    "settings of another code": (with_bytes("tokenizer_config.json", b"\xff{}"), r"tokenizer_config\.json: not UTF-8"),
    "settings a list": (with_bytes("tokenizer_config.json", b"[]"), r"tokenizer_config\.json: \[\] where a JSON obj"),
    "settings null": (with_bytes("tokenizer_config.json", b"null"), r"tokenizer_config\.json: None where"),
    "settings deep": (with_bytes("tokenizer_config.json", b"[" * 5000), r"tokenizer_config\.json: nested deeper"),
    "settings cut": (with_bytes("tokenizer_config.json", b'{"a": '), r"tokenizer_config\.json: not JSON"),
    "settings twice": (with_bytes("tokenizer_config.json", b'{"a": 1, "a": 2}'), r"the key 'a' appears twice"),
    "half an emoji": (with_bytes("tokenizer_config.json", b'{"a": "\\ud83d"}'), r"half of a surrogate pair"),
    "map of another code": (with_bytes("special_tokens_map.json", b"\xff"), r"special_tokens_map\.json: not UTF-8"),
    "map a list": (with_bytes("special_tokens_map.json", b"[1]"), r"special_tokens_map\.json: \[1\] where"),
    "added tokens a list": (with_bytes("added_tokens.json", b"[1]"), r"added_tokens\.json: \[1\] where"),
    "vocabulary cut": (with_bytes("tokenizer.json", b'{"version": '), r"judge: its files cannot be read"),
    "vocabulary of another code": (with_bytes("tokenizer.json", b"\xff\xff"), r"judge: its files cannot be read"),
    "vocabulary null": (setting("tokenizer.json", "model", None), r"judge: its files cannot be read"),
    "vocabulary empty": (with_bytes("tokenizer.json", b"{}"), r"judge: its files cannot be read"),
    "added tokens of numbers": (setting("tokenizer.json", "added_tokens", [5]), r"judge: its files cannot be read"),
    "a huge id": (with_id(10**9), r"tokenizer\.json: a token has the id 1000000000; copy"),
    "a huge id of many digits": (with_id(10**30), r"tokenizer\.json: a token has the id 10{19}; copy"),
    "end of nothing": (setting("tokenizer_config.json", "eos_token", 5), r"judge"),
    "no end": (
        changed(
            "tokenizer.json",
            lambda stored: {
                **stored,
                "added_tokens": [t for t in stored["added_tokens"] if t["content"] != "<|im_end|>"],
            },
        ),
        r"judge",
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_file_is_named(folder: Path, name: str) -> None:
    spoil, message = SPOILED[name]
    spoil(folder)
    with pytest.raises(BadInputError, match=message) as caught:
        encode_chat(load_processor(str(folder))[0], CHAT, name="r")
    assert " at 0x" not in str(caught.value)
    assert len(str(caught.value)) < 900


def test_an_id_beyond_the_embedding_is_refused_where_it_stands(folder: Path) -> None:
    rows = load_processor(str(folder))[0].config.decoder.vocab_size
    changed("tokenizer.json", lambda stored: renamed(stored, "w", rows + 5))(folder)
    with pytest.raises(BadInputError, match=rf"r: the tokenizer gives a word the id {rows + 5}, the embed"):
        encode_chat(load_processor(str(folder))[0], Chat([{"role": "user", "content": "w w w"}]), name="r")


def renamed(stored: dict[str, Any], word: str, number: int) -> dict[str, Any]:
    stored["model"]["vocab"][word] = number
    return stored


def test_a_tokenizer_without_padding_pads_with_the_end_of_a_text(folder: Path) -> None:
    setting("tokenizer_config.json", "pad_token", None)(folder)
    processor = load_processor(str(folder))[0]
    assert processor.pad_id == processor.tokenizer.convert_tokens_to_ids("<|endoftext|>")


def test_a_vocabulary_that_is_no_file_is_none(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")
    with pytest.raises(BadInputError, match=r"found no tokenizer file"):
        load_tokenizer(folder)


PAIR = Example("p", "image_gen", "a cat")

WORDINGS: dict[str, tuple[bytes, str]] = {
    "braces": (b"a {caption} {", r"[Ss]ingle '\{' encountered|expected '\}'"),
    "a lone brace": (b"a } b", r"[Ss]ingle '\}'"),
    "an unknown slot": (b"{captain}", r"unknown slot \{captain\}; known here: \{caption\}; did you mean 'caption'"),
    "a width": (b"{caption!r:>1000000000}", r"unknown slot \{caption!r:>1000000000\}"),
    "a width in a width": (b"{caption:{caption}}", r"unknown slot"),
    "an attribute": (b"{caption.__class__.__mro__}", r"unknown slot"),
    "a number": (b"{0.__class__}", r"unknown slot \{0\.__class__\}"),
    "no name": (b"{}", r"unknown slot \{\}"),
    "a long name": (b"{" + b"x" * 100_000 + b"}", r"unknown slot \{x{80}\}"),
    "another code": (b"\xff {caption}", r"not UTF-8 text at byte 0"),
    "nothing": (b" \n", r"the file is empty"),
    "too much": (b"x" * (MAX_WORDING + 1), r"1,048,577 bytes, at most 1,048,576 are allowed"),
}


@pytest.mark.parametrize("name", WORDINGS)
def test_a_spoiled_wording_is_named(tmp_path: Path, name: str) -> None:
    content, message = WORDINGS[name]
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=rf"mine\.txt.*({message})") as caught:
        prompt_text(PAIR, template=path)
    assert len(str(caught.value)) < 600
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "image_gen.txt").write_bytes(content)
    with pytest.raises(BadInputError, match=rf"image_gen\.txt.*({message})"):
        prompt_text(PAIR, template=folder)


def test_wordings_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", "/dev/zero", tmp_path, tmp_path / "none", "a\0b", "x" * 5000):
        with pytest.raises(BadInputError, match=r"prompt template .*(neither a shipped family|holds none of)"):
            find_template(place)


def test_a_wording_of_two_line_ends_is_one_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfJudge:\r\n{caption}\r\n")
    assert prompt_text(PAIR, template=tmp_path / "a.txt") == "Judge:\na cat"
    assert template_provenance(tmp_path / "a.txt")["prompt_version"].startswith("sha256:")

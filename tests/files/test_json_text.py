"""JSON and YAML are read in one way: what cannot be trusted is refused, with the file and the reason."""

import json
from pathlib import Path

import pytest

from urt_jax.errors import BadInputError
from urt_jax.files.json_text import (
    MAX_DEPTH,
    JsonError,
    parse_items,
    parse_json,
    parse_object,
    read_json,
    read_object,
    read_yaml,
    well_formed,
    whole_lines,
)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "data", [b'{"a": [1, null, "\\u00e9"]}', '{"a": [1, null, "é"]}'.encode(), "\ufeff{}".encode()]
)
def test_sound_json_is_read_with_or_without_a_byte_order_mark(data: bytes) -> None:
    assert parse_json(data) == json.loads(data.decode("utf-8-sig"))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\xff\xfe{}", "not UTF-8: byte 0 is 0xff"),
        (b'{"a": "\xe9"}', "not UTF-8"),
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' appears twice"),
        (nested(MAX_DEPTH + 1).encode(), f"nested deeper than {MAX_DEPTH}"),
        (nested(100_000).encode(), f"nested deeper than {MAX_DEPTH}"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, f"nested deeper than {MAX_DEPTH}"),
        (b'{"a": ["\\ud83d"]}', "half of a surrogate pair"),
        (b'{"\\udc00": 1}', "half of a surrogate pair"),
        (b"1" * 5_000, "not JSON"),
    ],
)
def test_what_cannot_be_trusted_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(JsonError, match=told):
        parse_json(data)


def test_whole_pairs_and_the_deepest_nesting_allowed_pass() -> None:
    assert parse_json(b'"\\ud83d\\ude00"') == "\U0001f600"
    assert json.dumps(parse_json(nested(MAX_DEPTH))) == nested(MAX_DEPTH)


def test_an_object_is_asked_for_by_name() -> None:
    with pytest.raises(JsonError, match=r"\[1, 2\] where a JSON object is needed"):
        parse_object(b"[1, 2]")


def test_files_are_named_with_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(BadInputError, match=r"config.json: no such file"):
        read_json(path)
    path.write_bytes(b"\x80")
    with pytest.raises(BadInputError, match=r"config.json: not UTF-8.*copy the file again"):
        read_json(path)
    path.write_text("[]")
    assert read_json(path) == []
    with pytest.raises(BadInputError, match=r"config.json: \[\] where a JSON object"):
        read_object(path)
    with pytest.raises(BadInputError, match=r"2 bytes, at most 1"):
        read_json(path, most=1)


def test_lines_of_a_run_are_whole_objects_and_told_by_number(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "x\xe2\x80\xa8y"}\n{"a": ')
    assert [(n, line["a"]) for n, line in whole_lines(path)] == [(1, 1), (2, "x\u2028y")]
    path.write_bytes(b'{"a": 1}\n{"a": \n')
    with pytest.raises(BadInputError, match=r"lines.jsonl line 2: not JSON"):
        list(whole_lines(path))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a: \xff", "not readable as YAML"),
        (b"a: [1", "not readable as YAML"),
        (b"a: 1\nb: 2\na: 3", "appears twice"),
        (b"[" * 5_000, "nested deeper"),
        (b"a: !!python/object/apply:os.system ['true']", "not readable as YAML"),
        (b"? [1]\n: 2", "not readable as YAML"),
        (b"a: 2001-99-99", "not readable as YAML"),
    ],
)
def test_yaml_is_plain_and_sound(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "mixture.yaml"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=told) as caught:
        read_yaml(path)
    assert "mixture.yaml" in str(caught.value)


def test_half_a_pair_is_replaced_where_it_must_be_kept() -> None:
    assert well_formed("a \ud83d b \U0001f600") == "a \ufffd b \U0001f600"


def test_items_of_a_list_are_flawed_one_by_one() -> None:
    flawed = ['{"a": 1, "a": 2}', '{"b": {"c": 1, "c": 2}}', '["\\ud83d"]', nested(MAX_DEPTH + 1)]
    items = parse_items(f"[1, {', '.join(flawed)}, {{}}]".encode())
    assert (items[0], items[-1]) == (1, {})
    told = ["a key appears twice", "a key appears twice", "half of a surrogate pair", "nested deeper"]
    for item, words in zip(items[1:-1], told, strict=True):
        assert isinstance(item, JsonError)
        assert words in str(item)
    for data, words in ((b"{}", "where a JSON list is needed"), (b"[", "not JSON"), (b"\xff", "not UTF-8")):
        with pytest.raises(JsonError, match=words):
            parse_items(data)


@pytest.mark.parametrize(
    "text",
    ["a: &a [x]\nb: *a", "&a [*a]", "a: &a {k: 1}\nb: {<<: *a}", '["\\ud83d"]'],
)
def test_yaml_that_multiplies_or_that_no_file_can_hold_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(BadInputError, match=r"a reference|half of a surrogate pair"):
        read_yaml(tmp_path / "a.yaml")

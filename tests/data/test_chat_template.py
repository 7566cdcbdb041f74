"""Which chat template a folder means: the processor's first, as transformers takes it; errors name the file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import ProcessorMixin

from urt_jax.checkpoints.model_folder import ASSETS
from urt_jax.data.chat_template import find_chat_template
from urt_jax.data.examples import Chat
from urt_jax.data.tokenizer import chat_text, load_tokenizer
from urt_jax.errors import BadInputError

PARTS = Chat([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "who?"}]}])
TEXT_ONLY = "{% for m in messages %}{{ 'T:' + m.content }}{% endfor %}"
WITH_PARTS = "{% for m in messages %}{% for p in m.content %}{{ p.type }}:{{ p.text }};{% endfor %}{% endfor %}"
OTHER = "{{ 'other' }}"
NAMED = [{"name": "tool_use", "template": OTHER}, {"name": "default", "template": WITH_PARTS}]


def write(**files: Any) -> Callable[[Path], None]:
    """Return what writes files into a folder by name, ``__`` for a dot and ``_in_`` for a folder before it."""

    def into(folder: Path) -> None:
        for name, content in files.items():
            path = folder.joinpath(*reversed(name.replace("__", ".").split("_in_")))
            path.parent.mkdir(exist_ok=True)
            path.write_text(content if isinstance(content, str) else json.dumps(content))

    return into


FOLDERS = {
    "chat_template.json": write(chat_template__json={"chat_template": WITH_PARTS}),
    "chat_template.jinja": write(chat_template__jinja=WITH_PARTS),
    "the processor's key": write(processor_config__json={"chat_template": WITH_PARTS}),
    "key before files": write(
        processor_config__json={"chat_template": WITH_PARTS},
        chat_template__json={"chat_template": OTHER},
        chat_template__jinja=OTHER,
    ),
    "json before jinja": write(chat_template__json={"chat_template": WITH_PARTS}, chat_template__jinja=OTHER),
    "an empty key": write(processor_config__json={"chat_template": None}, chat_template__jinja=WITH_PARTS),
    "names in the key": write(processor_config__json={"chat_template": {"default": WITH_PARTS, "tool_use": OTHER}}),
    "further templates": write(chat_template__jinja=WITH_PARTS, tool_use__jinja_in_additional_chat_templates=OTHER),
    "default of further ones": write(
        default__jinja_in_additional_chat_templates=WITH_PARTS, a__jinja_in_additional_chat_templates=OTHER
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a tokenizer whose own template knows of text alone."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((ASSETS / "urt-tiny" / name).read_bytes())
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": TEXT_ONLY}))
    return tmp_path


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # transformers leaves files open
@pytest.mark.parametrize("name", FOLDERS)
def test_the_processors_template_comes_first_as_in_transformers(folder: Path, name: str) -> None:
    FOLDERS[name](folder)
    assert chat_text(load_tokenizer(folder), PARTS) == "image:;text:who?;"
    settings, _ = ProcessorMixin.get_processor_dict(str(folder))
    theirs = settings["chat_template"]
    found = find_chat_template(folder)
    assert found is not None
    assert found.source == (theirs["default"] if isinstance(theirs, dict) else theirs) == WITH_PARTS


def test_the_tokenizers_own_comes_last(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    assert chat_text(tokenizer, Chat([{"role": "user", "content": "who?"}])) == "T:who?"
    with pytest.raises(BadInputError, match=r"tokenizer_config\.json fails on the messages: TypeError: can only conc"):
        chat_text(tokenizer, PARTS)


@pytest.mark.parametrize("stored", [NAMED, {"default": WITH_PARTS, "tool_use": OTHER}])
def test_of_several_by_name_it_is_the_default(folder: Path, stored: Any) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": stored}))
    assert chat_text(load_tokenizer(folder), PARTS) == "image:;text:who?;"


def test_a_shipped_folder_keeps_its_template() -> None:
    found = find_chat_template(ASSETS / "urt-tiny")
    assert found is not None
    assert found.file.endswith("chat_template.jinja")


REFUSED = {
    "no text": (write(chat_template__json={"chat_template": 5}), r"chat_template\.json: chat_template is 5; needed"),
    "no key": (write(chat_template__json={}), r"chat_template\.json: chat_template is missing"),
    "no object": (write(chat_template__json=[]), r"chat_template\.json: \[\] where a JSON object is needed"),
    "no JSON": (write(chat_template__json="{"), r"chat_template\.json: not JSON"),
    "no default": (write(processor_config__json={"chat_template": {"a": OTHER}}), r'none is named "default"'),
    "no default file": (write(a__jinja_in_additional_chat_templates=OTHER), r'none is named "default"'),
    "a list of names": (
        write(chat_template__json={"chat_template": [["default", "x"]]}),
        r"needed a text, or",
    ),
    "old and new": (
        write(chat_template__json={"chat_template": OTHER}, a__jinja_in_additional_chat_templates=OTHER),
        r"conflicts with the folder additional_chat_templates",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_holds_no_template_is_named(folder: Path, name: str) -> None:
    files, message = REFUSED[name]
    files(folder)
    with pytest.raises(BadInputError, match=message):
        load_tokenizer(folder)


def test_a_template_that_is_no_text_of_any_code_is_named(folder: Path) -> None:
    (folder / "chat_template.jinja").write_bytes(b"\xff{{ messages }}")
    with pytest.raises(BadInputError, match=r"chat_template\.jinja: not UTF-8 at byte 0"):
        load_tokenizer(folder)


FAILING = {
    "{{ 1/0 }}": r"fails on the messages: ZeroDivisionError: division by zero",
    "{{ messages[7].role }}": r"fails on the messages: UndefinedError",
    "{{ a.b.c }}": r"fails on the messages: UndefinedError: 'a' is undefined",
    "{{ [1, }}": r"cannot be read: line 1: ",
    "\n{% if %}": r"cannot be read: line 2: ",
    "{% nonsense %}": r"cannot be read: line 1: Encountered unknown tag",
    "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}": r"fails on the messages: RecursionError",
    "{{ 'x' * 10**9 }}": r"fails on the messages: TooMuch: more than 50,000,000 characters",
    "{{ raise_exception('no pictures here') }}": r"refuses the messages: no pictures here$",
    "{{ messages.append(1) }}": r"refuses the messages: access to attribute 'append' of 'list' object is unsafe",
    "{{ ''.__class__.__mro__ }}": r"refuses the messages: access to attribute '__class__'",
    "{{ range(10**18) }}": r"fails on the messages: OverflowError",
    "{% include 'x' %}": r"fails on the messages: TypeError",
}


@pytest.mark.parametrize("source", FAILING)
def test_an_error_inside_a_template_names_its_file(folder: Path, source: str) -> None:
    (folder / "chat_template.jinja").write_text(source)
    tokenizer = load_tokenizer(folder)
    with pytest.raises(BadInputError, match=r"chat_template\.jinja " + FAILING[source]) as caught:
        chat_text(tokenizer, PARTS)
    assert "0x" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_a_template_sees_no_object_of_the_callers(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for p in messages[0].content %}{{ p.image }}{% endfor %}")
    shown = Chat([{"role": "user", "content": [{"type": "image", "image": folder}]}])
    assert chat_text(load_tokenizer(folder), shown) == f"<{type(folder).__name__}>"

"""The chat template of a model folder, found by the rules of transformers' processors (5.23)."""

from pathlib import Path
from typing import Any, NamedTuple

from urt_jax.errors import BadInputError, shown
from urt_jax.files.json_text import read_object
from urt_jax.files.reading import read_whole

MORE_TEMPLATES = "additional_chat_templates"  # folder of further templates by name, as for tools


class ChatTemplate(NamedTuple):
    """A template, and the file it was read from."""

    source: str
    file: str


def find_chat_template(folder: Path) -> ChatTemplate | None:
    """Return the template of a folder, or None if it has none.

    The processor's template comes first: the key ``chat_template`` of processor_config.json, then chat_template.json,
    then chat_template.jinja. The tokenizer's own, in tokenizer_config.json, may support text only and comes last. Of
    several named templates it is the one named "default".

    Raises:
        BadInputError: a file that cannot be read, a template that is not a text, or several without a default.
    """
    more = sorted((folder / MORE_TEMPLATES).glob("*.jinja"))
    stored = _key_of(folder / "processor_config.json")
    if stored is not None:
        return _default_of(stored, folder / "processor_config.json")
    if (file := folder / "chat_template.json").is_file():
        if more:
            raise BadInputError(
                f"{file} conflicts with the folder {MORE_TEMPLATES}, which is chat_template.jinja's; delete one"
            )
        stored = _key_of(file)
        if stored is None:
            raise BadInputError(f"{file}: chat_template is missing; copy the file again")
        return _default_of(stored, file)
    if (file := folder / "chat_template.jinja").is_file():
        return ChatTemplate(_text_of(file), str(file))
    if more:
        return _default_of({file.stem: _text_of(file) for file in more}, folder / MORE_TEMPLATES)
    stored = _key_of(folder / "tokenizer_config.json")
    return None if stored is None else _default_of(stored, folder / "tokenizer_config.json")


def _key_of(file: Path) -> Any:
    return read_object(file).get("chat_template") if file.is_file() else None


def _default_of(stored: Any, file: Path) -> ChatTemplate:
    """Return a file's template: its only one, or the default of several named ones."""
    named = stored
    if isinstance(stored, list) and all(isinstance(item, dict) for item in stored):
        named = {item.get("name"): item.get("template") for item in stored}
    if isinstance(named, dict):
        if "default" not in named:
            raise BadInputError(
                f'{file}: of its {len(named)} chat templates none is named "default"; name the one to ask with so'
            )
        stored = named["default"]
    if not isinstance(stored, str):
        raise BadInputError(f"{file}: chat_template is {shown(stored)}; needed a text, or texts by name")
    return ChatTemplate(stored, str(file))


def _text_of(file: Path) -> str:
    try:
        return read_whole(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{file}: not UTF-8 at byte {error.start}; copy the file again") from None

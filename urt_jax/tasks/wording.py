"""Prompt templates: finding them (a shipped family, a user's file or folder) and filling their slots."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from urt_jax.errors import BadInputError, did_you_mean, shown
from urt_jax.files.reading import read_whole
from urt_jax.tasks import TASKS

MAX_WORDING = 1 << 20  # bytes of a template file; the shipped ones have a thousand
WORDINGS = ("v1", "v2")  # one line per dimension; a block of lines per dimension
DEFAULT_TEMPLATE = "v1"
PROMPT_VERSION = "1"  # raise it when a shipped template changes; records carry it as provenance

_SHIPPED = Path(__file__).with_name("wordings")  # the families' folders, and the direct templates that they share


def find_template(template: str | Path) -> Path:
    """Return the location of a template: the folder of a shipped family, or the user's own file or folder.

    Raises:
        BadInputError: neither a family nor an existing path, or a folder without a template for any task.
    """
    if not isinstance(template, str | Path):
        raise BadInputError(f"prompt template {shown(template)}: give a family ({', '.join(WORDINGS)}), or a path")
    if template in WORDINGS:
        return _SHIPPED / str(template)
    place, given = Path(template), str(template)
    try:
        if place.is_file() or any((place / f"{task}.txt").is_file() for task in TASKS):
            return place
        is_folder = place.is_dir()
    except (OSError, ValueError):  # not a valid path: the template's text was given instead
        is_folder = False
    if is_folder:
        files = ", ".join(f"{task}.txt" for task in TASKS)
        raise BadInputError(f"prompt template {given}: the folder holds none of {files}; write one for each task")
    hint = did_you_mean(given.lower(), WORDINGS) or ";"
    raise BadInputError(
        f"prompt template {shown(given)}: neither a shipped family "
        f"({', '.join(WORDINGS)}) nor a file or folder that is there{hint} give a family, the path of a text file "
        "with the wording, or of a folder with one <task>.txt for each task"
    )


def read_wording(template: str | Path, task: str, *, think: bool) -> tuple[str, str]:
    """Return the template text for one task, and its name in messages.

    A file serves every task, with and without reasoning. A folder holds ``<task>.txt`` and may hold
    ``<task>_direct.txt``; without it, the shipped direct template is used. The newline that ends a file is not part of
    the template.

    Raises:
        BadInputError: as ``find_template``, a folder without this task, or a file that is empty or not UTF-8 text.
    """
    place = find_template(template)
    if place.is_file():
        return _read(Path(template)), str(template)
    name = task if think else f"{task}_direct"
    if template in WORDINGS:
        return _shipped_wording(str(template), name), f"{template}/{name}"
    file = Path(template) / f"{name}.txt"
    if file.is_file():
        return _read(file), str(file)
    if not think:
        return _shipped_wording(DEFAULT_TEMPLATE, name), name
    raise BadInputError(f"prompt template {template}: the folder holds no {task}.txt; write one, or leave out {task}")


def fill(wording: str, slots: Mapping[str, str], *, name: str) -> str:
    """Fill the slots of a template; values are not searched for slots.

    Raises:
        BadInputError: a slot that is not among ``slots``, or a lone brace.
    """
    text = ""
    for literal, slot in _pieces(wording, name=name):
        if slot is not None and slot not in slots:
            known = ", ".join(f"{{{known_slot}}}" for known_slot in slots)
            hint = did_you_mean(slot, slots) or "; double a brace that is meant as text"
            raise BadInputError(f"template {name}: unknown slot {{{slot[:80]}}}; known here: {known}{hint}")
        text += literal + ("" if slot is None else slots[slot])
    return text


def template_phrases(tasks: Iterable[str]) -> tuple[str, ...]:
    """Return the fixed text pieces between the slots of v1 templates, for a tokenizer with one token for each.

    The space before a slot is not part of a piece: it belongs to the slot's first word.
    """
    pieces: dict[str, None] = {}
    for task in tasks:
        for name in (task, f"{task}_direct"):
            for literal, slot in _pieces(_shipped_wording("v1", name), name=name):
                piece = literal.removesuffix(" ") if slot is not None else literal
                if piece:
                    pieces[piece] = None
    return tuple(pieces)


def template_provenance(template: str | Path) -> dict[str, str]:
    """Return a record's provenance of its prompt: the template setting, and the template's version.

    The version of a shipped family is ``PROMPT_VERSION``, that of a user's files a hash of their content.

    Raises:
        BadInputError: as ``find_template``.
    """
    if template in WORDINGS:
        return {"prompt_template": str(template), "prompt_version": PROMPT_VERSION}
    find_template(template)
    place = Path(template)
    names = [f"{task}{ending}.txt" for task in TASKS for ending in ("", "_direct")]
    files = [place] if place.is_file() else [place / name for name in names if (place / name).is_file()]
    digest = hashlib.sha256(
        b"\0".join(file.name.encode() + b"\0" + read_whole(file, most=MAX_WORDING) for file in files)
    ).hexdigest()
    return {"prompt_template": str(template), "prompt_version": f"sha256:{digest[:16]}"}


@cache
def _shipped_wording(family: str, name: str) -> str:
    file = _SHIPPED / f"{name}.txt" if name.endswith("_direct") else _SHIPPED / family / f"{name}.txt"
    if not file.is_file():  # a task whose reply has one form is worded in the first family only
        file = _SHIPPED / DEFAULT_TEMPLATE / f"{name}.txt"
    return file.read_text(encoding="utf-8").removesuffix("\n")


def _read(file: Path) -> str:
    try:
        wording = read_whole(file, most=MAX_WORDING).decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise BadInputError(f"prompt template {file}: not UTF-8 text at byte {error.start}; save it as UTF-8") from None
    if not wording.strip():
        raise BadInputError(f"prompt template {file}: the file is empty; write the wording into it")
    return wording


def _pieces(wording: str, *, name: str) -> Iterator[tuple[str, str | None]]:
    """Yield (fixed text, name of the slot after it or None)."""
    try:
        parsed = list(string.Formatter().parse(wording))
    except ValueError as error:
        raise BadInputError(f"template {name}: {error}; double a brace that is meant as text") from error
    for literal, field, spec, conversion in parsed:
        if field is None:
            yield literal, None
        else:
            yield literal, field + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")

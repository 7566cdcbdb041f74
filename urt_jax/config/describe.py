"""Every knob of a stage in words: its value, and what the settings say of it beside its declaration."""

import ast
import dataclasses
import inspect
import io
import textwrap
import tokenize
import typing
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from urt_jax.config.stages import STAGES

WIDTH = 118


def describe(config: ConfigDict) -> str:
    """Return a table of all knobs of a config with their defaults there, one a line, in groups."""
    cls = STAGES[config.stage]
    lines = [f"stage {config.stage}: {_first_line(cls)}", "", "knobs, as --config.<knob>=<value>:"]
    for name, value, meaning in _knobs(cls, config, ""):
        told = f"  {name} = {_short(value)}"
        lines += textwrap.wrap(f"{told:<52} {meaning}".rstrip(), WIDTH, subsequent_indent=" " * 53) or [told]
    return "\n".join(lines)


def _knobs(cls: type, config: Any, prefix: str) -> Iterator[tuple[str, Any, str]]:
    """Yield name, value and meaning of each knob below a record."""
    hints, told = typing.get_type_hints(cls), _meanings(cls)
    for item in dataclasses.fields(cls):
        if item.name not in config:
            continue
        value, hint = config[item.name], hints[item.name]
        inner = typing.get_args(hint)
        if isinstance(value, ConfigDict) and dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from _knobs(hint, value, f"{prefix}{item.name}.")
        elif isinstance(value, ConfigDict) and inner and dataclasses.is_dataclass(inner[0]):
            yield from _knobs(typing.cast(type, inner[0]), value, f"{prefix}{item.name}.")
        elif isinstance(value, tuple) and value and isinstance(value[0], ConfigDict):
            for n, part in enumerate(value):
                if isinstance(part, ConfigDict):
                    yield from _knobs(inner[0], part, f"{prefix}{item.name}[{n}].")
        else:
            yield f"{prefix}{item.name}", value, told.get(item.name, "")


def _meanings(cls: type) -> dict[str, str]:
    """Return the comment beside each field's declaration, or above it, in a record or in those it is made from."""
    found: dict[str, str] = {}
    for owner in reversed([base for base in cls.__mro__ if dataclasses.is_dataclass(base)]):
        source = textwrap.dedent(inspect.getsource(owner))
        comments = {
            token.start[0]: (token.line.lstrip().startswith("#"), token.string.lstrip("# "))
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT
        }
        record = typing.cast(ast.ClassDef, ast.parse(source).body[0])
        for item in record.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                told = [comments[n][1] for n in range(item.lineno, (item.end_lineno or 0) + 1) if n in comments]
                above = item.lineno - 1
                while not told and comments.get(above, (False,))[0]:
                    above -= 1
                told = told or [comments[n][1] for n in range(above + 1, item.lineno)]
                found[item.target.id] = " ".join(told) or found.get(item.target.id, "")
    return found


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


def _short(value: Any) -> str:
    if isinstance(value, ConfigDict):
        value = value.to_dict()
    told = repr(value)
    return told if len(told) <= 60 else f"{told[:57]}..."

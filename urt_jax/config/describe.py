"""The table of all knobs of a stage: their values, and the comments at their declarations."""

import ast
import dataclasses
import inspect
import io
import textwrap
import tokenize
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from urt_jax.config.binding import record_type
from urt_jax.config.knobs import ROOT, Knob, knobs
from urt_jax.config.overrides import how_to_write
from urt_jax.config.stages import STAGES

WIDTH = 118
HOW = """\
knobs, as --config.<knob>=<value>; a value in brackets is a Python literal, None is written None.
A mapping or tuple replaces the current one. A group, --config.<group>="{'<knob>': <value>}", changes the knobs that it
names."""


def describe(values: Mapping[str, Any]) -> str:
    """Return a table of all knobs of a plain config that holds all defaults, one per line, in groups."""
    stage = values["stage"]
    lines = [f"stage {stage}: {_first_line(STAGES[stage])}", "", HOW, ""]
    for knob in knobs(values):
        if knob.declared is None or record_type(knob.hint) is knob.hint:
            continue  # an entry, or a group, whose knobs follow
        cls, field = knob.declared
        told = f"  {knob.name.removeprefix(f'{ROOT}.')} = {_short(knob)}"
        meaning = "; ".join(filter(None, (_meanings(cls).get(field, "").rstrip("."), _form(knob.hint))))
        lines += textwrap.wrap(f"{told:<52} {meaning}".rstrip(), WIDTH, subsequent_indent=" " * 53) or [told]
    return "\n".join(lines)


def _form(hint: Any) -> str:
    """Return how to write a choice, a mapping or a tuple."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(inner)}"
    form = how_to_write(hint)
    if form and typing.get_origin(inner[0]) is Literal:
        return f"some of {', '.join(typing.get_args(inner[0]))}; as {form}"
    return form and f"as {form}"


@cache
def _meanings(cls: type) -> dict[str, str]:
    """Return the comment beside or above each field's declaration, in a record or its base records."""
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


def _short(knob: Knob) -> str:
    if record_type(knob.hint) is not None and knob.value:
        return "the one below" if isinstance(knob.value, dict) else f"the {len(knob.value)} below"
    told = repr(knob.value)
    return told if len(told) <= 60 else f"{told[:57]}..."

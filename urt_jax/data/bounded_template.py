"""Rendering of untrusted chat templates within bounds of work, size and time, in any thread.

The environment is that of transformers 5.23 (``tests/families/test_chat_parity.py``). In addition, a budget is charged
for everything a template does: each loop iteration, macro call, text and list, by its size, and in advance if a result
can be larger than its inputs. Jinja compiles loops, ``~``, slices and literals to plain Python, so they are wrapped in
charging filters when the template is parsed.
"""

import json
import re
import string
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import cache, lru_cache, wraps
from typing import Any

from jinja2 import Environment, Template, nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from urt_jax.data.template_budget import (
    MAX_PADDING,
    ROUND,
    TooMuch,
    check_bits,
    check_format,
    check_product,
    paid,
    paid_ahead,
    paying_filter,
    size_of,
    spend,
    spend_round,
    start_budget,
)

MAX_SOURCE = 1 << 18  # characters of a template; the longest published ones have some 20,000
_UNUSED = ("translate", "maketrans", "expandtabs")  # text methods whose result size cannot be predicted; refused
_ROUND, _MADE, _JOINED, _SLICED = " round", " made", " joined", " sliced"  # no template can write these names


def render_template(source: str, variables: dict[str, Any]) -> str:
    """Return the text that a template renders.

    Raises:
        Exception: of any type; the template is invalid, refuses the variables, or exceeds the bounds.
    """
    if len(source) > MAX_SOURCE:
        raise TooMuch(f"{len(source):,} characters, at most {MAX_SOURCE:,} are read of a template")
    start_budget()
    return compiled(source).render(variables)


@lru_cache(64)
def compiled(source: str) -> Template:
    """Return a compiled template; few are cached, since one is used at a time."""
    return _environment().from_string(source)


@pass_context
def _round(context: Context, cost: int) -> bool:
    spend_round(cost)
    return True


@pass_context
def _made(context: Context, value: Any) -> Any:
    return paid(value)


@pass_context
def _joined(context: Context, parts: list[Any]) -> str:
    spend(size_of(parts))
    return (markup_join if context.eval_ctx.autoescape else str_join)(parts)


@pass_context
def _sliced(context: Context, value: Any, start: Any, stop: Any, step: Any) -> Any:
    return paid(value[slice(start, stop, step)])


class _Metered(NodeTransformer):
    """Wraps the nodes that jinja compiles to plain Python in the filters above."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, _counted(node))
        if node.test is not None:
            node.test = nodes.And(_filter(nodes.Const(ROUND), _ROUND), node.test).set_lineno(node.lineno)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, _counted(node))
        return node

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, _counted(node))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), _JOINED)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        edges = [edge or nodes.Const(None) for edge in (node.arg.start, node.arg.stop, node.arg.step)]
        return _filter(node.node, _SLICED, edges)

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return _filter(node, _MADE) if any(not isinstance(item, nodes.Const) for item in node.items) else node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        constant = node.ctx != "load" or all(isinstance(item, nodes.Const) for item in node.items)
        return node if constant else _filter(node, _MADE)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return _filter(node, _MADE) if node.items else node


def _filter(value: nodes.Expr, name: str, arguments: Iterable[nodes.Expr] = ()) -> nodes.Filter:
    return nodes.Filter(value, name, list(arguments), [], None, None, lineno=value.lineno)


def _counted(node: Any) -> nodes.ExprStmt:
    """Return the statement that charges for one iteration of a body and its literal text."""
    written = sum(len(data.data) for part in node.body for data in part.find_all(nodes.TemplateData))
    return nodes.ExprStmt(_filter(nodes.Const(ROUND + written, lineno=node.lineno), _ROUND), lineno=node.lineno)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox of transformers, with operators, calls and filters that charge the budget."""

    intercepted_binops = frozenset({"*", "+", "**", "%"})

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = super()._parse(source, name, filename)
        metered: nodes.Template = _Metered().visit(tree)
        metered.set_environment(self)
        return metered

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return super().is_safe_attribute(obj, attr, value) and not (isinstance(obj, str | bytes) and attr in _UNUSED)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            check_product(left, right)
        elif operator == "+" and isinstance(left, str | bytes | list | tuple):
            spend(size_of(left) + size_of(right))
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            check_bits(left.bit_length() * max(right, 0))
        elif operator == "%" and isinstance(left, str):
            check_format(left, right)
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        @wraps(wrapped)
        def checked(*args: Any, **kwargs: Any) -> str:
            for _, _, spec, _ in string.Formatter().parse(value.__self__):
                if spec and (re.search(r"\d{4,}", spec) or "{" in spec):
                    raise TooMuch(f"a format fills up to more than {MAX_PADDING} columns")
            spend((len(args) + len(kwargs) + value.__self__.count("{")) * (size_of(args) + size_of(kwargs)))
            return wrapped(*args, **kwargs)

        return checked

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str | bytes | int | float):
            args = paid_ahead(owner, __obj.__name__, args, kwargs)
        made = super().call(__context, __obj, *args, **kwargs)
        return made if isinstance(__obj, Macro) else paid(made)  # a macro's text was charged while it was written


class _Generation(Extension):
    """The tag that marks the model's own text; its body is rendered unchanged."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("written"), [], [], body).set_lineno(line)

    def written(self, caller: Macro) -> str:
        """Return the body."""
        return str(caller())


class _Dict:
    """``dict`` in a template."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """Return the result of ``dict.fromkeys``."""
        return dict.fromkeys(*args, **kwargs)


class _Namespace(Namespace):
    """``namespace`` in a template, without attributes that start with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, given = args[0], dict(*args[1:], **kwargs)
        for name in given:
            _check_public(name)
        Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_public(name)
        super().__setitem__(name, value)


def _check_public(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace holds no name that starts with an underscore, as {name[:40]!r} does")


def _raise_exception(message: Any) -> None:
    raise TemplateError(str(message))


def _strftime_now(wanted: str) -> str:
    if re.search(r"\d{3,}", wanted):
        raise TooMuch("a date is filled up to a hundred columns or more")
    return datetime.now().strftime(wanted)


def _to_json(
    x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Return JSON without the escapes for HTML that jinja's own filter makes."""
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@cache
def _environment() -> Environment:
    made = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols], finalize=paid)
    made.filters["tojson"] = _to_json
    made.filters = {name: paying_filter(name, function) for name, function in made.filters.items()}
    made.filters |= {_ROUND: _round, _MADE: _made, _JOINED: _joined, _SLICED: _sliced}
    del made.globals["lipsum"]  # makes any number of random words
    made.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "dict": _Dict(),
        "namespace": _Namespace,
    }
    return made

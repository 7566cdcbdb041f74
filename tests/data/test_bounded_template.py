"""Templates of strangers end soon and small, whatever they do; sound ones write what transformers writes."""

import json
import resource
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from urt_jax.data import template_budget
from urt_jax.data.bounded_template import MAX_SOURCE, render_template
from urt_jax.data.template_budget import TooMuch

MESSAGES = [
    {"role": "system", "content": "Judge."},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "who?\n  <b>"}]},
    {"role": "assistant", "content": "<think>\nx</think>\n\nok"},
]
LONG_TEXT = "{% set x = 'a' * 1000000 %}"
GROWING = "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(60) %}"

# Each does without end, or makes without end, unless it is stopped.
TOO_MUCH = {
    "loops in loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a loop that skips": "{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
    "macros twice": "{% macro f(x) %}{% if x %}{{ f(x-1) }}{{ f(x-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "a searched text": LONG_TEXT + "{% for i in range(99999) %}{% if 'b' in x or 'c' in x %}{% endif %}{% endfor %}",
    "lists of ranges": "{% for i in range(99999) %}{{ (range(99999)|list)[0] }}{% endfor %}",
    "blocks of callers": "{% macro f() %}{{ caller() }}{{ caller() }}{% endmacro %}"
    "{% for i in range(99999) %}{% call f() %}" + "x" * 10000 + "{% endcall %}{% endfor %}",
    "a kept block": "{% set y %}{% for i in range(99999) %}" + "x" * 100000 + "{% endfor %}{% endset %}",
    "times": "{{ 'x' * 10**9 }}",
    "times, turned": "{{ 10**9 * 'x' }}",
    "list times": "{{ ([1] * 10**9)|length }}",
    "~": GROWING + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "+": GROWING + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "list in list": GROWING + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "namespace in namespace": "{% set m = namespace(p=1) %}{% for i in range(60) %}"
    "{% set m.p = namespace(a=m.p, b=m.p) %}{% endfor %}{{ m.p }}",
    "slices kept": "{% set x = 'a' * 5000000 %}{% set ns = namespace(l=[]) %}"
    "{% for i in range(90000) %}{% set ns.l = ns.l + [x[1:]] %}{% endfor %}",
    "center": "{{ 'x'|center(1000000000) }}",
    "center of each": "{{ range(99999)|map('center', 100000)|join }}",
    "indent": "{{ ('a\n' * 100000)|indent(100000) }}",
    "replace": LONG_TEXT + "{{ x|replace('a', x) }}",
    "replace nothing": LONG_TEXT + "{{ x.replace('', x) }}",
    "join": LONG_TEXT + "{{ ([x] * 100000)|join }}",
    "join with": LONG_TEXT + "{{ range(99999)|join(x) }}",
    "join, a method": LONG_TEXT + "{{ x.join(range(99999)|map('string')) }}",
    "batch": "{{ [1]|batch(1000000000, 'x')|list }}",
    "slice": "{{ [1]|slice(1000000000)|list }}",
    "tojson": "{{ [[1] * 1000]|tojson(indent=1000000000) }}",
    "sum of lists": "{{ ([[1] * 1000] * 10000)|sum(start=[]) }}",
    "wordwrap": "{{ ('a' * 3000000)|wordwrap(1) }}",
    "ljust": "{{ 'x'.ljust(1000000000) }}",
    "zfill": "{{ 'x'.zfill(1000000000) }}",
    "bytes of a number": "{{ (5).to_bytes(1000000000, 'big') }}",
    "format": "{{ '{:>1000000000}'.format('x') }}",
    "format in format": "{{ '{:>{}}'.format('x', 10**9) }}",
    "format of a long one": "{% set d = {'a': 'x' * 1000000} %}{{ ('{a}' * 100000).format(**d) }}",
    "%": "{{ '%1000000000s' % 'x' }}",
    "% *": "{{ '%*d' % (1000000000, 1) }}",
    "|format": "{{ '%1000000000s'|format('x') }}",
    "a date": "{{ strftime_now('%1000000000Y') }}",
    "power": "{{ 2 ** (2 ** (2 ** (2 ** 5))) }}",
    "product": "{% set ns = namespace(x=7) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
}
FAILING = {
    "{{ 1/0 }}": ZeroDivisionError,
    "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}": RecursionError,
    "{% set ns = namespace(x=1) %}{% set ns.x = ns %}{{ ns }}": RecursionError,
    "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}": RecursionError,
    "{{ range(10**18) }}": OverflowError,
    "{{ ('\\t' * 9).expandtabs(9) }}": Exception,
    "{% for a in [1] %}" * 100 + "{% endfor %}" * 100: SyntaxError,
    "{% include 'other' %}": TypeError,
    "x" * (MAX_SOURCE + 1): TooMuch,
}
SOUND = (
    "{% for m in messages if m.role != 'system' %}{{ loop.index }}/{{ loop.length }}{{ loop.last }}{{ m.role }}"
    "{% else %}none{% endfor %}",
    "{% for a, b in {'x': 1, 'y': 2}.items() %}{{ a ~ b }},{% endfor %}{{ [1, [2, 'z']] ~ (3,) }}",
    "{{ messages[1:]|length }}{{ messages[::-1][0].content }}{{ 'abc'[-2:] }}{{ messages[0]['content'][:2] }}",
    "{% macro f(x, y=2) %}<{{ x * y }}>{% endmacro %}{{ f('ab') }}{{ f(3, 4) }}"
    "{% macro g() %}[{{ caller() }}]{% endmacro %}{% call g() %}q{% endcall %}",
    "{% set ns = namespace(a=0) %}{% for m in messages %}{% set ns.a = ns.a + 1 %}{% if ns.a > 1 %}{% break %}"
    "{% endif %}{% endfor %}{{ ns.a }}",
    "{{ messages|tojson }}{{ messages|tojson(indent=2) }}{{ messages|map(attribute='role')|join(', ') }}",
    "{{ messages[1].content[1].text.strip().upper() }}{{ '%s-%03d' % ('a', 7) }}{{ '{}:{:>4}'.format(1, 'b') }}",
    "{% generation %}{{ messages[2].content.split('</think>')[-1].lstrip('\n') }}{% endgeneration %}",
    "{{ messages|selectattr('role', 'equalto', 'user')|list|length }}{{ 'a,b'.split(',')|join('-') }}",
    "{{ dict(a=1, b=2)|items|list }}{{ undefined_name }}{{ messages[1].content is string }}{{ none }}{{ 7 // 2 }}",
    "{% filter upper %}a{{ 1 + 2 }}{% endfilter %}{% set x %}k{{ 2 ** 5 }}{% endset %}{{ x }}{{ x is mapping }}",
    "{% for i in [1, [2, [3]]] recursive %}{{ i if i is number else loop(i) }}{% endfor %}",
    "  {%- if bos_token %}{{ bos_token }}{% endif %}\n  {% raw %}{{ x }}{% endraw %}\n{# no #}{{ 'a'|indent(3) }}",
    "{{ cycler('a', 'b').next() }}{{ [3, 1, 2]|sort|first }}{{ 'x'|default('y') }}{{ 5 in [5] and 'a' < 'b' }}",
    "{{ ['a', 'b']|batch(3, 'c')|list }}{{ 'a b'|wordwrap(1) }}{{ [1, 2.5]|sum }}{{ 'aXa'|replace('a', 'bb', 1) }}",
)


@pytest.mark.parametrize("name", TOO_MUCH)
def test_what_does_not_end_is_ended(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_budget, "MAX_SECONDS", 0.5)
    before, peak = time.thread_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((TooMuch, OverflowError)):
        render_template(TOO_MUCH[name], {"messages": MESSAGES})
    assert time.thread_time() - before < 10  # the annotation checks of the tests make it ten times slower
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 500_000, "kB"


@pytest.mark.parametrize("source", FAILING, ids=lambda source: source[:30])
def test_what_fails_raises_and_harms_nothing(source: str) -> None:
    with pytest.raises(FAILING[source]):
        render_template(source, {"messages": MESSAGES})
    assert render_template("{{ 1 + 1 }}", {}) == "2"


def test_the_budget_is_that_of_a_chat_and_of_a_thread() -> None:
    source = "{% for i in range(1500) %}{% for j in range(10) %}x{% endfor %}{% endfor %}"
    written: list[str] = []
    threads = [threading.Thread(target=lambda: written.append(render_template(source, {}))) for _ in range(3)]
    for thread in threads:
        thread.start()
    written.append(render_template(source, {}))
    written.append(render_template(source, {}))
    for thread in threads:
        thread.join()
    assert [len(text) for text in written] == [15_000] * 5


def test_a_thread_that_is_stopped_says_so_too() -> None:
    raised: list[Exception] = []

    def render() -> None:
        try:
            render_template(TOO_MUCH["loops in loops"], {})
        except TooMuch as error:
            raised.append(error)

    thread = threading.Thread(target=render)
    thread.start()
    thread.join()
    assert raised


def theirs(source: str, **variables: Any) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    return str(render_jinja_template(conversations=[MESSAGES], chat_template=source, **variables)[0][0])


@pytest.mark.parametrize("source", SOUND)
def test_sound_templates_write_what_transformers_writes(source: str) -> None:
    ours = render_template(source, {"messages": MESSAGES, "tools": None, "documents": None, "bos_token": "<s>"})
    assert ours == theirs(source, bos_token="<s>")


@pytest.mark.parametrize("prompt", [True, False])
def test_published_templates_write_what_transformers_writes(test_data: Path, prompt: bool) -> None:
    folder = test_data / "qwen-tokenizer"
    sources = (
        json.loads((folder / "qwen2_5_vl_7b" / "chat_template.json").read_text())["chat_template"],
        (folder / "qwen3_vl_8b_embedding" / "chat_template.jinja").read_text(),
    )
    for source in sources:
        fixed = {"messages": MESSAGES, "tools": None, "documents": None, "add_generation_prompt": prompt}
        assert render_template(source, fixed) == theirs(source, add_generation_prompt=prompt)


def test_a_long_prompt_is_within_the_bounds(test_data: Path) -> None:
    source = (test_data / "qwen-tokenizer" / "qwen3_vl_8b_embedding" / "chat_template.jinja").read_text()
    long = [{"role": "user", "content": [{"type": "text", "text": "word " * 400_000}]} for _ in range(5)]
    assert len(render_template(source, {"messages": long, "tools": None})) > 10_000_000

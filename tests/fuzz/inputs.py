"""Sound inputs that are spoiled, and the words that unfit texts and templates are put together from."""

from typing import Any

from hypothesis import strategies as st

from tests.fuzz.values import FLOATS, NUMBERS, TEXTS, damaged

SEEDS = st.integers(0, 2**32 - 1)
ANSWER = """<think>
1. A: Image 1 (9/10) - x; Image 2 (6/10) - y
Total score:
Image 1: 9
Image 2: 6
</think>
<answer>Image 1 is better</answer>"""

# fmt: off
_PAIR = {"images": ["a.png", "b.png"]}
_TURNS = [{"from": "human", "value": "<image>\nWhich?"}, {"from": "gpt", "value": ANSWER}]
_PARTS = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which?"}]},
          {"role": "assistant", "content": ANSWER}]
ROWS: tuple[dict[str, Any], ...] = (
    {"id": "a", "problem": "<image><image>Which?", "solution": "Image 1 is better", **_PAIR},
    {"problem": "Which?", "solution": "Image 2 is better", "task": "image_gen", "votes": [2, 1], **_PAIR},
    {"conversations": _TURNS, "image": "a.png"},
    {"system": "Be fair.", "messages": _PARTS, "images": ["a.png"]},
    {"caption": "a cat", "images": ["a.png", {"bytes": None, "path": "b.png"}], "label": 2,
     "scores": {"Aesthetics": [7, 8]}},
    {"question": "What?", "answers": ["a cat", "a dog"], "image": "file://a.png", "label": "tie",
     "history": [{"role": "user", "content": "x"}]},
    {"caption": "a cat", "jpg_0": "a.png", "jpg_1": "b.png", "label_0": 1.0},
    {"prompt": "What?", "chosen": "a cat", "rejected": "a dog", "images": ["a.png"]},
    {"caption": "a cat", "chosen": "c.gif", "rejected": "c.gif", "fps": 8},
    {"caption": "a cat", "videos": ["c.gif", ["a.png", "b.png"]], "fps": [8, None], "label": 1,
     "context_videos": 0, "meta": {"provenance": "x"}},
)
REPLY: dict[str, Any] = {
    "id": "c", "object": "chat.completion", "created": 0, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {
        "role": "assistant", "content": ANSWER, "reasoning_content": "thoughts", "refusal": None}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
}
STORED_REPLY = {
    "id": "a", "request": "0", "text": ANSWER, "error": None, "model": "m", "finish_reason": "stop",
    "prompt_tokens": 1, "completion_tokens": 1, "latency_s": 0.5, "attempts": 1,
}
KNOBS = (
    "seed=3", "steps=4", "loss='dapo'", "clip_high=0.3", "delta=2.0", "workers=0",
    "data.media_root='here'",
    "sampling.stop=('a',)", "sampling.temperature=1.0", "data.path='scenes'", "data.count=7", "data.fps=2.0",
    "data.tasks.image_gen=1.0", "model.path='urt-tiny'", "model.trainable=('^decoder/',)", "model.lora.rank=4",
    "optimizer.learning_rate=1e-3", "mesh.data=1", "rewards.user=()", "lengths.max_new_tokens=64",
    "pixels.max_pixels=3136",
)
CHAT_TEMPLATES = (
    "{{ messages }}", "{% for m in messages %}", "{% endfor %}", "{{ m.content }}", "{% if %}", "text", "<think>",
    "{{ 1/0 }}", "{{ a.b.c }}", "{{ messages[9].x }}", "{{ raise_exception('no') }}", "{{ ''.__class__ }}",
    "{% include 'a' %}", "{{ 'x' * 10**9 }}", "{{ 10**10**8 }}", "{{ [[1]] * 10**9 }}", "{{ (1,) * 10**9 }}",
    "{{ range(10**12)|list }}", "{{ 'x'|center(10**9) }}", "{{ messages|tojson(indent=10**9) }}",
    "{{ '%999999999d' % 1 }}", "{{ 'x'|wordwrap(0) }}", "{{ '{:>999999999}'.format(1) }}",
    "{{ ['a'] | batch(0) | list }}", "{{ 'a'.replace('', 'b' * 10**5) }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "{% set x = [0] %}{{ x.append(x) }}{{ x }}",
)
WORDINGS = (
    "{caption}", "{question}", "{0.x}", "{", "}", "{{", "{caption!r:>99999999}", "\ud83d", "<image>", "\0", "words",
)
_SAID = (
    "<think>", "</think>", "<answer>", "</answer>", "Image 1", "Video 2 (7/10)", "(9/10)", "(٣/10)", "1. A:", ":", "(",
    "\n", "Total score:", "Image 1: 9+9=18", "+" * 50, "9" * 400, "1e9/10", "is better", "\ud83d", "\0", " " * 200,
    "**", "²",
)
# fmt: on


def joined(parts: tuple[str, ...], most: int) -> st.SearchStrategy[str]:
    """Return a strategy of texts of up to ``most`` of the parts."""
    return st.lists(st.sampled_from(parts), min_size=1, max_size=most).map("".join)


@st.composite
def judge_texts(draw: st.DrawFn) -> str:
    """Return what a judge may write."""
    if draw(st.booleans()):
        return damaged(ANSWER.encode(), draw(SEEDS)).decode("utf-8", "replace")
    return "".join(draw(st.lists(st.one_of(st.sampled_from(_SAID), st.text(max_size=8)), max_size=40)))


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Return arguments of the command line, one or two of them spoiled."""
    values = st.one_of(
        st.sampled_from(TEXTS),
        st.sampled_from(FLOATS).map(str),
        st.sampled_from(NUMBERS[:-1]).map(str),
        st.sampled_from(("1e400", "9" * 5000, "((((", "[1,", "{'a'", "(1,2)", "True", "None", "\udcff", "['a']")),
    )
    chosen = draw(st.lists(st.sampled_from(KNOBS), min_size=1, max_size=3))
    given = ["--config=configs/grpo.py", "--workdir=w", *(f"--config.{knob}" for knob in chosen)]
    for n in draw(st.lists(st.integers(-1, len(given) - 1), min_size=1, max_size=2)):
        place = n if n >= 0 else draw(st.integers(2, len(given) - 1))
        name, _, value = given[place].partition("=")
        spoilt = (
            lambda word, name=name: f"{name}={word}",
            lambda word, name=name, value=value: f"{name}.{word}={value}",
            lambda word: word,
        )
        given[place] = draw(values.map(spoilt[max(draw(st.integers(-7, 2)), 0)]))
    return given

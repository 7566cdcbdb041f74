"""What is put in the place of a sound value, and how bytes are damaged."""

import json
import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

# fmt: off
NUMBERS = (0, -1, 1, 2, 7, 2**31, 2**63, -(2**63), 10**9, 10**18, 10**400)
FLOATS = (0.5, -0.5, 1e-7, 1e300, 5e-324, float("nan"), float("inf"), float("-inf"))
TEXTS = (
    "", " ", "None", "null", "NaN", "1e999", "0", "1", "tie", "yes", "a \ud83d", "\udc00", "a\0b", "\ufeff", "\u2028",
    "x" * 300, "a" * 5000, "<image>", "<video>", "<img>", "<|image_pad|>", "<|im_end|>", "<|im_start|>", "<think>",
    "</answer>", "Image 0 is better", "Image 1 is better", "Video 2 is better", "Answer 2 is better",
    "Image 99 is better", "/dev/zero", "/dev/stdin", "../..", ".", "~", "file:///dev/zero", "file://a b",
    "http://a/b.png", "data:image/png;base64,AAAA", "data:,", "data:image/png;base64,%%%",
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAf", "{0.__class__}", "{caption!r:>999999999}", "{", "}", "{{ 1/0 }}",
    "{% for i in range(10**9) %}{% endfor %}", "(a+)+$", "*q_proj", "(", "[", "\\", "yarn", "gelu", "grid", "all",
    "first:-1", "random:101%", "end:1e9",
)
# fmt: on


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value below a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from paths(item, (*path, key))


def junk() -> st.SearchStrategy[Any]:
    """Return a strategy of values of every kind that JSON has, mostly unfit ones."""
    leaves = st.one_of(
        st.none(), st.booleans(), st.sampled_from(NUMBERS), st.sampled_from(FLOATS), st.sampled_from(TEXTS)
    )
    small = st.one_of(st.lists(leaves, max_size=4), st.dictionaries(st.sampled_from(TEXTS), leaves, max_size=3))
    return st.one_of(leaves, leaves, leaves, small, st.just("NESTED"))


@st.composite
def spoiled(draw: st.DrawFn, bases: tuple[Any, ...]) -> Any:
    """Return one of the documents with up to three of its values replaced, taken out or put into a list."""
    document = {"root": deepcopy(draw(st.sampled_from(bases)))}
    for _ in range(draw(st.integers(1, 3))):
        places = list(paths(document))
        if not places:
            break
        # The document itself is replaced now and then, its values mostly.
        *above, last = draw(st.sampled_from(places[1:] or places) if draw(st.integers(0, 15)) else st.just(places[0]))
        holder = document
        for key in above:
            holder = holder[key]
        match draw(st.integers(0, 7)):
            case 0 if above:
                holder.pop(last)
            case 1:
                holder[last] = [holder[last]]
            case _:
                holder[last] = draw(junk())
    return document.get("root")


@st.composite
def spoiled_json(draw: st.DrawFn, bases: tuple[Any, ...]) -> bytes:
    """Return the JSON bytes of a spoiled document, now and then damaged as bytes too."""
    text = json.dumps(draw(spoiled(bases))).replace('"NESTED"', "[" * 3000 + "]" * 3000)
    match draw(st.integers(0, 9)):
        case 0:
            return damaged(text.encode(), draw(st.integers(0, 2**32)))
        case 1:
            return text.replace("{", '{"id": 1, "id": 2, ', 1).encode()
        case 2:
            return b"\xef\xbb\xbf" + text.encode()
    return text.encode()


def damaged(data: bytes, seed: int) -> bytes:
    """Return bytes with flipped bits, overwritten numbers, cuts or repeated parts, drawn from the seed."""
    rng = random.Random(seed)
    held = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(held)) if held else 0
        match rng.randrange(7):
            case 0 | 1:
                for _ in range(rng.choice((1, 4))):
                    held[place % max(len(held), 1)] ^= 1 << rng.randrange(8)
            case 2:
                held[place : place + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"))
            case 3:
                held = held[:place]
            case 4:
                held[place:place] = held[place : place + rng.randrange(64)]
            case 5:
                held[place:place] = rng.randbytes(rng.choice((1, 16)))
            case 6:
                del held[place : place + rng.choice((1, 4, 64))]
        held = held or bytearray(b"\0")
    return bytes(held)

"""Read the verdict, the scores and the totals out of a written judgement; nothing is guessed.

The form is fixed::

    <think>
    (observations, free)
    1. Aesthetics: Image 1 (9/10) - why; Image 2 (7/10) - why        one line per dimension (v1), or a block (v2):
                                                                     1. Aesthetics:
    Total score:                                                         Image 1 (9/10) - why;
    Image 1: 9=9                                                         Image 2 (7/10) - why
    Image 2: 7=7
    </think>
    <answer>Image 1 is better</answer>

Only the tags decide whether there is a verdict; scores and totals are read where they are well formed. Every pass over
the text is linear in its length, whatever a model may write.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

END_TOKENS = ("<|im_end|>", "<|endoftext|>")
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_NUMBER_WORDS = {2: "two", 3: "three", 4: "four"}
_LABELS = {f"{noun} {place} is better": place for noun in ("Image", "Video", "Answer") for place in (1, 2)}
_TIES = frozenset(f"Both {nouns} are equally good" for nouns in ("images", "videos", "answers"))

# No two neighbouring repetitions match the same character, so that nothing backtracks twice over a line.
_DIMENSION = re.compile(r"[ \t]*\d{1,3}\.([^:]+):(.*)")
_SCORE = re.compile(r"\b(?:Image|Video|Answer) ([12]) \((\d{1,2}(?:\.\d{1,4})?)/10\)")
_TOTAL = re.compile(r"[ \t]*(?:Image|Video|Answer) ([12]):([0-9.+ \t]*)=[ \t]*(\d{1,6}(?:\.\d{1,4})?)[ \t]*")
_TOTALS_HEAD = "total score:"


@dataclass(frozen=True)
class Verdict:
    """What a judgement says; ``winner is None`` exactly when ``failure`` says why."""

    winner: int | str | None  # 1, 2, "tie", or None
    scores: dict[str, tuple[float, float]]  # {dimension: (candidate 1, candidate 2)}
    totals: tuple[float, float] | None  # as written in the text, right or wrong
    margin: float | None  # totals[0] - totals[1]
    reasoning: str  # what stands inside <think>, also when the rest is broken
    text: str
    failure: str | None


class WrittenTotal(NamedTuple):
    """One line of totals: ``Image 1: 9+8=17`` is ``((9, 8), 17)``; addends that are no numbers are None."""

    addends: tuple[float, ...] | None
    total: float


def parse(text: str, *, think: bool = True) -> Verdict:
    """Read one judgement in the strict form.

    Whitespace around the text and end tokens after it are dropped first. Then exactly one of each tag, only whitespace
    between ``</think>`` and ``<answer>``, nothing outside, and a label that is exact after stripping. ``think=False``
    also takes a bare ``<answer>..</answer>``. Never raises; ``failure`` names the first thing that is wrong.
    """
    body = strip_ends(text)
    bare = not think and "<think>" not in body and "</think>" not in body
    failure = _form_failure(body, _TAGS[2:] if bare else _TAGS)
    winner: int | str | None = None
    if failure is None:
        label = body[body.index("<answer>") + len("<answer>") : -len("</answer>")].strip()
        winner = "tie" if label in _TIES else _LABELS.get(label)
        if winner is None:
            failure = f"answer is not one of 'Image|Video|Answer 1|2 is better': {label[:60]!r}"
    reasoning = read_reasoning(body)
    written = read_totals(reasoning)
    totals = (written[1].total, written[2].total) if len(written) == 2 else None
    margin = None if totals is None else totals[0] - totals[1]
    return Verdict(winner, read_scores(reasoning), totals, margin, reasoning, text, failure)


def strip_ends(text: str) -> str:
    """Drop whitespace at both ends and any run of end tokens at the end."""
    end = len(text)
    while True:
        while end and text[end - 1].isspace():
            end -= 1
        token = next((token for token in END_TOKENS if text.endswith(token, 0, end)), None)
        if token is None:
            return text[:end].lstrip()
        end -= len(token)


def _form_failure(body: str, tags: tuple[str, ...]) -> str | None:
    """Return why the tags are not ``tags`` once each, in order, with only whitespace around and between the parts."""
    for tag in tags:
        count = body.count(tag)
        if count != 1:
            return f"no {tag}" if count == 0 else f"{_NUMBER_WORDS.get(count, count)} {tag} tags"
    places = [body.index(tag) for tag in tags]
    if places != sorted(places):
        return f"tags out of order: {' '.join(sorted(tags, key=body.index))}"
    if places[0] != 0:
        return f"text before {tags[0]}"
    if len(tags) == 4 and body[places[1] + len("</think>") : places[2]].strip():
        return "text between </think> and <answer>"
    return None if body.endswith("</answer>") else "text after </answer>"


def read_reasoning(text: str) -> str:
    """Return what follows the first ``<think>`` up to its end, however broken the rest is; "" without the tag."""
    _, _, after = text.partition("<think>")
    for closing in ("</think>", "<answer>"):
        after = after.partition(closing)[0]
    return after.strip()


def read_scores(reasoning: str) -> dict[str, tuple[float, float]]:
    """Return ``{dimension: (candidate 1, candidate 2)}`` of the numbered lines or blocks before the totals.

    Within a dimension the first score of each candidate counts, in either order. A dimension that lacks one, or has a
    score above 10, is left out; of two with the same name the first counts.
    """
    scores: dict[str, tuple[float, float]] = {}
    name, found = "", dict[str, float]()
    for line in reasoning.splitlines():
        if line.strip().lower() == _TOTALS_HEAD:
            break
        head = _DIMENSION.fullmatch(line)
        if head:
            name, found, line = head[1].strip(), {}, head[2]
        if not name:
            continue
        for place, score in _SCORE.findall(line):
            found.setdefault(place, float(score))
        if len(found) == 2 and max(found.values()) <= 10:
            scores.setdefault(name, (found["1"], found["2"]))
    return scores


def read_totals(reasoning: str) -> dict[int, WrittenTotal]:
    """Return ``{candidate: what is written}`` after ``Total score:``; the first line of each candidate counts."""
    totals: dict[int, WrittenTotal] = {}
    lines = iter(reasoning.splitlines())
    if not any(line.strip().lower() == _TOTALS_HEAD for line in lines):
        return totals
    for line in lines:
        match = _TOTAL.fullmatch(line)
        if match:
            totals.setdefault(int(match[1]), WrittenTotal(_addends(match[2]), float(match[3])))
    return totals


def _addends(written: str) -> tuple[float, ...] | None:
    try:
        return tuple(float(part) for part in written.split("+"))
    except ValueError:
        return None

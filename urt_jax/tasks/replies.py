"""Parse the verdict, the scores and the totals of a written judgement; nothing is guessed.

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

Only the tags and the label decide whether there is a verdict; scores and totals are read where they are well formed.
Every pass over the text is linear in its length, whatever a model writes.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from urt_jax.tasks.labels import LABELS, NOUNS, TIES, noun_of

END_TOKENS = ("<|im_end|>", "<|endoftext|>")
WRONG_NOUN = "wrong noun"  # start of the failure if the label belongs to another task
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_NUMBER_WORDS = {2: "two", 3: "three", 4: "four"}
_ANY_NOUN = "|".join(NOUNS)

# No two adjacent repetitions match the same character, so that no pattern backtracks twice over a line.
_NUMBERED = re.compile(r"[ \t#*]*(?:[0-9]{1,3}[.)]|\([0-9]{1,3}\))")
_SCORE = re.compile(
    r"\b(?:" + _ANY_NOUN + r") ([12])[ *]{0,3}[(:][ *(:]{0,4}([0-9]{1,2}(?:\.[0-9]{1,4})?) {0,2}/ {0,2}10\b"
)
_TOTAL = re.compile(
    r"[ \t*-]*(?:" + _ANY_NOUN + r") ([12])\*{0,3}:\*{0,3}([0-9.+ \t]*)=[ \t]*([0-9]{1,6}(?:\.[0-9]{1,4})?)[ \t*]*"
)
_AROUND = " \t*_#-"  # what Markdown puts around a name
_TOTALS_HEAD = "total score:"


@dataclass(frozen=True)
class Verdict:
    """A parsed judgement; of a comparison, ``winner`` is None exactly if ``failure`` is not. Scores name no winner."""

    winner: int | str | None  # 1, 2, "tie", or None
    scores: Mapping[str, tuple[float, ...]]  # {dimension: (candidate 1, candidate 2)}, or (score,) of a single one
    totals: tuple[float, float] | None  # as written in the text, right or wrong
    margin: float | None  # totals[0] - totals[1]
    reasoning: str  # the text inside <think>, even if the rest is malformed
    text: str
    failure: str | None


class WrittenTotal(NamedTuple):
    """One line of totals: ``Image 1: 9+8=17`` is ``((9, 8), 17)``; ``addends`` is None if they are not numbers."""

    addends: tuple[float, ...] | None
    total: float


def parse(text: str, *, think: bool = True, noun: str | None = None) -> Verdict:
    """Parse one judgement in the strict form; ``noun`` is the task's noun for candidates ("Image", "Video", "Answer").

    Whitespace around the text and end tokens after it are dropped first. The rest must have exactly one of each tag,
    only whitespace between ``</think>`` and ``<answer>``, nothing outside, and a label that is exact after stripping.
    ``think=False`` also accepts a bare ``<answer>..</answer>``. The label of another task (clips called images) is a
    failure. Never raises; ``failure`` names the first fault.
    """
    label, reasoning, failure = read_answer(text, think=think)
    winner: int | str | None = None
    if failure is None:
        winner = "tie" if label in TIES else LABELS.get(label)
        if winner is None:
            failure = f"answer is not one of '{noun or _ANY_NOUN} 1|2 is better': {label[:60]!r}"
        elif noun is not None and noun_of(label) != noun:
            winner, failure = None, f"{WRONG_NOUN}: {label!r} where candidates are called {noun}"
    written = read_totals(reasoning)
    totals = (written[1].total, written[2].total) if len(written) == 2 else None
    margin = None if totals is None else totals[0] - totals[1]
    return Verdict(winner, read_scores(reasoning), totals, margin, reasoning, text, failure)


class Answer(NamedTuple):
    """The parts of a reply: the text inside ``<answer>`` and ``<think>``, and what breaks the strict form, if any."""

    content: str
    reasoning: str
    failure: str | None


def read_answer(text: str, *, think: bool) -> Answer:
    """Take a reply in the strict form apart, whatever its answer says; see ``parse`` for the form. Never raises."""
    body = strip_ends(text)
    bare = not think and "<think>" not in body and "</think>" not in body
    failure = _form_failure(body, _TAGS[2:] if bare else _TAGS)
    content = "" if failure else body[body.index("<answer>") + len("<answer>") : -len("</answer>")].strip()
    return Answer(content, read_reasoning(body), failure)


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
    """Return what breaks the form: each of ``tags`` once, in order, only whitespace around and between the parts."""
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
    """Return the text from the first ``<think>`` to its end tag, however malformed the rest is; "" without the tag."""
    _, _, after = text.partition("<think>")
    for closing in ("</think>", "<answer>"):
        after = after.partition(closing)[0]
    return after.strip()


def read_scores(reasoning: str) -> dict[str, tuple[float, float]]:
    """Return ``{dimension: (candidate 1, candidate 2)}`` of the lines or blocks before the totals.

    A dimension starts with a number ("1. Aesthetics: ..."), or without one if no started dimension still lacks a score.
    Its name ends at the first colon. If a name repeats, the later dimension is named by all text before its scores, or
    gets a number. Within a dimension the first score of each candidate counts, in either order. A dimension that lacks
    a score, or has one above 10, is left out.
    """
    scores: dict[str, tuple[float, float]] = {}
    times = Counter[str]()
    names, found = ("", ""), dict[str, float]()
    for line in reasoning.splitlines():
        if line.strip(_AROUND).lower() == _TOTALS_HEAD:
            break
        head = _head_of(line)
        if head is not None and (_NUMBERED.match(line) or len(found) != 1):
            names, found = head, {}
        if not names[0]:
            continue
        open_before = len(found) < 2
        for match in _SCORE.finditer(line):
            found.setdefault(match[1], float(match[2]))
        if open_before and len(found) == 2 and max(found.values()) <= 10:
            scores[_unused(names, scores, times)] = (found["1"], found["2"])
    return scores


def _head_of(line: str) -> tuple[str, str] | None:
    """Return a line's dimension name, cut at its first colon and at its scores; None if it names no dimension."""
    first = _SCORE.search(line)
    before = line if first is None else line[: first.start()]
    numbered = _NUMBERED.match(before)
    if numbered is None and first is None and not before.rstrip(_AROUND).endswith(":"):
        return None
    after = before[numbered.end() if numbered else 0 :]
    words, colon, _ = after.rpartition(":")
    if not colon or (first is None and numbered is not None):  # head of a block: the text after the colon is a remark
        words, colon, _ = after.partition(":")
    if not colon and (numbered is None or first is None):
        return None
    name = words.strip(_AROUND)
    return (name.partition(":")[0].strip(_AROUND), name) if name else None


def _unused(names: tuple[str, str], taken: dict[str, tuple[float, float]], times: Counter[str]) -> str:
    """Return the first of the names that no earlier dimension has, or the longer one with a number."""
    short, long = names
    if short not in taken or long not in taken:
        return short if short not in taken else long
    times[long] = max(times[long], 1)
    while True:  # each number is tried once, so that a thousand dimensions of one name take linear time
        times[long] += 1
        if (name := f"{long} ({times[long]})") not in taken:
            return name


def read_totals(reasoning: str) -> dict[int, WrittenTotal]:
    """Return ``{candidate: written total}`` after ``Total score:``; the first line of each candidate counts."""
    totals: dict[int, WrittenTotal] = {}
    lines = iter(reasoning.splitlines())
    if not any(line.strip(_AROUND).lower() == _TOTALS_HEAD for line in lines):
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

"""Forms of written judgements, read leniently: of the UnifiedReward family's checkpoints and of benchmarks' judges.

The strict form of ``replies.parse`` is what a reward asks for. These forms read what others wrote: each is one function
of a text, and refuses with a reason what it cannot read. Every pass over a text is linear in its length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from urt_jax.errors import BadInputError, unknown_choice
from urt_jax.files.fields import Fields
from urt_jax.files.json_text import JsonError, parse_object
from urt_jax.tasks.labels import NOUNS
from urt_jax.tasks.replies import parse, read_reasoning, read_scores, read_totals, strip_ends

_NOUN = "|".join(NOUNS)
_PLURAL = "|".join(f"{noun.lower()}s" for noun in NOUNS)
_NUMBER = r"[0-9]{1,4}(?:\.[0-9]{1,4})?"
_SENTENCE = re.compile(rf"\b(?:{_NOUN}) ([12]) is better\b|\bBoth (?:{_PLURAL}) are equally good\b")
_FINAL = re.compile(rf"Final Score: ?({_NUMBER})")
_ELEMENT = re.compile(r"^[ \t]*([^\s:][^:\n]{0,80}) \(([a-z][a-z ]{0,30})\): ?([01])[ \t]*$", re.MULTILINE)
_AXIS = re.compile(
    rf"^[ 	*]*([A-Z][A-Za-z ]{{2,30}}) Score \(([0-9]{{1,3}})-([0-9]{{1,3}})\)[: *]{{1,4}}({_NUMBER})", re.MULTILINE
)
_SIDES = re.compile(
    rf"^[ \t*-]*([A-Z][A-Za-z ]{{2,40}})[: *]{{1,4}}(?:(?:{_NOUN}) 1[: ]{{1,2}})?({_NUMBER})[,;/ ]{{1,3}}"
    rf"(?:(?:{_NOUN}) 2[: ]{{1,2}})?({_NUMBER})[ \t]*$",
    re.MULTILINE,
)
_LETTERS = re.compile(r"\[\[([ABC]|A>{1,2}B|B>{1,2}A|A<{1,2}B|A=B)\]\]")
_OVERALL = re.compile(
    rf"Overall Judgment:[ 	*]{{0,4}}((?:{_NOUN}) ([12]) is better|Both (?:{_PLURAL}) are equally good|[Tt]ie)"
)
_OF_LETTERS: dict[str, int | str] = {
    "A": 1, "B": 2, "C": "tie", "A=B": "tie", "A>B": 1, "A>>B": 1, "B>A": 2, "B>>A": 2, "A<B": 2, "A<<B": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """What a text says: a winner, or scores of each candidate by axis, or both; after a ``failure`` nothing."""

    winner: int | str | None = None  # 1, 2, "tie"
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # {axis: a number per candidate}
    totals: tuple[float, ...] | None = None
    reasoning: str = ""
    failure: str | None = None


Form = Callable[[str], Reading]


def read_form(name: str, text: str) -> Reading:
    """Read a text in the form of this name.

    Raises:
        BadInputError: there is no such form.
    """
    if name not in FORMS:
        raise BadInputError(f"reply form {unknown_choice(name, list(FORMS))}")
    return FORMS[name](text)


def _failed(why: str) -> Reading:
    return Reading(failure=why)


def read_think(text: str) -> Reading:
    """Read the strict form of a comparison, ``replies.parse``."""
    verdict = parse(text)
    if verdict.failure:
        return _failed(verdict.failure)
    return Reading(verdict.winner, verdict.scores, verdict.totals, verdict.reasoning)


def read_think_leniently(text: str) -> Reading:
    """Read reasoning with an answer: the last ``<answer>`` counts, its label may end with a full stop.

    The opening ``<think>`` may have been written by the chat template, and text may follow the answer.
    """
    body = strip_ends(text)
    if "</think>" in body and "<think>" not in body:
        body = f"<think>{body}"
    start = body.rfind("<answer>")
    if start < 0:
        return _failed("no <answer>")
    answer = body[start + len("<answer>") :].partition("</answer>")[0].strip()
    winner = _said(answer)
    if winner is None:
        return _failed(f"answer is no verdict: {answer[:60]!r}")
    reasoning = read_reasoning(body)
    totals = read_totals(reasoning)
    both = (totals[1].total, totals[2].total) if len(totals) == 2 else None
    return Reading(winner, read_scores(reasoning), both, reasoning)


def _said(answer: str) -> int | str | None:
    """Return the verdict of one sentence, with or without "than Image 2" and a full stop."""
    found = _SENTENCE.match(answer)
    rest = "" if found is None else re.sub(rf"^ than (?:{_NOUN}) [12]", "", answer[found.end() :]).strip(" .")
    return None if found is None or rest else _side(found)


def _side(found: re.Match[str]) -> int | str:
    return int(found[1]) if found[1] else "tie"


def read_sentence(text: str) -> Reading:
    """Read a direct verdict: the reply starts with "Image 1 is better than Image 2.", or with a tie; reasons follow.

    A reply that gives several different verdicts is refused.
    """
    body = strip_ends(text)
    found = _SENTENCE.match(body)
    if found is None:
        return _failed(f"the reply starts with no verdict: {body[:60]!r}")
    said = {_side(one) for one in _SENTENCE.finditer(body)}
    if len(said) > 1:
        return _failed(f"{len(said)} different verdicts")
    return Reading(_side(found), reasoning=body[found.end() :].strip(" .\n"))


def read_final_score(text: str) -> Reading:
    """Read "Final Score: 3.67" of one candidate, and the lines "element (type): 0" or 1 before it."""
    found = set(_FINAL.findall(text))
    if len(found) != 1:
        return _failed(f"{len(found)} different final scores")
    elements = {f"{name} ({kind})": (float(score),) for name, kind, score in _ELEMENT.findall(text)}
    final = float(found.pop())
    return Reading(scores={**elements, "Final": (final,)}, totals=(final,))


def read_axis_scores(text: str) -> Reading:
    """Read lines "Alignment Score (1-5): 2.69" of one candidate; each score lies in the range that its line states."""
    scores: dict[str, tuple[float, ...]] = {}
    for name, low, high, score in _AXIS.findall(text):
        if not float(low) <= float(score) <= float(high):
            return _failed(f"{name} is {score}, outside {low} to {high}")
        if name in scores and scores[name] != (float(score),):
            return _failed(f"{name} has different scores")
        scores[name] = (float(score),)
    return Reading(scores=scores) if scores else _failed("no line 'Axis Score (1-5): x'")


def read_pair_scores(text: str) -> Reading:
    """Read two scores a dimension that sum to 1, one of each candidate; the higher sum wins."""
    scores = {name.strip(): (float(a), float(b)) for name, a, b in _SIDES.findall(text)}
    if not scores:
        return _failed("no line 'Dimension: x, y'")
    odd = next((name for name, pair in scores.items() if abs(sum(pair) - 1) > 0.011), None)
    if odd is not None:
        return _failed(f"the scores of {odd} do not sum to 1")
    return _summed(scores)


def _summed(scores: Mapping[str, tuple[float, float]]) -> Reading:
    first, second = (round(sum(column), 6) for column in zip(*scores.values()))
    winner: int | str = "tie" if first == second else 1 if first > second else 2
    return Reading(winner, scores, (first, second))


def _object(text: str) -> Fields | str:
    """Return the JSON object in a text, or why there is none."""
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        return "no JSON object"
    try:
        return Fields(parse_object(text[start : end + 1].encode(errors="replace")), "the reply")
    except JsonError as error:
        return f"its JSON cannot be read: {error}"


def read_edit_scores(text: str) -> Reading:
    """Read JSON with ``score`` as [instruction, quality] of one edit, each from 0 to 25."""
    found = _object(text)
    if isinstance(found, str):
        return _failed(found)
    try:
        given = found.numbers("score", size=2, at_least=0, at_most=25)
        reasoning = found.text("reasoning", "")
    except BadInputError as error:
        return _failed(str(error))
    return Reading(scores={"instruction": given[:1], "quality": given[1:]}, totals=(sum(given),), reasoning=reasoning)


def read_flex(text: str) -> Reading:
    """Read JSON with categories of dimensions, whose two scores sum to 10, and a winner."""
    found = _object(text)
    if isinstance(found, str):
        return _failed(found)
    try:
        return _read_flex(found)
    except BadInputError as error:
        return _failed(str(error))


def _read_flex(found: Fields) -> Reading:
    scores: dict[str, tuple[float, float]] = {}
    categories = found.items_of("categories", at_least=1, at_most=64)
    for category in map(categories.group, categories):
        dims = category.items_of("dims", at_most=64)
        for one in map(dims.group, dims):
            name = one.text("name")
            scores[name] = (
                one.number("score_1", at_least=0, at_most=10),
                one.number("score_2", at_least=0, at_most=10),
            )
            if abs(sum(scores[name]) - 10) > 0.011:
                return _failed(f"the scores of {name} do not sum to 10")
    named: Any = re.fullmatch(rf"(?:(?:{_NOUN}) )?([12]|[Tt]ie)", str(found.get("winner")).strip())
    if named is None:
        return _failed(f"winner is {str(found.get('winner'))[:60]!r}")
    winner: int | str = "tie" if named[1].lower() == "tie" else int(named[1])
    sums = tuple(round(sum(column), 6) for column in zip(*scores.values())) if scores else None
    return Reading(winner, scores, sums)


def read_letters(text: str) -> Reading:
    """Read [[A]], [[B]], [[C]] (a tie), or [[A>B]], [[A=B]], [[B>A]]; different ones are refused."""
    found = {_OF_LETTERS[letters] for letters in _LETTERS.findall(text)}
    if len(found) != 1:
        return _failed("no [[A]] or [[B]]" if not found else f"{len(found)} different verdicts")
    return Reading(found.pop())


def read_overall(text: str) -> Reading:
    """Read "Overall Judgment: Answer 1 is better", or a tie; the last one counts."""
    found = _OVERALL.findall(text)
    if not found:
        return _failed("no 'Overall Judgment:' with a verdict")
    return Reading(int(found[-1][1]) if found[-1][1] else "tie")


FORMS: dict[str, Form] = {
    "think": read_think,
    "think_lenient": read_think_leniently,
    "sentence": read_sentence,
    "final_score": read_final_score,
    "axis_scores": read_axis_scores,
    "pair_scores": read_pair_scores,
    "edit_scores": read_edit_scores,
    "flex": read_flex,
    "letters": read_letters,
    "overall_judgment": read_overall,
}

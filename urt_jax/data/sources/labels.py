"""Labels of records in all their spellings, counted from 0 or from 1."""

from __future__ import annotations

import re
from typing import Any, Literal

from urt_jax.data.sources.files import RecordError
from urt_jax.data.sources.words import Words
from urt_jax.errors import BadInputError, shown
from urt_jax.files.fields import Fields
from urt_jax.tasks import TASKS

MAX_VOTES = 1e9  # for one candidate; no survey has more voters
MAX_RANK = 4096
LABEL_FIELDS = ("solution", "jpg_0", "jpg_1", "label_0", "label_1", "label", "has_label", "votes", "ranking")
# Fields of other layouts that say which candidate is better: an error where they would be left unread.
UNREAD_LABELS = frozenset(
    (
        "best", "better", "gold", "ground_truth", "gt", "human_preference", "human_ranking", "preference", "preferred",
        "rank", "ranks", "ranking_scores", "rating", "ratings", "score", "score_1", "score_2", "score_a", "score_b",
        "verdict", "vote", "vote_type", "winner",
    )
)  # fmt: skip
_VERDICT = re.compile(r"(Image|Video|Answer) ([0-9]{1,6}) is better")
_FROM_ZERO = re.compile(r"(?:Image|Video|Answer) 0+ is better")


def check_first_label(fields: Fields, first: int) -> None:
    """Refuse the whole source if its labels count from 0 although the setting says 1.

    Raises:
        BadInputError: ``label`` is 0, or ``solution`` names candidate 0.
    """
    label = fields.get("label")
    if first == 0:
        return
    if isinstance(label, int | float) and not isinstance(label, bool) and label == 0:
        found = f"label {label}"
    elif isinstance(solution := fields.get("solution"), str) and _FROM_ZERO.fullmatch(solution.strip()):
        found = f"solution {solution.strip()!r}"
    else:
        return
    raise BadInputError(
        f"{fields.where}: {found}, but labels count from 1 (1 = the first candidate, 2 = the second). Where this "
        "source counts from 0 set data.first_label=0 (first_label: 0 at its entry of a mixture), then 0 and 1 are read "
        "as 1 and 2; as it is, the whole source is refused, since its labels 1 would be read for the other candidate"
    )


def check_words_count_from_one(asked: str, response: str, where: str) -> None:
    """Refuse the whole source if its own prompts or responses count candidates from 0.

    Raises:
        BadInputError: "Image 0 is better" in the prompt, or as the answer of the response to learn.
    """
    if " 0" not in asked and " 0" not in response:
        return
    said = last_answer(response) if " 0" in response else None
    found = _FROM_ZERO.search(asked) or (None if said is None else _FROM_ZERO.fullmatch(said))
    if found:
        raise BadInputError(
            f"{where}: its own words say {found.group()!r}, but prompts and replies count candidates from 1 "
            "whatever data.first_label is; rewrite them, or give caption, or question and answers, so that a template "
            "asks. The whole source is refused, since its other labels would be read for the other candidate"
        )


def verdict_of(fields: Fields, words: Words) -> re.Match[str] | None:
    """Return the match of the decided answer: the record's solution, else the last answer of its response."""
    solution = fields.get("solution")
    if solution is not None:
        return _VERDICT.fullmatch(solution.strip()) if isinstance(solution, str) else None
    said = last_answer(words.response) if words.response else None
    return None if said is None else _VERDICT.fullmatch(said)


def last_answer(reply: str) -> str | None:
    """Return the text of the last ``<answer>`` that is closed, None without one; linear in the reply's length."""
    end = reply.rfind("</answer>")
    start = reply.rfind("<answer>", 0, max(end, 0))
    return reply[start + len("<answer>") : end].strip() if start >= 0 else None


def read_label(
    fields: Fields, verdict: re.Match[str] | None, task: str | None, first: int
) -> int | Literal["tie"] | None:
    """Return the winner (from 1), "tie", or None if the record has no label.

    Of an open question and of a single candidate there is none. ``verdict`` is the result of ``verdict_of``. ``first``
    is the number of the first candidate in ``label`` and ``solution``; a written response counts from 1.

    Raises:
        RecordError: a label of another form, an impossible one, or two that differ.
    """
    if task is not None and not TASKS[task].compares:
        return None
    given = _given_label(fields, first)
    solved = _solved_label(fields, verdict, task, first)
    if given is not None and solved is not None and "solution" in fields and given != solved:
        raise _bad(fields, f"label {shown(fields['label'])} and solution {shown(fields['solution'])} differ; keep one")
    if given is not None or solved is not None:
        return given if given is not None else solved
    if fields.get("has_label") is False:  # Pick-a-Pic: not labelled
        return None
    if "label_0" in fields or "label_1" in fields:
        return _shared_label(fields)
    return 1 if "chosen" in fields or "jpg_0" in fields else None


def read_ranking(
    fields: Fields, candidates: int, label: int | Literal["tie"] | None
) -> tuple[tuple[int, ...] | None, int | Literal["tie"] | None]:
    """Return the rank of each candidate, 1 = best, and the label, which of a pair follows from the ranks.

    Raises:
        RecordError: not one rank per candidate, or a label that contradicts them.
    """
    ranking: tuple[int, ...] | None = fields.integers("ranking", None, size=candidates, at_least=1, at_most=MAX_RANK)
    if ranking is None:
        return None, label
    best = [place for place, rank in enumerate(ranking, start=1) if rank == min(ranking)]
    if label is not None and (label not in best if isinstance(label, int) else len(best) == 1):
        raise _bad(fields, f"label {shown(label)} contradicts the ranking {list(ranking)}; keep one")
    if candidates != 2:
        return ranking, label
    return ranking, label if label is not None else best[0] if len(best) == 1 else "tie"


def check_no_unread_label(fields: Fields) -> None:
    """Refuse a record with a field that looks like a label and that nothing reads.

    Raises:
        RecordError: naming the field.
    """
    for name in fields:
        if name.lower() in UNREAD_LABELS:
            raise RecordError(
                f"{fields.where}: {name} {shown(fields[name])} looks like a label, and this layout is not known; "
                "write it as label, ranking, votes or scores, name the layout with data.layout, or put it into meta",
                reason="unread label",
            )


def read_votes(fields: Fields, candidates: int) -> tuple[float, ...] | None:
    """Return the votes for each candidate.

    Raises:
        RecordError: they are not a list of finite numbers of at least 0, one for each candidate.
    """
    votes: tuple[float, ...] | None = fields.numbers("votes", None, at_least=0, at_most=MAX_VOTES)
    if votes is not None and len(votes) != candidates:
        raise _bad(fields, f"{len(votes)} votes for {candidates} candidates; give one number for each")
    return votes


def _given_label(fields: Fields, first: int) -> int | Literal["tie"] | None:
    given: Any = fields.get("label")
    if given is None or given == "tie":
        return given
    number = int(given) if isinstance(given, float) and given.is_integer() else given
    if not isinstance(number, int) or isinstance(number, bool):
        raise _bad(fields, f'label {shown(given)}; needed {first}, {first + 1}, ... or "tie"')
    return number + 1 - first


def _solved_label(fields: Fields, match: re.Match[str] | None, task: str | None, first: int) -> int | None:
    solution = fields.get("solution")
    if match is not None and task is not None and match[1] == TASKS[task].noun:
        return int(match[2]) + (0 if solution is None else 1 - first)
    if solution is not None:
        noun = TASKS[task].noun if task else "Image"
        raise _bad(fields, f"solution {shown(solution)}; needed '{noun} N is better'")
    return None


def _shared_label(fields: Fields) -> int | Literal["tie"]:
    """Return the label of ``label_0`` and ``label_1``, the shares of voters for the first and the second candidate."""
    first = fields.number("label_0", None, at_least=0, at_most=1)
    second = fields.number("label_1", None, at_least=0, at_most=1)
    if first is not None and second is not None and abs(first + second - 1) > 0.01:
        raise _bad(fields, f"label_0 {first:g} and label_1 {second:g} are no shares of 1")
    share = first if first is not None else 1 - (second or 0.0)
    return "tie" if share == 0.5 else 1 if share > 0.5 else 2


def _bad(fields: Fields, message: str) -> RecordError:
    return RecordError(f"{fields.where}: {message}", reason="bad label")

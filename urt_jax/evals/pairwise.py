"""Judge pairs under a protocol.

1. every pair becomes one query per presentation order (the given order only, if it cannot be swapped);
2. ``generate`` answers each query as often as there are votes, in batches of its own choice;
3. texts are parsed strictly, votes of one order merged, and each (pair, order) becomes one judgement.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from urt_jax.data.examples import Example, Media, Query
from urt_jax.data.prompts import render
from urt_jax.data.stored import Stored
from urt_jax.errors import BadInputError
from urt_jax.evals.protocols import Protocol
from urt_jax.files.fields import Fields
from urt_jax.files.json_text import whole_lines
from urt_jax.files.whole import write_whole
from urt_jax.rewards.verifiable import score_agreement
from urt_jax.rewards.votes import majority
from urt_jax.tasks import Verdict, read_reply
from urt_jax.tasks.wording import DEFAULT_TEMPLATE

Order = Literal["given", "swapped"]
MediaName = str | tuple[str, ...]  # the given path (of a clip: its frames' paths), or a description of media in memory


MAX_LISTED = 1000  # candidates or media of one judgement


Generate = Callable[[Sequence[Query]], Sequence[Sequence[str]]]  # the votes on each query


@dataclass(frozen=True)
class Judgement:
    """One verdict on one pair in one order; all fields on candidates are in the order shown to the judge.

    ``agreement``: the written totals are the sums of the written scores and the answer follows from them (None: the
    response did not parse, or is a direct answer without scores). ``gold_match``: share of the gold dimension scores
    that the judge wrote exactly (None: the record or the response has none). ``vote_counts``: votes for 1, for 2, for
    neither. ``novelty``: "seen" or "unseen", whether training showed this combination of attributes (None: unknown).
    ``group``: the common key of items that share a prompt.
    """

    id: str
    order: Order
    label: int | str
    verdict: Verdict
    correct: bool
    agreement: bool | None = None
    gold_match: float | None = None
    task: str | None = None
    difficulty: str | None = None
    novelty: str | None = None
    group: str | None = None
    gold_scores: dict[str, tuple[float, float]] | None = None
    vote_counts: tuple[int, int, int] | None = None
    prompt: str = ""
    answers: tuple[str, ...] = ()
    media: tuple[MediaName, ...] = ()

    @property
    def text(self) -> str:
        """The judge's response."""
        return self.verdict.text


def judge_pairs(
    examples: Sequence[Example],
    generate: Generate,
    *,
    protocol: Protocol,
    template: str = DEFAULT_TEMPLATE,
    queries_per_call: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> list[Judgement]:
    """Judge labelled pairs and return the judgements, the two orders of a pair adjacent.

    ``template`` is the prompt template (see ``prompts.render``). ``generate`` gets at most ``queries_per_call`` queries
    at a time and must sample the protocol's votes at its temperature; ``progress(done, total)`` is called after each.

    Raises:
        BadInputError: a record is not a pair or has no label.
        ValueError: ``generate`` returned a number of texts other than its queries and votes need.
    """
    shown = [pair for example in examples for pair in _presentations(example, protocol)]
    queries = [
        Query(_query_id(example, order), render(example, think=protocol.think, template=template))
        for example, order in shown
    ]
    votes: list[Sequence[str]] = []
    for start in range(0, len(queries), queries_per_call):
        asked = queries[start : start + queries_per_call]
        given = generate(asked)
        if [len(texts) for texts in given] != [protocol.votes] * len(asked):
            told = f"{len(asked)} queries with {protocol.votes} votes each"
            raise ValueError(f"generate was asked for {told} and gave {[len(texts) for texts in given]} texts")
        votes.extend(given)
        if progress is not None:
            progress(len(votes), len(queries))
    return [
        judge_texts(example, texts, order=order, think=protocol.think)
        for (example, order), texts in zip(shown, votes, strict=True)
    ]


def judge_texts(shown: Example, texts: Sequence[str], *, order: Order = "given", think: bool = True) -> Judgement:
    """Return the judgement of ``texts`` (the votes) on an example in its shown order, that is, already swapped or not.

    Drawn votes give no verdict; the kept text is the first that voted with the majority.
    """
    verdicts = [read_reply(text, task=shown.task, think=think) for text in texts]
    verdict = majority(verdicts)
    agreement = bool(score_agreement(verdict)) if think and verdict.winner is not None else None
    votes = _votes(verdicts) if len(texts) > 1 else None
    return judgement_of(shown, verdict, order=order, agreement=agreement, votes=votes)


def judgement_of(
    shown: Example,
    verdict: Verdict,
    *,
    order: Order = "given",
    agreement: bool | None = None,
    votes: tuple[int, int, int] | None = None,
) -> Judgement:
    """Return the judgement of a verdict on an example in its shown order; ``agreement`` and ``votes`` as stored."""
    label = _label(shown)
    gold = {name: (float(a), float(b)) for name, (a, b) in shown.meta.get("scores", {}).items()}
    difficulty, group = shown.meta.get("difficulty"), shown.meta.get("prompt_group")
    novelty = {True: "unseen", False: "seen"}.get(shown.meta.get("unseen"))  # type: ignore[arg-type]
    return Judgement(
        id=shown.id,
        order=order,
        label=label,
        verdict=verdict,
        correct=verdict.winner == label,
        agreement=agreement,
        gold_match=_gold_match(verdict, gold),
        task=shown.task,
        difficulty=None if difficulty is None else str(difficulty),
        novelty=novelty,
        group=None if group is None else str(group),
        gold_scores=gold or None,
        vote_counts=votes,
        prompt=shown.prompt,
        answers=tuple(item for item in shown.candidates if isinstance(item, str)),
        media=tuple(_media_name(item) for item in (*shown.context, *shown.candidates) if isinstance(item, Media)),
    )


def write_judgements(path: str | Path, judgements: Sequence[Judgement]) -> None:
    """Write judgements as JSON lines, atomically."""
    lines = (json.dumps(dataclasses.asdict(item), ensure_ascii=False) + "\n" for item in judgements)
    write_whole(path, "".join(lines))


def read_judgements(path: str | Path) -> list[Judgement]:
    """Read the judgements that ``write_judgements`` wrote.

    Raises:
        BadInputError: the file is missing, or a line is not a judgement (names file and line).
    """
    path = Path(path)
    if not path.is_file():
        raise BadInputError(f"{path}: no such file; give the JSON lines that an evaluation wrote under records/")
    remedy = "; delete the line or run the evaluation again"
    return [
        _judgement(Fields(line, f"{path} line {n}", error=lambda told: BadInputError(told + remedy)))
        for n, line in whole_lines(path)
    ]


def _presentations(example: Example, protocol: Protocol) -> Iterator[tuple[Example, Order]]:
    if len(example.candidates) != 2 or example.task is None:
        raise BadInputError(
            f"record {example.id}: a judgement needs a task and two candidates, this one has task {example.task} and "
            f"{len(example.candidates)} candidates; leave it out of the evaluation"
        )
    _label(example)
    yield example, "given"
    if protocol.orders == "both":
        try:
            yield example.swapped(), "swapped"
        except BadInputError:  # the record's own prompt text fixes the order; the summary counts such items
            return


def _query_id(example: Example, order: Order) -> str:
    return example.id if order == "given" else f"{example.id}#swapped"


def _label(example: Example) -> int | str:
    if example.label is None:
        raise BadInputError(
            f"record {example.id} has no label, so no verdict on it can be right or wrong; "
            "give it one (solution: 'Image 1 is better') or leave it out of the evaluation"
        )
    return example.label


def _votes(verdicts: Sequence[Verdict]) -> tuple[int, int, int]:
    """Return the votes for 1, for 2 and for neither."""
    winners = [verdict.winner for verdict in verdicts]
    return winners.count(1), winners.count(2), len(winners) - winners.count(1) - winners.count(2)


def _gold_match(verdict: Verdict, gold: dict[str, tuple[float, float]]) -> float | None:
    if not gold or not verdict.scores:
        return None
    pairs = [(verdict.scores.get(name), scores) for name, scores in gold.items()]
    hits = sum(given[side] == scores[side] for given, scores in pairs if given is not None for side in (0, 1))
    return hits / (2 * len(pairs))


def _media_name(media: Media) -> MediaName:
    source = media.source
    if isinstance(source, (list, tuple)):
        return tuple(_media_name(Media("image", frame)) for frame in source)  # type: ignore[misc]
    if isinstance(source, Path | Stored) or (isinstance(source, str) and not source.startswith("data:")):
        return str(source)
    shape = getattr(source, "shape", None)
    return f"<{media.kind} in memory{'' if shape is None else ' ' + 'x'.join(map(str, shape))}>"


def _judgement(fields: Fields) -> Judgement:
    """Return the judgement of a line that ``write_judgements`` wrote."""
    label = fields.get("label")
    media = fields.values_of("media", [], at_most=MAX_LISTED)
    votes = fields.integers("vote_counts", None, size=3, at_most=10**6)
    given: dict[str, Any] = {
        "id": fields.text("id"),
        "order": fields.choice("order", ("given", "swapped")),
        "label": label if label == "tie" else fields.integer("label", at_least=1, at_most=MAX_LISTED),
        "verdict": _verdict(fields.group("verdict")),
        "correct": fields.flag("correct"),
        "agreement": fields.flag("agreement", None),
        "gold_match": fields.number("gold_match", None, at_least=0, at_most=1),
        "gold_scores": _pairs(fields.group("gold_scores", None)),
        "vote_counts": votes,
        "prompt": fields.text("prompt", ""),
        "answers": fields.texts("answers", ()),
        "media": tuple(name if isinstance(name, str) else tuple(map(str, name)) for name in media),
    }
    for name in ("task", "difficulty", "novelty", "group"):
        given[name] = fields.text(name, None)
    unknown = [name for name in fields if name not in given]
    if unknown:
        raise fields.refusal(unknown[0], "only what a judgement has; it was written by another version")
    return Judgement(**given)


def _verdict(fields: Fields) -> Verdict:
    winner = fields.get("winner")
    return Verdict(
        winner=winner if winner in ("tie", None) else fields.integer("winner", at_least=1, at_most=2),
        scores=_pairs(fields.group("scores")) or {},
        totals=fields.numbers("totals", None, size=2),
        margin=fields.number("margin", None),
        reasoning=fields.text("reasoning"),
        text=fields.text("text"),
        failure=fields.text("failure", None),
    )


def _pairs(scores: Fields | None) -> dict[str, tuple[float, float]] | None:
    return None if scores is None else {name: scores.numbers(name, size=2) for name in scores}

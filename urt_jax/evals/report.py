"""The HTML report of an evaluation, one self-contained file: figures, learning curves, responses with their pictures.

1. figures become table cells with their intervals drawn below them;
2. curves become small charts (inline SVG, no script);
3. every sample becomes its pictures (as data URLs), its gold scores and each model's response;
4. a template lays out the page and escapes all text of models and records.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from urt_jax.data.examples import Example
from urt_jax.errors import BadInputError
from urt_jax.evals.charts import make_chart
from urt_jax.evals.completions import CompletionGroup, group_shown
from urt_jax.evals.pairwise import Judgement
from urt_jax.evals.pictures import question_shown
from urt_jax.evals.statistics import Estimate, Summary
from urt_jax.files.json_text import well_formed
from urt_jax.files.whole import write_whole
from urt_jax.tasks import TASKS

Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Sample:
    """One pair of the gallery: the record in its given order, and each model's judgement by the model's name.

    All judgements of a sample have one order; pictures and gold scores are shown in that order.
    """

    example: Example
    judgements: Mapping[str, Judgement]


@dataclass(frozen=True)
class _Cell:
    """A figure of the tables in percent; marks are positions on a scale from 0 to 100."""

    text: str
    interval: str = ""
    note: str = ""
    marks: tuple[float, float, float] | None = None  # low, value, high


def write_report(
    path: str | Path,
    *,
    title: str,
    summaries: Mapping[str, Mapping[str, Summary]],
    curves: Mapping[str, Curve] | None = None,
    samples: Sequence[Sample] = (),
    completions: Sequence[CompletionGroup] = (),
    baselines: Mapping[str, float] | None = None,
    settings: Mapping[str, Any] | None = None,
    note: str = "",
) -> None:
    """Write the report of ``summaries[model][mode]`` to ``path`` (``.html``), atomically.

    ``curves`` are named ``stage/figure``; ``baselines`` are accuracies of blind judges; ``settings`` is any nesting of
    plain values; ``note`` is a line below the title (the protocol); ``completions`` are groups of a training step with
    their rewards. The caller selects samples and completions; all of them are embedded.

    Raises:
        BadInputError: there is nothing to report, a picture cannot be read, or a sample mixes presentation orders.
    """
    if not any(summaries.values()):
        raise BadInputError("a report needs at least one summary: give summaries={model: {mode: Summary}}")
    charts = [make_chart(name, curve) for name, curve in (curves or {}).items()]
    page = page_template("report.html").render(
        title=title,
        note=note,
        models={model: [(mode, _result(s)) for mode, s in modes.items()] for model, modes in summaries.items()},
        baselines=[
            (name, _cell(Estimate(value, value, value, 1), bare=True)) for name, value in (baselines or {}).items()
        ],
        parts=_parts(summaries),
        treatments=_treatments(summaries),
        charts=_by_stage([chart for chart in charts if chart is not None]),
        samples=[_sample(sample) for sample in samples],
        completions=[group_shown(group) for group in completions],
        settings=_flat(settings or {}),
        counts=_counts([s for modes in summaries.values() for s in modes.values()]),
        has_direct_note=any(s.score_agreement.n == 0 for modes in summaries.values() for s in modes.values()),
    )
    write_whole(path, well_formed(page))


def page_template(name: str) -> jinja2.Template:
    """Return a template of this folder; it escapes its variables, and an undefined one is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _cell(estimate: Estimate, *, bare: bool = False, with_count: bool = False) -> _Cell:
    if estimate.n == 0:
        return _Cell("–")
    value, low, high = (100 * figure for figure in estimate[:3])
    return _Cell(
        text=f"{value:.1f}",
        interval="" if bare else f"{low:.1f}–{high:.1f}",
        note=f"of {estimate.n:,}" if with_count else "",
        marks=(round(low, 2), round(value, 2), round(high, 2)),
    )


def _result(summary: Summary) -> list[_Cell]:
    return [
        _cell(summary.accuracy),
        _cell(summary.position_consistency),
        _cell(summary.parse_failure),
        _cell(summary.score_agreement, with_count=True),
        _cell(summary.first_position),
        _cell(summary.gold_match),
    ]


def _counts(summaries: Sequence[Summary]) -> str:
    """Return the numbers of judgements and pairs behind the rows, once if all rows have the same."""
    lines = []
    for s in summaries:
        line = f"{s.judgements:,} judgements of {s.items:,} pairs"
        lines.append(f"{line}, {s.one_order:,} of them in one order only" if s.one_order else line)
    return "; ".join(dict.fromkeys(lines))


def _parts(summaries: Mapping[str, Mapping[str, Summary]]) -> dict[str, Any]:
    """Return accuracy per task, difficulty and novelty: column names, and a row per model and mode."""
    every = [s for modes in summaries.values() for s in modes.values()]
    names = list(dict.fromkeys(name for s in every for name in s.parts))
    rows = {
        model: [
            (mode, [_cell(parts[name].accuracy) if name in parts else _Cell("–") for name in names])
            for mode, parts in ((mode, s.parts) for mode, s in modes.items())
        ]
        for model, modes in summaries.items()
    }
    return {"names": [name.replace("_", " ") for name in names], "rows": rows}


def _treatments(summaries: Mapping[str, Mapping[str, Summary]]) -> dict[str, list[tuple[str, list[_Cell]]]]:
    return {
        model: [
            (mode, [_cell(s.accuracy), _cell(s.accuracy_dropped), _cell(s.accuracy_random)])
            for mode, s in modes.items()
        ]
        for model, modes in summaries.items()
    }


def _by_stage(charts: Sequence[Any]) -> dict[str, list[tuple[str, Any]]]:
    """Group charts by the part of their names before the first slash."""
    groups: dict[str, list[tuple[str, Any]]] = {}
    for chart in charts:
        stage, slash, figure = chart.name.partition("/")
        groups.setdefault(stage if slash else "", []).append((figure if slash else stage, chart))
    return groups


def _sample(sample: Sample) -> dict[str, Any]:
    orders = {judgement.order for judgement in sample.judgements.values()}
    if len(orders) > 1:
        raise BadInputError(
            f"sample {sample.example.id}: its judgements are of different orders; give those of one order a sample"
        )
    swapped = orders == {"swapped"}
    shown = sample.example.swapped() if swapped else sample.example
    gold = {name: (float(a), float(b)) for name, (a, b) in shown.meta.get("scores", {}).items()}
    return {
        **question_shown(shown, swapped=swapped),
        "judgements": [
            _judged(name, judgement, gold, TASKS[shown.task].dimensions if shown.task else ())
            for name, judgement in sample.judgements.items()
        ],
    }


def _judged(
    model: str, judgement: Judgement, gold: Mapping[str, tuple[float, float]], dimensions: Sequence[str]
) -> dict[str, Any]:
    verdict = judgement.verdict
    names = list(dict.fromkeys([*dimensions, *gold, *verdict.scores])) if gold or verdict.scores else []
    return {
        "model": model,
        "state": "none" if verdict.winner is None else "right" if judgement.correct else "wrong",
        "failure": verdict.failure or "",
        "text": verdict.text,
        "votes": judgement.vote_counts,
        "scores": [(name, _score_pairs(gold.get(name), verdict.scores.get(name))) for name in names],
        "totals": None if verdict.totals is None else [_short(total) for total in verdict.totals],
        "gold_totals": [_short(sum(pair[n] for pair in gold.values())) for n in (0, 1)] if gold else None,
        "adds_up": judgement.agreement,
    }


def _score_pairs(gold: tuple[float, ...] | None, given: tuple[float, ...] | None) -> list[tuple[str, str, bool | None]]:
    """Return (gold, given, equal or unknown) for each of the two candidates."""
    return [
        (
            "–" if gold is None else _short(gold[n]),
            "–" if given is None else _short(given[n]),
            None if gold is None or given is None else gold[n] == given[n],
        )
        for n in (0, 1)
    ]


def _short(figure: float) -> str:
    return f"{figure:g}" if math.isfinite(figure) else "–"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as (dotted name, value) lines."""
    lines: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            lines += _flat(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
            lines.append((f"{prefix}{name}", text))
    return lines

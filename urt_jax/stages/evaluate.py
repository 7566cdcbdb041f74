"""Judge held-out pairs with one or several models; write every judgement, the table and the HTML report.

1. load the records once, and measure the blind baselines on the pairs;
2. for each model and mode, judge each pair in both orders, and score each single candidate that has gold scores; one
   JSONL file per mode lets a stopped run resume;
3. summarise with intervals, print the tables, write the report of the pairs.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from urt_jax.checkpoints.model_folder import find_model, load_model
from urt_jax.config import EvaluateConfig, as_json
from urt_jax.data.examples import Example
from urt_jax.data.settings import HeldOutData, PoolData
from urt_jax.errors import BadInputError
from urt_jax.evals.alone import score_singles
from urt_jax.evals.baselines import blind_baselines
from urt_jax.evals.judging import judge
from urt_jax.evals.pairwise import Judgement
from urt_jax.evals.points import Scored, as_plain, point_rows
from urt_jax.evals.protocols import PROTOCOLS, Protocol
from urt_jax.evals.report import Sample, write_report
from urt_jax.evals.statistics import Summary, summarize
from urt_jax.evals.tables import format_table, part_rows, result_rows
from urt_jax.feeds.records import labelled_pool, skipped_figures, tell_skipped
from urt_jax.judge.reward_model import RewardModel
from urt_jax.runs import processes
from urt_jax.runs.run_folder import write_result
from urt_jax.stages.sft import open_mesh
from urt_jax.tasks import TASKS
from urt_jax.tasks.replies import WRONG_NOUN
from urt_jax.training.metrics import read_metrics

BASELINE_PAIRS = 1000  # training pairs that the blind baselines are fitted on
CURVES = ("loss", "reward", "rewards/format/mean", "rewards/accuracy/mean", "rewards/consistency/mean", "entropy", "kl",
          "completions/mean_length")  # fmt: skip

Judged = dict[str, dict[str, list[Judgement]]]  # model -> mode -> judgements


def run(config: EvaluateConfig) -> None:
    """Run the stage; see ``evaluate``."""
    evaluate(config, curves={})


def evaluate(config: EvaluateConfig, *, curves: Mapping[str, Path]) -> str:
    """Judge with every model, write ``result.json`` and ``report.html``, print and return the table.

    ``curves`` maps labels to run folders whose metrics the report plots.
    """
    folder = Path(config.workdir)
    for path in config.models.values():
        find_model(path)  # a misspelt third model is reported before the first one runs
    _check_labels(config.models)
    records, skipped = labelled_pool(config.data, seed=config.seed)
    told = tell_skipped([skipped])
    found = {label: _ask_model(config, folder, label, path, records) for label, path in config.models.items()}
    points, scores = _points(config, {label: scored for label, (_, scored) in found.items()})
    examples = _pairs(records)
    if not examples:
        table = points + (f"\n\n{told}" if told else "")
        print(table)
        write_result(folder, table, scores=scores, skipped=skipped_figures([skipped]))
        return table
    judged = {label: judgements for label, (judgements, _) in found.items()}
    summaries = {
        label: {mode: summarize(judgements, seed=config.seed) for mode, judgements in modes.items()}
        for label, modes in judged.items()
    }
    baselines = measure_baselines(config.data, examples)
    table = "\n\n".join(
        [
            f"{len(examples)} held-out pairs; {_protocol(config).describe()}; 95 % intervals over pairs",
            format_table(result_rows(summaries)),
            format_table(part_rows(summaries)),
            format_table([{"blind baseline": name, **values} for name, values in baselines.items()]),
            *([points] if points else []),
        ]
    )
    table += "".join(f"\n{line}" for line in _wrong_nouns(judged))
    report = folder / "report.html"
    processes.of_first(lambda: _report(config, report, summaries, judged, examples, baselines, curves))
    table += (f"\n\n{told}" if told else "") + f"\n\nreport: {report}"
    print(table)
    figures = {label: {mode: s.as_json() for mode, s in modes.items()} for label, modes in summaries.items()}
    write_result(
        folder, table, summaries=figures, baselines=baselines, scores=scores, skipped=skipped_figures([skipped])
    )
    return table


def _pairs(records: Sequence[Example]) -> list[Example]:
    return [record for record in records if record.task is None or TASKS[record.task].compares]


def _points(config: EvaluateConfig, found: Mapping[str, Mapping[str, list[Scored]]]) -> tuple[str, dict[str, Any]]:
    """Return the table of the scores of single candidates, "" if there are none, and its figures."""
    rows = [
        row
        for label, modes in found.items()
        for mode, items in modes.items()
        for row in point_rows(label, mode, items, seed=config.seed)
    ]
    figures = {
        label: {mode: as_plain(items, seed=config.seed) for mode, items in modes.items()}
        for label, modes in found.items()
        if modes
    }
    if not rows:
        return "", figures
    return f"scores of single candidates; 95 % intervals over candidates\n\n{format_table(rows)}", figures


def _wrong_nouns(judged: Judged) -> list[str]:
    """Return a line for each model and mode with judgements that use another task's noun, which count as wrong."""
    lines = []
    for model, modes in judged.items():
        for mode, judgements in modes.items():
            odd = sum((one.verdict.failure or "").startswith(WRONG_NOUN) for one in judgements)
            if odd:
                lines.append(f"{WRONG_NOUN}: {odd} of {len(judgements)} judgements of {model}, {mode}; unparsed")
    return lines


def measure_baselines(data: HeldOutData, examples: Sequence[Example]) -> dict[str, dict[str, float]]:
    """Return the accuracy of each blind baseline on each task, fitted on other pairs of the same task.

    For a file, baselines are fitted on the first half of a task's pairs and measured on the second.
    """
    found: dict[str, dict[str, float]] = {}
    for task in sorted({str(example.task) for example in examples}):
        mine = [example for example in examples if example.task == task]
        if data.path == "scenes":
            others = PoolData(**{**dataclasses.asdict(data), "count": BASELINE_PAIRS, "tasks": {task: 1.0}})
            fit = labelled_pool(others, seed=0).examples
        else:
            fit, mine = mine[: len(mine) // 2], mine[len(mine) // 2 :]
        if len(fit) < 2 or len(mine) < 2:
            continue
        for name, accuracy in blind_baselines(fit, mine).items():
            found.setdefault(name, {})[task] = accuracy
    return found


def judgement_path(folder: Path, label: str, mode: str) -> Path:
    """Return the file of an evaluation's judgements of one model in one mode."""
    return folder / "records" / f"{label.replace('/', '_').replace(' ', '_')}-{mode}.jsonl"


def _check_labels(labels: Iterable[str]) -> None:
    """Refuse two labels with the same file of judgements: the second model would get the first's."""
    taken: dict[Path, str] = {}
    for label in labels:
        first = taken.setdefault(judgement_path(Path(), label, ""), label)
        if first != label:
            raise BadInputError(
                f"models {first!r} and {label!r} would share a file of judgements; give labels that differ in more "
                "than spaces, slashes and underscores"
            )


def _ask_model(
    config: EvaluateConfig, folder: Path, label: str, path: str, records: Sequence[Example]
) -> tuple[dict[str, list[Judgement]], dict[str, list[Scored]]]:
    """Return the judgements of the pairs, and the scores of the single candidates, by mode."""
    examples = _pairs(records)
    singles = [record for record in records if record.task is not None and TASKS[record.task].candidates == 1]
    bounds = (config.pixels.min_pixels, config.pixels.max_pixels)
    model = RewardModel(
        load_model(path, pixels=bounds, mesh=open_mesh(config.mesh)),
        dtype=config.dtype,
        max_prompt_tokens=config.lengths.max_prompt_tokens,
        prompt_template=config.data.template,
        workers=config.workers,
    )
    with closing(model):
        judged: dict[str, list[Judgement]] = {
            mode: judge(
                model,
                examples,
                judgement_path(folder, label, mode),
                protocol=_protocol(config).in_mode(mode),
                title=f"{label}, {mode}",
                seed=config.seed,
                max_new_tokens=config.lengths.max_new_tokens,
                batch_size=config.batch_size,
            )
            for mode in (config.modes if examples else ())
        }
        scored: dict[str, list[Scored]] = {
            mode: score_singles(
                model,
                singles,
                judgement_path(folder, label, f"{mode}-singles"),
                protocol=_protocol(config).in_mode(mode),
                title=f"{label}, {mode}, single candidates",
                max_new_tokens=config.lengths.max_new_tokens,
                batch_size=config.batch_size,
            )
            for mode in (config.modes if singles else ())
            if mode in ("greedy", "direct")
        }
        return judged, scored


def _protocol(config: EvaluateConfig) -> Protocol:
    return dataclasses.replace(PROTOCOLS["urt"], orders=config.orders)


def _report(
    config: EvaluateConfig,
    path: Path,
    summaries: Mapping[str, Mapping[str, Summary]],
    judged: Judged,
    examples: Sequence[Example],
    baselines: Mapping[str, Mapping[str, float]],
    curves: Mapping[str, Path],
) -> None:
    """Write the report; its gallery shows the first mode of every model."""
    mode = config.modes[0]
    given = {
        label: {j.id: j for j in modes[mode] if j.order == "given"} for label, modes in judged.items() if mode in modes
    }
    step = max(len(examples) // max(config.report_samples, 1), 1)
    shown = [e for e in examples[::step] if all(e.id in judgements for judgements in given.values())]
    samples = [
        Sample(example, {label: judgements[example.id] for label, judgements in given.items()})
        for example in shown[: config.report_samples]
    ]
    lines = {f"{stage}/{name}": [(line["step"], line[name]) for line in read_metrics(folder) if name in line]
             for stage, folder in curves.items() for name in CURVES}  # fmt: skip
    write_report(
        path,
        title="urt_jax: held-out judgements",
        summaries=summaries,
        curves={name: points for name, points in lines.items() if len(points) > 1},
        samples=samples,
        baselines={f"{name}, {task}": value for name, tasks in baselines.items() for task, value in tasks.items()},
        settings=as_json(config),
        note=_protocol(config).describe(),
    )

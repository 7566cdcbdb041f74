"""GRPO in several settings and seeds at equal compute, all from one model, judged on the same held-out pairs.

1. run (or resume) every setting with every seed, each an ordinary GRPO run in its own folder; the start model is judged
   once per seed, by the first setting, and the other settings copy its judgements;
2. join the judgements of all seeds; intervals are over pairs, not over pairs times seeds;
3. print the figures of every setting and its paired differences from the first.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from urt_jax.config import AblationConfig, GrpoConfig, as_json
from urt_jax.config.settings import START
from urt_jax.evals.judging import HELD_OUT_MODES, held_out_path
from urt_jax.evals.pairwise import Judgement, read_judgements, write_judgements
from urt_jax.evals.statistics import paired_difference, summarize
from urt_jax.evals.tables import Cell, format_table
from urt_jax.runs.run_folder import finished, write_result
from urt_jax.stages import grpo
from urt_jax.stages.study import put_together

FIGURES = ("accuracy", "position_consistency", "parse_failure", "score_agreement")


def run(config: AblationConfig) -> None:
    """Run all settings and seeds, print and write the joint table."""
    runs = config.runs()
    for of_seed in zip(*runs.values()):
        for label, single in zip(runs, of_seed):
            print(f"\n== {label}, seed {single.seed} ({single.workdir})")
            _run(single, judged_by=of_seed[0])
    tables, figures = [], {}
    for mode in HELD_OUT_MODES:
        judged = {START: _joined(next(iter(runs.values())), "before", mode)}
        judged |= {label: _joined(seeds, "after", mode) for label, seeds in runs.items()}
        summaries = {label: summarize(judgements) for label, judgements in judged.items()}
        rows: list[dict[str, Cell]] = [
            {mode: label, **{figure: getattr(summary, figure) for figure in FIGURES}}
            for label, summary in summaries.items()
        ]
        tables += [format_table(rows), format_table(difference_rows(mode, judged, first=next(iter(runs))))]
        figures[mode] = {label: summary.as_json() for label, summary in summaries.items()}
    data = config.grpo.eval_data
    title = f"{len(config.seeds)} seeds, {data.count or 'all'} held-out pairs in both orders; 95 % intervals over pairs"
    table = "\n\n".join([title, *tables])
    print(f"\n{table}")
    write_result(config.workdir, table, summaries=figures)


def difference_rows(mode: str, judged: Mapping[str, Sequence[Judgement]], *, first: str) -> list[dict[str, Cell]]:
    """Return one row per setting but the first: its figures minus the first's, on the same pairs and seeds."""
    return [
        {
            f"{mode}, minus {first}": label,
            **{figure: paired_difference(judgements, judged[first], figure=figure) for figure in FIGURES},
        }
        for label, judgements in judged.items()
        if label != first
    ]


def _run(single: GrpoConfig, *, judged_by: GrpoConfig) -> None:
    """Run one setting with one seed in its own folder, or print the table of its finished run."""
    if finished(single.workdir, as_json(single)) is not None:
        return
    for mode in HELD_OUT_MODES:
        there = held_out_path(Path(judged_by.workdir), "before", mode)
        if judged_by != single and there.is_file():
            write_judgements(held_out_path(Path(single.workdir), "before", mode), read_judgements(there))
    grpo.run(single)


def _joined(runs: Sequence[GrpoConfig], when: str, mode: str) -> list[Judgement]:
    return put_together({run.seed: held_out_path(Path(run.workdir), when, mode) for run in runs})

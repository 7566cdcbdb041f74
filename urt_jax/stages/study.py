"""The recipe over several seeds: one pipeline per seed, all judged on the same held-out pairs.

1. run (or resume) the pipeline of every seed; the base model, which all share, is judged once;
2. join the judgements of all seeds; intervals are over pairs, not over pairs times seeds;
3. print the figures of every model and the paired gains of GRPO over rejection sampling, on image generation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from urt_jax.config import PipelineConfig, StudyConfig, as_json
from urt_jax.evals.pairwise import Judgement, read_judgements
from urt_jax.evals.statistics import paired_difference, summarize
from urt_jax.evals.tables import Cell, format_table, part_rows, result_rows
from urt_jax.runs.run_folder import finished, write_result
from urt_jax.stages import pipeline
from urt_jax.stages.evaluate import judgement_path
from urt_jax.tasks import image_gen

BEFORE, AFTER = "rejection sampling", "GRPO"
GAINS = ("accuracy", "parse_failure", "score_agreement", "position_consistency")


def run(config: StudyConfig) -> None:
    """Run all seeds, print and write the joint table."""
    runs = config.runs()
    first = Path(runs[0].stages()[-1].workdir)
    for number, single in enumerate(runs):
        if finished(single.workdir, as_json(single)) is None:
            pipeline.run(single, base_judged=first if number else None)
    modes = config.evaluate.modes
    judged = {model: {str(mode): joined(runs, model, mode) for mode in modes} for model in pipeline.MODELS}
    everything = {model: {mode: summarize(items) for mode, items in of.items()} for model, of in judged.items()}
    main = {model: {mode: of_main_task(items) for mode, items in of.items()} for model, of in judged.items()}
    summaries = {model: {mode: summarize(items) for mode, items in of.items()} for model, of in main.items()}
    gains: list[dict[str, Cell]] = []
    for mode in modes:
        kept = [name for name in GAINS if mode != "direct" or name != "score_agreement"]
        before, after = main[BEFORE][mode], main[AFTER][mode]
        gains.append({"gain": mode, **{name: paired_difference(after, before, figure=name) for name in kept}})
    tasks = ", ".join(sorted({str(item.task) for item in main[AFTER][modes[0]]}))
    table = "\n\n".join(
        [
            f"{len(runs)} seeds, {tasks}",
            format_table(result_rows(summaries)),
            f"{AFTER} minus {BEFORE}, {tasks}, paired",
            format_table(gains),
            "accuracy of each task",
            format_table(part_rows(everything)),
        ]
    )
    print(table)
    figures = {model: {mode: s.as_json() for mode, s in of.items()} for model, of in everything.items()}
    write_result(config.workdir, table, summaries=figures)


def of_main_task(items: Sequence[Judgement]) -> Sequence[Judgement]:
    """Return the judgements of image generation, the recipe's main task; all judgements, if it has none."""
    return [item for item in items if item.task == image_gen.TASK.name] or items


def joined(runs: Sequence[PipelineConfig], model: str, mode: str) -> list[Judgement]:
    """Return the judgements of one model in one mode from all runs."""
    return put_together({run.seed: judgement_path(Path(run.stages()[-1].workdir), model, mode) for run in runs})


def put_together(paths: Mapping[int, Path]) -> list[Judgement]:
    """Return the judgements of all seeds' files; the pair's id, the same for all seeds, is kept as the group."""
    return [
        replace(item, id=f"{item.id}#s{seed}", group=item.id)
        for seed, path in paths.items()
        for item in read_judgements(path)
    ]

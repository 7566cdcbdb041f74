"""The whole recipe from a base judge: distillation, cold start, rejection sampling, GRPO, evaluation of all models.

Every stage runs in its own folder ``<n>-<stage>`` inside the pipeline's and passes only files to later stages. So a
stopped pipeline resumes at the stage that was stopped, and any stage can be run on its own from the same files.
"""

import importlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from urt_jax.config import ModelSettings, PipelineConfig, StageConfig, as_json
from urt_jax.data.settings import DataSettings
from urt_jax.evals.pairwise import read_judgements, write_judgements
from urt_jax.runs import processes
from urt_jax.runs.run_folder import finished, write_result
from urt_jax.stages.evaluate import evaluate, judgement_path

Source = TypeVar("Source", bound=DataSettings)
Model = TypeVar("Model", bound=ModelSettings)
MODELS = ("base", "cold start", "rejection sampling", "GRPO")  # rows of the last table


def run(config: PipelineConfig, *, base_judged: Path | None = None) -> None:
    """Run the stages in order and print the table of the last.

    ``base_judged`` is the folder of another pipeline's evaluation from the same base on the same pairs; its judgements
    of the base are copied instead of judging again.
    """
    distill, sft, reject, grpo, final = (Path(part.workdir) for part in config.stages())
    stages: dict[str, StageConfig] = {part.stage: part for part in config.stages()}
    _run(stages["distill"])
    records = str(distill / "records" / "cold_start.jsonl")
    data = (_file(config.sft.data[0], records), *config.sft.data[1:])
    _run(replace(stages["sft"], data=data, model=_start(config.sft.model, config.base)))  # type: ignore[call-arg]
    _run(replace(stages["reject"], model=_start(config.reject.model, str(sft))))  # type: ignore[call-arg]
    hard = _file(config.grpo.data, str(reject / "records" / "hard.jsonl"))
    _run(replace(stages["grpo"], data=hard, model=_start(config.grpo.model, str(reject))))  # type: ignore[call-arg]
    models = dict(zip(MODELS, (config.base, str(sft), str(reject), str(grpo)), strict=True))
    last: Any = replace(stages["evaluate"], models=models)  # type: ignore[call-arg]
    found = finished(last.workdir, as_json(last))
    if base_judged is not None and found is None:
        for mode in config.evaluate.modes:
            judgements = read_judgements(judgement_path(base_judged, MODELS[0], mode))
            path = judgement_path(final, MODELS[0], mode)
            processes.of_first(partial(write_judgements, path, judgements))
    curves = {"cold start": sft, "rejection sampling": reject, "GRPO": grpo}
    table = found["table"] if found else evaluate(last, curves=curves)
    write_result(config.workdir, table, report=str(final / "report.html"))


def _run(config: StageConfig) -> None:
    """Run one stage in its own folder, or print the table of its finished run."""
    print(f"\n== {config.stage} ({config.workdir})")
    if finished(config.workdir, as_json(config)) is None:
        importlib.import_module(f"urt_jax.stages.{config.stage}").run(config)


def _start(model: Model, path: str) -> Model:
    """Return a stage's model settings with this model as the start."""
    return replace(model, path=path)


def _file(data: Source, path: str) -> Source:
    """Return a source's settings for all records of a file from an earlier stage."""
    return replace(data, path=path, count=None)

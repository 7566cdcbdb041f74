"""Judging held-out pairs with a model in memory: shared by the stages that measure."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from urt_jax.checkpoints.model_folder import LoadedModel
from urt_jax.config import GrpoConfig
from urt_jax.data.examples import Example
from urt_jax.evals.pairwise import Judgement, judge_pairs, read_judgements, write_judgements
from urt_jax.evals.protocols import PROTOCOLS, Protocol
from urt_jax.evals.statistics import Summary, summarize
from urt_jax.evals.tables import format_table, result_rows
from urt_jax.reward_model import Query, RewardModel
from urt_jax.stages.records import labelled_pool
from urt_jax.stages.sft import compute_dtype

DIRECT_TOKENS = 24  # "<answer>Image 1 is better</answer>" in any tokenizer


@dataclass(frozen=True)
class HeldOut:
    """What a judging before or after training found."""

    text: str
    figures: dict[str, Any]
    summaries: dict[str, Summary]  # by mode


def judge(
    model: RewardModel,
    examples: Sequence[Example],
    path: Path,
    *,
    protocol: Protocol,
    title: str,
    seed: int,
    max_new_tokens: int,
    batch_size: int,
) -> list[Judgement]:
    """Judge pairs under a protocol, in the model's own wording, and write the judgements to ``path``.

    Judgements already there are read back.
    """
    if path.is_file():
        return read_judgements(path)
    limit = max_new_tokens if protocol.think else min(DIRECT_TOKENS, max_new_tokens)

    def generate(requests: Sequence[Any]) -> list[str]:
        queries = [Query(request.id, request.chat, request.response) for request in requests]
        return model.respond(
            queries, temperature=protocol.temperature, seed=seed, max_new_tokens=limit, batch_size=batch_size
        )

    with tqdm(total=None, desc=title, unit="judgement", dynamic_ncols=True) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        judgements = judge_pairs(
            examples,
            generate,
            protocol=protocol,
            template=model.prompt_template,
            requests_per_call=16 * batch_size,
            progress=progress,
        )
    write_judgements(path, judgements)
    return judgements


def held_out_table(config: GrpoConfig, folder: Path, loaded: LoadedModel, when: str) -> HeldOut:
    """Judge the stage's held-out pairs greedily and at temperature 1, in both orders."""
    judge_model = RewardModel(
        loaded,
        dtype=compute_dtype(config.model.dtype),
        max_prompt_tokens=config.lengths.max_prompt_tokens,
        prompt_template=config.eval_data.template,
        workers=config.workers,
    )
    examples = labelled_pool(config.eval_data, seed=config.seed).examples
    summaries = {}
    with closing(judge_model):
        for mode in ("greedy", "sampled"):
            judgements = judge(
                judge_model,
                examples,
                folder / "records" / f"{when}-{mode}.jsonl",
                protocol=PROTOCOLS["urt"].in_mode(mode),
                title=f"judging {when}, {mode}",
                seed=config.seed,
                max_new_tokens=config.lengths.max_new_tokens,
                batch_size=64,
            )
            summaries[mode] = summarize(judgements, seed=config.seed)
    figures = {mode: summary.as_json() for mode, summary in summaries.items()}
    return HeldOut(format_table(result_rows({f"{when} GRPO": summaries})), figures, summaries)

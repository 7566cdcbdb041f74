"""Judge labelled pairs with a model in memory, and keep the judgements on disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urt_jax.data.examples import Example, Query
from urt_jax.errors import BadInputError
from urt_jax.evals.alone import judge_alone
from urt_jax.evals.pairwise import Judgement, judge_pairs, read_judgements, write_judgements
from urt_jax.evals.protocols import PROTOCOLS, Mode, Protocol
from urt_jax.evals.statistics import Summary, summarize
from urt_jax.evals.tables import format_table, result_rows
from urt_jax.judge.reward_model import RewardModel
from urt_jax.progress import counting
from urt_jax.runs import processes
from urt_jax.sharding.placement import mesh_of
from urt_jax.sharding.shares import Share, share_of

HELD_OUT_MODES: tuple[Mode, ...] = ("greedy", "sampled")  # of a judging before or after training
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

    Judgements already there are read back. Of several processes each judges its share of the pairs and writes it to a
    file of its own, which the first puts together.

    Raises:
        BadInputError: fewer pairs than processes.
    """
    if processes.of_first(path.is_file):
        return read_judgements(path)
    share = _share_of_pairs(model)
    if len(examples) < share.of:
        raise BadInputError(f"{len(examples)} held-out pairs are fewer than {share.of} processes; give more pairs")
    if protocol.alone:
        alone = judge_alone(model, examples, protocol=protocol, title=title, batch_size=batch_size)
        processes.of_first(lambda: write_judgements(path, alone))
        return alone
    limit = max_new_tokens if protocol.think else min(DIRECT_TOKENS, max_new_tokens)

    def generate(queries: Sequence[Query]) -> list[tuple[str, ...]]:
        return model.respond(
            queries,
            responses=protocol.votes,
            temperature=protocol.temperature,
            seed=seed,
            max_new_tokens=limit,
            batch_size=batch_size,
        )

    with counting(title=title, unit="judgement") as show:
        judgements = judge_pairs(
            share.cut(examples),
            generate,
            protocol=protocol,
            template=model.prompt_template,
            # Processes whose devices work together have to ask equally often, whatever they ask.
            queries_per_call=16 * batch_size if share.of == 1 else 2 * len(examples),
            progress=show,
        )
    if share.of == 1:
        processes.of_first(lambda: write_judgements(path, judgements))
        return judgements
    parts = [path.with_name(f"{path.stem}-{number}-of-{share.of}.jsonl") for number in range(share.of)]
    if share.leads:
        write_judgements(parts[share.number], judgements)
    processes.barrier()
    processes.of_first(lambda: _join(path, parts, examples))
    return read_judgements(path)


def _share_of_pairs(model: RewardModel) -> Share:
    """Return this process's share of the pairs: that of the judge's mesh, or an equal one of those of all processes."""
    share = share_of(mesh_of(model.params))
    return share if share.spans else Share(processes.number(), processes.count())


def _join(path: Path, parts: Sequence[Path], examples: Sequence[Example]) -> None:
    """Write the judgements of all processes to one file, in the order of the pairs, each pair there once."""
    judgements = [item for part in parts for item in read_judgements(part)]
    given = [item.id for item in judgements if item.order == "given"]
    wanted = [example.id for example in examples]
    if given != wanted:
        raise RuntimeError(
            f"{path}: the processes judged {len(given)} pairs of {len(wanted)}, or others; none is written"
        )
    write_judgements(path, judgements)
    for part in parts:
        part.unlink()


def held_out_path(folder: Path, when: str, mode: str) -> Path:
    """Return where a stage keeps its judgements of held-out pairs, ``when`` = before or after training."""
    return folder / "records" / f"{when}-{mode}.jsonl"


def judge_held_out(
    model: RewardModel, examples: Sequence[Example], folder: Path, *, when: str, seed: int, max_new_tokens: int
) -> HeldOut:
    """Judge a stage's held-out pairs greedily and at temperature 1, in both orders, ``when`` = before or after."""
    summaries: dict[str, Summary] = {}
    for mode in HELD_OUT_MODES:
        judgements = judge(
            model,
            examples,
            held_out_path(folder, when, mode),
            protocol=PROTOCOLS["urt"].in_mode(mode),
            title=f"judging {when}, {mode}",
            seed=seed,
            max_new_tokens=max_new_tokens,
            batch_size=64,
        )
        summaries[mode] = summarize(judgements, seed=seed)
    figures = {mode: summary.as_json() for mode, summary in summaries.items()}
    return HeldOut(format_table(result_rows({f"{when} GRPO": summaries})), figures, summaries)

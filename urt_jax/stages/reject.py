"""Rejection sampling: judge a pool several times, train on the correct reasonings, keep the hard questions for GRPO.

1. sample k reasonings to every pair of the pool, batch by batch; each batch is written when it is done;
2. a reasoning is correct if its format is strict, its answer equals the label, and its totals are the sums it states;
3. of every pair with a correct reasoning, train on one of them; pairs that were not always right go to GRPO. Correct
   reasonings are deduplicated and balanced by answer;
4. a short SFT on them gives the model that GRPO starts from.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from urt_jax.checkpoints.model_folder import LoadedModel
from urt_jax.config import RejectConfig
from urt_jax.data.examples import Example, Query
from urt_jax.data.loader import Source, shuffled_epochs
from urt_jax.data.prompts import render
from urt_jax.data.sources import write_examples
from urt_jax.errors import BadInputError, shown
from urt_jax.evals.tables import Cell, format_table
from urt_jax.feeds.records import labelled_pool, skipped_figures, tell_skipped
from urt_jax.files.fields import Fields
from urt_jax.judge.responder import Responder
from urt_jax.progress import progress
from urt_jax.rewards.verifiable import accuracy_reward, consistency_reward, format_reward
from urt_jax.runs import processes
from urt_jax.runs.run_folder import write_result
from urt_jax.runs.shared_lines import Line, SharedLines
from urt_jax.sharding.placement import mesh_of
from urt_jax.sharding.shares import Share, share_of
from urt_jax.stages.policy import open_mesh, open_model
from urt_jax.stages.sft import train_on
from urt_jax.tasks import read_reply
from urt_jax.tasks.replies import WRONG_NOUN


@dataclasses.dataclass(frozen=True)
class Sorted:
    """The sorted pool: the records to train on, those for GRPO, and the number of pairs of each kind."""

    accepted: list[Example]
    hard: list[Example]
    counts: dict[str, Counter[str]]  # task -> always / sometimes / never right
    wrong_nouns: int = 0  # samples that use another task's noun for their candidates


def run(config: RejectConfig) -> None:
    """Sample, sort, write both record files, train on the accepted reasonings."""
    folder = Path(config.workdir)
    loaded = open_model(config.model, config.pixels, seed=config.seed, mesh=open_mesh(config.mesh))
    pool = labelled_pool(config.data, seed=config.seed, swap=config.data.swap, decided=True)
    told = tell_skipped([pool.skipped])
    texts = sample_pool(config, loaded, pool.examples, folder / "records" / "samples.jsonl")
    found = sort_pool(pool.examples, texts, seed=config.seed)
    accepted, hard = folder / "records" / "accepted.jsonl", folder / "records" / "hard.jsonl"
    processes.of_first(lambda: write_examples(accepted, found.accepted))
    processes.of_first(lambda: write_examples(hard, found.hard))
    if not found.accepted:
        raise BadInputError(
            f"none of {len(texts)} questions was answered correctly in {config.samples_per_item} samples, so there are "
            "no records to train on; start from a model trained by sft, or look at records/samples.jsonl"
        )
    source = Source(1.0, shuffled_epochs(found.accepted, seed=config.seed), config.data.template)
    # Encoded again, a reasoning can be longer than when sampled: by its end token, if it had filled every slot.
    longer = dataclasses.replace(config.lengths, max_new_tokens=2 * config.lengths.max_new_tokens)
    learning = dataclasses.replace(config, lengths=longer)
    train_on(learning, folder, loaded, [source], batch_size=config.batch_size, title="reject")
    table = format_counts(found) + f"\nmodel in {folder / 'model'}; questions for GRPO in {hard}"
    if told:
        table += f"\n{told}"
    print(table)
    counts = {task: dict(count) for task, count in found.counts.items()}
    skipped = skipped_figures([pool.skipped])
    write_result(folder, table, counts=counts, accepted=len(found.accepted), hard=len(found.hard), skipped=skipped)


def sample_pool(config: RejectConfig, loaded: LoadedModel, pool: Sequence[Example], path: Path) -> list[list[str]]:
    """Return k texts for every pair; those that an earlier call sampled are read from ``path``.

    On several processes, each encodes and samples its share of every batch.

    Raises:
        BadInputError: the stored samples are not of this pool.
    """
    share = share_of(mesh_of(loaded.params))
    with SharedLines(path, share) as kept:
        if len(_read_samples(path, kept.lines, pool, config.samples_per_item)) < len(pool):
            _sample_rest(config, loaded, pool, kept, share)
        return _read_samples(path, kept.joined(), pool, config.samples_per_item)


def _read_samples(path: Path, lines: Sequence[Line], pool: Sequence[Example], count: int) -> list[list[str]]:
    """Return the texts of the pool's first pairs, which the file has in the pool's order."""
    remedy = "the records were changed after they were sampled: restore them, or give another --workdir"
    found: list[list[str]] = []
    for number, line in enumerate(lines, start=1):
        rows = Fields({"pairs": line}, f"{path} line {number}").items_of("pairs", at_most=len(pool))
        if len(found) + len(rows) > len(pool):
            raise BadInputError(f"{path}: more than the {len(pool)} pairs of the pool; {remedy}")
        for place in rows:
            row, wanted = rows.group(place), pool[len(found)].id
            if row.text("id") != wanted:
                raise BadInputError(f"{row.where}: pair {shown(row.text('id'))}, the pool has {wanted}; {remedy}")
            texts = row.texts("texts")
            if len(texts) != count:
                raise BadInputError(f"{row.where}: {len(texts)} texts of a pair, {count} are sampled; {remedy}")
            found.append(list(texts))
    return found


def _sample_rest(
    config: RejectConfig, loaded: LoadedModel, pool: Sequence[Example], kept: SharedLines, share: Share
) -> None:
    """Sample the batches of the pool that are not yet in the file."""
    step = len(share.order) if share.spans else 1
    size = -(-min(config.batch_questions, len(pool)) // step) * step
    first = sum(map(len, kept.lines))
    start = first % size  # not 0 if earlier batches had another size, for another number of processes
    rest = [pool[start:][place : place + size] for place in range(0, len(pool) - start, size)]
    mine = [example for group in rest for example in _share_of(group, share, size)]
    queries = [Query(e.id, render(e, think=True, template=config.data.template)) for e in mine]
    responder = Responder(
        loaded,
        dtype=config.model.dtype,
        attention=config.model.attention,
        max_prompt_tokens=config.lengths.max_prompt_tokens,
        workers=config.workers,
        decoding=config.sampling,
    )
    done = (first - start) // size
    with (
        closing(responder),
        progress(total=len(queries), title="encoding", unit="pair") as encoding,
        progress(total=len(pool), initial=first, title="sampling", unit="pair") as sampling,
    ):
        batches = responder.stream(
            queries,
            responses=config.samples_per_item,
            sampling=config.sampling,
            max_new_tokens=config.lengths.max_new_tokens,
            seed=config.seed,
            batch=size,
            skip=done,
            encoded=encoding.update,
        )
        for group, texts in zip(rest[done:], batches, strict=True):
            names = [example.id for example in _share_of(group, share, size)]
            kept.append([{"id": name, "texts": list(of_one)} for name, of_one in zip(names, texts, strict=True)])
            sampling.update(len(group))


def _share_of(group: Sequence[Example], share: Share, size: int) -> Sequence[Example]:
    """Return this process's share of a batch of ``size`` pairs; the last batch may have fewer."""
    return [group[place] for place in share.cut(range(size)) if place < len(group)]


def sort_pool(pool: Sequence[Example], texts: Sequence[Sequence[str]], *, seed: int) -> Sorted:
    """Sort pairs by how often they were judged correctly, and draw one distinct correct reasoning of each pair."""
    rng = np.random.default_rng([seed, 5])
    accepted: list[Example] = []
    hard: list[Example] = []
    counts: dict[str, Counter[str]] = {}
    wrong_nouns = 0
    for example, samples in zip(pool, texts):
        right = [text for text in samples if is_correct(text, str(example.solution), task=example.task)]
        kind = "always right" if len(right) == len(samples) else "sometimes right" if right else "never right"
        counts.setdefault(str(example.task), Counter())[kind] += 1
        wrong_nouns += sum(
            (read_reply(text, task=example.task).failure or "").startswith(WRONG_NOUN) for text in samples
        )
        meta = {**example.meta, "correct_of": [len(right), len(samples)]}
        if kind != "always right":
            hard.append(dataclasses.replace(example, meta=meta))
        if right:
            distinct = sorted(set(right))
            response = distinct[int(rng.integers(len(distinct)))]
            provenance = {"stage": "reject", "seed": seed, "correct": len(right), "samples": len(samples)}
            accepted.append(dataclasses.replace(example, response=response, meta={**meta, "provenance": provenance}))
    return Sorted(balanced(accepted, rng), hard, counts, wrong_nouns)


def is_correct(text: str, solution: str, *, task: str | None = None) -> bool:
    """Whether to train on a reasoning: strict format, right answer, and an answer that follows from correct sums.

    A reasoning without readable scores cannot contradict itself; only its format and answer count.
    """
    if not (format_reward(text, task=task) and accuracy_reward(text, solution)):
        return False
    return bool(consistency_reward(text, task=task)) or not read_reply(text, task=task).scores


def balanced(records: Sequence[Example], rng: np.random.Generator) -> list[Example]:
    """Drop records at random until no answer of a task is more frequent than the other."""
    groups: dict[tuple[str, Any], list[int]] = {}
    for index, record in enumerate(records):
        groups.setdefault((str(record.task), record.label), []).append(index)
    kept: list[int] = []
    for task in sorted({task for task, _ in groups}):
        kept += groups.get((task, None), [])  # an open question has no sides
        sides = [groups.get((task, label), []) for label in (1, 2)]
        size = min(map(len, sides)) or max(map(len, sides))
        for side in sides:
            kept += rng.permutation(side)[:size].tolist() if side else []
    return [records[index] for index in sorted(kept)]


def format_counts(found: Sorted) -> str:
    """Return the table of how often pairs were judged correctly."""
    kinds = ("always right", "sometimes right", "never right")
    rows: list[dict[str, Cell]] = [
        {"task": task, **{kind: count[kind] for kind in kinds}} for task, count in sorted(found.counts.items())
    ]
    told = f"learnt: {len(found.accepted)} correct reasonings, one a pair"
    told += f"; to GRPO: {len(found.hard)} pairs, not always right"
    if found.wrong_nouns:
        told += f"\n{WRONG_NOUN}: {found.wrong_nouns} samples use another task's noun for their candidates"
    return f"{format_table(rows)}\n{told}"

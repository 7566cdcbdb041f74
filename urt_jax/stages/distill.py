"""Distil a teacher: ask it for reasonings and keep those whose answer equals the label.

1. Read labelled examples from ``scenes`` or a file.
2. Send each as a request to the teacher; replies are written to ``records/replies.jsonl`` as they arrive.
3. Keep the replies that parse and whose answer equals the label (UnifiedReward-Think, stage 1).
4. Write the kept ones, in the order of the examples, to ``records/cold_start.jsonl``, which ``sft`` trains on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from urt_jax.config import DistillConfig
from urt_jax.data.examples import Example, Query
from urt_jax.data.prompts import render
from urt_jax.data.sources import write_examples
from urt_jax.errors import BadInputError
from urt_jax.feeds.records import labelled_pool, scene_counts, skipped_figures, tell_skipped
from urt_jax.progress import progress
from urt_jax.rewards.verifiable import accuracy_reward
from urt_jax.runs import processes
from urt_jax.runs.preemption import Preempted, PreemptionNotice
from urt_jax.runs.run_folder import write_result
from urt_jax.runs.shared_lines import part_path, part_paths
from urt_jax.scenes.oracle_process import running_oracle
from urt_jax.scenes.pool import OracleSettings
from urt_jax.sharding.shares import Share
from urt_jax.tasks import read_reply
from urt_jax.tasks.wording import template_provenance
from urt_jax.teacher.answers import FILTERED
from urt_jax.teacher.client import ask_teacher
from urt_jax.teacher.replies import Reply, Usage, join_replies, read_replies, write_replies
from urt_jax.teacher.settings import TeacherSettings

OUTCOMES = ("kept", "wrong", "unparsable", "failed")
RARE_OUTCOMES = ("refused", "filtered")  # shown only if they occur
MAX_REASON = 160  # characters of an endpoint's message in the table


@dataclass(frozen=True)
class Filtered:
    """The filtered replies: the records to train on, and the number of replies per task and outcome."""

    records: list[Example]
    counts: dict[str, Counter[str]]  # task -> outcome -> replies
    reasons: Counter[str]  # why replies were unparsable or requests failed


def run(config: DistillConfig) -> None:
    """Ask the teacher, filter, write ``records/cold_start.jsonl`` and ``result.json``, print the table.

    Raises:
        BadInputError: a fault of data, key, endpoint or budget (see ``ask_teacher``), or no request was answered.
    """
    folder = Path(config.workdir)
    pool = labelled_pool(config.data, seed=config.seed, swap=config.data.swap, decided=True)
    told = tell_skipped([pool.skipped])
    replies_path = folder / "records" / "replies.jsonl"
    with _teacher(config) as teacher:
        usage = _ask_all(pool.examples, teacher, config.data.template, replies_path)
    replies = read_replies(replies_path)
    filtered = filter_replies(pool.examples, replies, seed=config.seed, template=config.data.template)
    if usage.answered == 0:
        raise BadInputError(f"the teacher answered none of {len(pool.examples)} requests: {_most(filtered.reasons)}")
    records_path = folder / "records" / "cold_start.jsonl"
    processes.of_first(lambda: write_examples(records_path, filtered.records))
    table = format_counts(filtered, usage) + f"\nrecords: {records_path}"
    if told:
        table += f"\n{told}"
    if usage.failed:
        table += f"\nto ask the {usage.failed} failed requests again: delete {folder / 'result.json'} and start again"
    write_result(folder, table, **_figures(filtered, usage), skipped=skipped_figures([pool.skipped]))
    print(table)


@contextmanager
def _teacher(config: DistillConfig) -> Iterator[TeacherSettings]:
    """Yield the teacher's settings; the built-in teacher, if chosen, runs until the block ends."""
    asked, data = config.teacher, config.data
    if asked.base_url != "builtin":
        yield replace(asked, api_key_env=asked.api_key_env or None)
        return
    pool = OracleSettings(
        counts=scene_counts(data),
        seed=data.seed,
        error_seed=config.seed,
        split=data.split,
        error_rate=asked.error_rate,
    )
    with running_oracle(pool) as base_url:
        yield replace(asked, base_url=base_url, api_key_env=None)


def _ask_all(examples: Sequence[Example], teacher: TeacherSettings, template: str, path: Path) -> Usage:
    """Ask about every example, write all replies to ``path`` and return their usage.

    On several processes, each asks about its share of the examples, with its share of the budget and of the concurrent
    requests, and writes the replies to its own file; the first process joins the files.
    """
    count = processes.count()
    if count == 1:
        return _ask(examples, teacher, template, path)
    twice = [name for name, times in Counter(example.id for example in examples).items() if times > 1]
    if twice:  # two processes may each have one of the two, so that neither would notice
        raise BadInputError(f"record id {twice[0]!r} is used twice; a teacher's replies are kept by id")
    processes.of_first(lambda: join_replies(path, part_paths(path)))
    mine = Share(processes.number(), count).cut(examples)
    part, known = part_path(path, processes.number(), count), read_replies(path)
    write_replies(part, [known[example.id] for example in mine if example.id in known])
    budget = teacher.token_budget
    teacher = replace(
        teacher,
        concurrency=max(teacher.concurrency // count, 1),
        token_budget=None if budget is None else max(budget // count, 1),
    )
    usages = processes.gather(_ask(mine, teacher, template, part))
    processes.of_first(lambda: join_replies(path, part_paths(path)))
    return sum(usages, Usage())


def _ask(examples: Sequence[Example], teacher: TeacherSettings, template: str, path: Path) -> Usage:
    # All prompts are rendered before the first request costs money; pictures are read one by one as they are sent.
    requests = [Query(example.id, render(example, think=True, template=template)) for example in examples]
    with progress(total=len(examples), title="distill", unit="reply") as bar, PreemptionNotice() as notice:

        def show(usage: Usage) -> None:
            told = f"{usage.total_tokens:,} tokens, {usage.retries} retries, {usage.failed} failed"
            bar.set_postfix_str(told, refresh=False)
            bar.update(usage.answered + usage.failed - bar.n)
            if notice.arrived:
                raise Preempted(f"{usage.answered} replies are kept in {path}")

        return ask_teacher(requests, teacher, replies_path=path, progress=show)


def filter_replies(examples: Sequence[Example], replies: Mapping[str, Reply], *, seed: int, template: str) -> Filtered:
    """Keep the replies whose answer equals the label, in the order of ``examples``, with their provenance.

    ``template`` is the prompt template of the requests.
    """
    wording = template_provenance(template)
    records: list[Example] = []
    counts: dict[str, Counter[str]] = {}
    reasons: Counter[str] = Counter()
    for example in examples:
        reply = replies[example.id]
        outcome, reason = judge_reply(example, reply)
        counts.setdefault(str(example.task), Counter())[outcome] += 1
        if reason is not None:
            reasons[reason] += 1
        if outcome == "kept":
            assert reply.text is not None
            provenance = {"teacher": reply.model, **wording, "seed": seed, "raw_reply": reply.text}
            records.append(replace(example, response=reply.text, meta={**example.meta, "provenance": provenance}))
    return Filtered(records, counts, reasons)


def judge_reply(example: Example, reply: Reply) -> tuple[str, str | None]:
    """Return the outcome of a reply, and the reason if it has no verdict to compare with the label.

    The reason for an empty or truncated reply says so, instead of naming the tag that it lacks.
    """
    if reply.text is None:
        return "failed", reply.error
    if reply.refusal is not None:
        outcome = "filtered" if reply.finish_reason == FILTERED else "refused"
        return outcome, f"{outcome}: {' '.join(reply.refusal.split())[:MAX_REASON]}"
    verdict = read_reply(reply.text, task=example.task)
    if verdict.winner is None:
        cut = "cut off at max_tokens" if reply.finish_reason == "length" else None
        empty = None if reply.text.strip() else "an empty reply"
        return "unparsable", cut or empty or verdict.failure
    right = example.solution is not None and accuracy_reward(reply.text, example.solution) == 1
    return ("kept" if right else "wrong"), None


def format_counts(filtered: Filtered, usage: Usage) -> str:
    """Return the printed table: outcomes per task, their sum, tokens, and the commonest reasons of loss."""
    rows = list(filtered.counts.items())
    if len(rows) > 1:
        rows.append(("all", sum(filtered.counts.values(), Counter())))
    outcomes = _outcomes(filtered)
    lines = [f"{'task':<12}{'asked':>8}" + "".join(f"{outcome:>12}" for outcome in outcomes) + f"{'kept %':>9}"]
    for task, counts in rows:
        asked = sum(counts.values())
        shown = "".join(f"{counts[outcome]:>12}" for outcome in outcomes)
        lines.append(f"{task:<12}{asked:>8}{shown}{100 * counts['kept'] / max(asked, 1):>9.1f}")
    labels = Counter(example.label for example in filtered.records)
    lines.append("kept by answer: " + ", ".join(f"{label}: {labels[label]}" for label in sorted(labels, key=str)))
    lines.append(
        f"tokens: {usage.prompt_tokens:,} read, {usage.completion_tokens:,} written; "
        f"{usage.retries:,} retries; {usage.failed:,} requests failed"
    )
    if filtered.reasons:
        lines.append(f"lost: {_most(filtered.reasons)}")
    return "\n".join(lines)


def _outcomes(filtered: Filtered) -> tuple[str, ...]:
    return OUTCOMES + tuple(name for name in RARE_OUTCOMES if any(counts[name] for counts in filtered.counts.values()))


def _most(reasons: Counter[str]) -> str:
    return "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))


def _figures(filtered: Filtered, usage: Usage) -> dict[str, Any]:
    outcomes = _outcomes(filtered)
    return {
        "counts": {task: {name: counts[name] for name in outcomes} for task, counts in filtered.counts.items()},
        "reasons": dict(filtered.reasons),
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "retries": usage.retries,
    }

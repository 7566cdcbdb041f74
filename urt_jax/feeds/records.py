"""The records of a stage by its data settings: bounded pools, endless sources, and the records left out of them."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from urt_jax.data.comparisons import picked
from urt_jax.data.examples import Example, FramePicking
from urt_jax.data.leaks import Benchmark
from urt_jax.data.loader import Source, in_random_order, shuffled_epochs
from urt_jax.data.pairing import pair_key, pairs_of
from urt_jax.data.settings import DataSettings, MixtureData, PoolData, TrainingData
from urt_jax.data.skipped import LEAKED, TWIN, Skipped
from urt_jax.data.sources import Pool, read_pool
from urt_jax.data.sources.files import Record, RecordError
from urt_jax.data.sources.kinds import open_rows
from urt_jax.data.sources.layouts.row import Layout
from urt_jax.data.sources.layouts.table import layout_named
from urt_jax.data.sources.schemas import to_example
from urt_jax.errors import BadInputError
from urt_jax.feeds.streaming import Streamed
from urt_jax.runs import processes
from urt_jax.scenes import DRILLS, direct_answer, make_drill, make_example

NO_RESPONSE = "no response to learn; SFT records need a gpt / assistant turn"
KEPT_RECORDS = 65536  # records drawn on the fly that are cached for the next epoch


def labelled_pool(data: DataSettings, *, seed: int, swap: bool = True, decided: bool = False) -> Pool:
    """Return the labelled pairs of a bounded source, and the records left out of a file with the reasons.

    Scenes are listed task by task, by index. A record of more candidates becomes its labelled pairs (``pairs_of``).
    With ``swap``, the presentation order of a file's pairs is drawn from
    (``seed``, record id): many files list the winner first. ``decided`` leaves ties out.

    Raises:
        BadInputError: the file cannot be read, holds no labelled record, or its share of unusable records exceeds
            ``data.max_skipped_share``.
    """
    if data.path == "scenes":
        counts = scene_counts(data).items()
        made = [scene(data, task, index) for task, count in counts for index in range(count)]
        return Pool(made, Skipped(data.path, len(made)))
    pool = clear_of(data, _read(data, require_label=True))
    pool = _checked(data, pool, "record with a label to compare an answer with")
    counted = pool.examples[: data.count]
    pool = pool._replace(examples=[pair for item in counted for pair in pairs_of(item, seed=seed) if pair.judged])
    pool = without(pool, TWIN, _twin_of())
    if decided:
        pool = without(pool, "tie", lambda item: "no better side" if item.label == "tie" else None)
        if not pool.examples:
            raise BadInputError(f"{data.path} holds no record with a better side: {pool.skipped.told()}")
    examples = [with_picking(item, data) for item in pool.examples]
    return pool._replace(examples=[shuffled_order(item, seed) for item in examples] if swap else examples)


def _twin_of() -> Callable[[Example], str | None]:
    """Return the function that tells of which earlier pair a record is the other order (pools come in both)."""
    seen: dict[Any, Example] = {}

    def flaw(example: Example) -> str | None:
        key = pair_key(example)
        first = None if key is None else seen.setdefault(key, example)
        if first is None or first is example or first.candidates == example.candidates:
            return None
        return f"the candidates of record {first.id} in the other order"

    return flaw


def every_record(data: DataSettings) -> Pool:
    """Return the records of a bounded source as they are stored, labelled or not."""
    if data.path == "scenes":
        return labelled_pool(data, seed=0)
    pool = clear_of(data, _read(data))
    return pool._replace(examples=[with_picking(item, data) for item in pool.examples[: data.count]])


def clear_of(data: DataSettings, pool: Pool) -> Pool:
    """Return the pool without the records that share a prompt or a medium with a source of ``data.exclude``.

    Raises:
        BadInputError: a source cannot be read, holds no record, or one of its media or of the pool's is broken.
    """
    if not isinstance(data, TrainingData) or not data.exclude:
        return pool
    benchmark = Benchmark()
    for path in data.exclude:
        held = read_pool(path)
        if not held.examples:
            raise BadInputError(f"data.exclude: {path} holds no record; {held.skipped.told() or 'the file is empty'}")
        benchmark.add(held.examples)

    def flaw(example: Example) -> str | None:
        shared = benchmark.shared_with(example)
        return None if shared is None else f"{shared} in {', '.join(data.exclude)}"

    return without(pool, LEAKED, flaw)


def _read(data: DataSettings, *, require_label: bool = False) -> Pool:
    return read_pool(
        data.path, media_root=data.media_root, require_label=require_label, first_label=data.first_label,
        layout=data.layout,
    )  # fmt: skip


def _checked(data: DataSettings, pool: Pool, needed: str) -> Pool:
    if not pool.examples:
        raise BadInputError(f"{data.path} holds no {needed}: {pool.skipped.told() or 'the file is empty'}")
    pool.skipped.check(data.max_skipped_share)
    return pool


def without(pool: Pool, reason: str, flaw: Callable[[Example], str | None]) -> Pool:
    """Return a pool without the records in which ``flaw`` finds a fault, and count them under ``reason``."""
    found = [(example, flaw(example)) for example in pool.examples]
    told = [f"record {example.id} has {why}" for example, why in found if why is not None]
    kept = [example for example, why in found if why is None]
    return Pool(kept, pool.skipped.and_also(reason, told))


def tell_skipped(sources: Iterable[Skipped | None]) -> str:
    """Print which records were left out of the sources, on the first process; return the text for the stage's table."""
    told = "\n".join(filter(None, (skipped.told() for skipped in sources if skipped is not None)))
    if told and processes.is_first():
        print(told)
    return told


def skipped_figures(sources: Iterable[Skipped | None]) -> list[dict[str, Any]]:
    """Return the value of ``skipped`` in ``result.json``: an object for each source with records left out."""
    return [skipped.as_json() for skipped in sources if skipped is not None and skipped.counts]


def scene(data: DataSettings, task: str, index: int) -> Example:
    """Return one pair of the built-in scenes."""
    example = make_example(task, split=data.split, seed=data.seed, index=index)
    return with_picking(example, data)


def with_picking(example: Example, data: DataSettings) -> Example:
    """Return a record whose clips are picked by the data's ``max_frames`` and ``fps``."""
    return picked(example, FramePicking(max_frames=data.max_frames, fps=data.fps))


def shuffled_order(example: Example, seed: int) -> Example:
    """Return a pair unchanged or swapped, drawn from (``seed``, record id); an unswappable record stays unchanged."""
    if not example.swappable:
        return example
    return example.swapped() if hashlib.sha256(f"{seed}:{example.id}".encode()).digest()[0] % 2 else example


def scene_counts(data: DataSettings) -> dict[str, int]:
    """Split ``count`` over the tasks by weight; the rest after rounding down goes to the largest remainders."""
    given, total = data.drawn_tasks(), data.count or 0
    shares = {task: total * weight / sum(given.values()) for task, weight in given.items()}
    counts = {task: int(share) for task, share in shares.items()}
    by_remainder = sorted(shares, key=lambda task: counts[task] - shares[task])
    for task in by_remainder[: total - sum(counts.values())]:
        counts[task] += 1
    return counts


def training_source(data: MixtureData, *, seed: int) -> Source:
    """Return an endless stream of records with a response to learn.

    The pairs of ``scenes`` get direct answers as responses, ``drills`` have their own; both are drawn on the fly.
    """
    if data.path == "scenes":

        @lru_cache(KEPT_RECORDS)
        def answered(index: int) -> Example:
            example = drawn_scene(data, index)
            return replace(example, response=direct_answer(example))

        return Source(data.weight, lambda place: answered(place % data.count if data.count else place), data.template)
    if data.path == "drills":
        kinds = data.drills or DRILLS

        @lru_cache(KEPT_RECORDS)
        def drill(index: int) -> Example:
            kind = kinds[index % len(kinds)]
            knobs = {"misread": data.misread, "wide": data.wide}
            example = make_drill(kind, split=data.split, seed=data.seed, index=index, **knobs)
            return with_picking(example, data)

        return Source(data.weight, lambda place: drill(place % data.count if data.count else place), data.template)
    if (stream := _streamed(data, partial(_to_learn, data), seed=seed)) is not None:
        return Source(data.weight, stream.get, data.template, stream.skipped)
    pool = clear_of(data, _read(data))
    pool = without(pool, "no response", lambda item: NO_RESPONSE if item.response is None else None)
    pool = _checked(data, pool, "record with a response to learn")
    examples = [with_picking(item, data) for item in pool.examples[: data.count]]
    return Source(data.weight, shuffled_epochs(examples, seed=seed), data.template, pool.skipped)


def _streamed(data: TrainingData, convert: Callable[..., Example], *, seed: int) -> Streamed | None:
    """Return the stream of a large source that is used as a whole; None: the source is read at the start."""
    if data.count is not None or data.exclude:
        return None
    rows = open_rows(data.path, media_root=data.media_root, first_label=data.first_label)
    if not rows.streamed:
        return None
    layout = None if data.layout is None else layout_named(data.layout)
    made = partial(convert, layout=layout, seed=seed)
    return Streamed(rows, made, seed=seed, name=data.path, most_skipped=data.max_skipped_share)


def _to_learn(data: DataSettings, record: Record, place: int, *, layout: Layout | None, seed: int) -> Example:
    example = to_example(record, require_label=False, layout=layout)
    if example.response is None:
        raise RecordError(f"record {example.id} has {NO_RESPONSE}", reason="no response")
    return with_picking(example, data)


def _to_ask(data: DataSettings, record: Record, place: int, *, layout: Layout | None, seed: int) -> Example:
    """Return a record with a better side; of one with more candidates, a pair that is drawn by the place."""
    example = to_example(record, require_label=True, layout=layout)
    pairs = [pair for pair in pairs_of(example, seed=seed) if pair.judged and pair.label != "tie"]
    if not pairs:
        raise RecordError(f"record {example.id} has no better side", reason="tie")
    drawn = 0 if len(pairs) == 1 else int(np.random.default_rng([seed, 7, place]).integers(len(pairs)))
    return with_picking(pairs[drawn], data)


def question_pool(data: DataSettings, *, seed: int) -> Pool:
    """Return the pairs of a bounded source with a better side, in their stored presentation order.

    The caller draws a presentation order each time a pair is asked, so one order per record would add nothing.

    Raises:
        BadInputError: as ``labelled_pool``.
    """
    return labelled_pool(data, seed=seed, swap=False, decided=True)


def question_source(data: PoolData, *, seed: int) -> Source:
    """Return an endless stream of labelled questions; with ``data.swap``, presentation orders are random."""
    get: Callable[[int], Example]
    skipped = None
    if data.path == "scenes" and data.count is None:
        get = partial(drawn_scene, data)
    elif (stream := _streamed(data, partial(_to_ask, data), seed=seed)) is not None:
        get, skipped = stream.get, stream.skipped
    else:
        examples, skipped = question_pool(data, seed=seed)
        get = shuffled_epochs(examples, seed=seed)
    if not data.swap:
        return Source(1.0, get, data.template, skipped)

    def in_some_order(place: int) -> Example:
        return in_random_order(get(place), seed=seed, place=place)

    return Source(1.0, in_some_order, data.template, skipped)


def drawn_scene(data: DataSettings, index: int) -> Example:
    """Return pair ``index`` of an endless mixture of tasks; its task is drawn by weight from (seed, index)."""
    names, weights = zip(*data.drawn_tasks().items())
    draw = np.random.default_rng([data.seed, 4, index]).choice(len(names), p=np.array(weights) / sum(weights))
    return scene(data, names[int(draw)], index)

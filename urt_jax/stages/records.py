"""From the data settings of a stage to records, and from records to encoded chats."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from urt_jax.config import DataConfig
from urt_jax.data.comparisons import picked
from urt_jax.data.examples import Example, FramePicking, Media
from urt_jax.data.loader import Source, in_random_order, shuffled_epochs
from urt_jax.data.prompts import render
from urt_jax.data.skipped import Skipped
from urt_jax.data.sources import Pool, read_pool
from urt_jax.data.workers import Pending
from urt_jax.errors import BadInputError
from urt_jax.families.processor import NamedChat, Processor, encode_response, encoding_workers
from urt_jax.runs import processes
from urt_jax.scenes import DRILLS, direct_answer, make_drill, make_example
from urt_jax.tasks import TASKS
from urt_jax.types import EncodedChat

NO_RESPONSE = "no response to learn; SFT records need a gpt / assistant turn"
KEPT_RECORDS = 65536  # records drawn on the fly that are kept for the next epoch
CACHED_BYTES = 3 << 30  # encoded pictures kept between epochs


def labelled_pool(data: DataConfig, *, seed: int, decided: bool = False) -> Pool:
    """Return the labelled pairs of a bounded source, and what was left out of a file and why.

    Scenes come task by task, by index. Pairs of a file are shown in an order drawn from (``seed``, record id) when
    ``data.swap`` allows it: many files name the winner first. ``decided`` leaves ties out.

    Raises:
        BadInputError: the file cannot be read, holds no labelled record, or more that cannot be used than
            ``data.max_skipped_share`` allows.
    """
    if data.path == "scenes":
        counts = scene_counts(data).items()
        made = [scene(data, task, index) for task, count in counts for index in range(count)]
        return Pool(made, Skipped(data.path, len(made)))
    pool = _checked(data, _read(data, require_label=True), "record with a label to compare an answer with")
    if decided:
        pool = without(pool, "tie", lambda item: "no better side" if item.label == "tie" else None)
        if not pool.examples:
            raise BadInputError(f"{data.path} holds no record with a better side: {pool.skipped.told()}")
    examples = [with_picking(item, data) for item in pool.examples[: data.count]]
    return pool._replace(examples=[shuffled_order(item, seed) for item in examples] if data.swap else examples)


def _read(data: DataConfig, *, require_label: bool = False) -> Pool:
    return read_pool(data.path, media_root=data.media_root, require_label=require_label, first_label=data.first_label)


def _checked(data: DataConfig, pool: Pool, needed: str) -> Pool:
    if not pool.examples:
        raise BadInputError(f"{data.path} holds no {needed}: {pool.skipped.told() or 'the file is empty'}")
    pool.skipped.check(data.max_skipped_share)
    return pool


def without(pool: Pool, reason: str, flaw: Callable[[Example], str | None]) -> Pool:
    """Leave out of a pool the records in which ``flaw`` finds something, counted under one reason."""
    found = [(example, flaw(example)) for example in pool.examples]
    told = [f"record {example.id} has {why}" for example, why in found if why is not None]
    kept = [example for example, why in found if why is None]
    return Pool(kept, pool.skipped.and_also(reason, told))


def tell_skipped(sources: Iterable[Skipped | None]) -> str:
    """Print once, as soon as sources are read, what was left out of them; return it for the table of the stage."""
    told = "\n".join(filter(None, (skipped.told() for skipped in sources if skipped is not None)))
    if told and processes.is_first():
        print(told)
    return told


def skipped_figures(sources: Iterable[Skipped | None]) -> list[dict[str, Any]]:
    """Return what ``result.json`` keeps under ``skipped``: an object for each source that lacks something."""
    return [skipped.as_json() for skipped in sources if skipped is not None and skipped.counts]


def scene(data: DataConfig, task: str, index: int) -> Example:
    """Return one pair of the built-in task."""
    example = make_example(task, split=data.split, seed=data.seed, index=index, difficulty=data.difficulty)
    return with_picking(example, data)


def with_picking(example: Example, data: DataConfig) -> Example:
    """Return a record whose clips say which of their frames are used, by ``max_frames`` and ``fps`` of the data."""
    return picked(example, FramePicking(max_frames=data.max_frames, fps=data.fps))


def shuffled_order(example: Example, seed: int) -> Example:
    """Return a pair as it is or swapped, drawn from (``seed``, record id); what cannot be swapped stays as it is."""
    if not example.swappable:
        return example
    return example.swapped() if hashlib.sha256(f"{seed}:{example.id}".encode()).digest()[0] % 2 else example


def scene_counts(data: DataConfig) -> dict[str, int]:
    """Share ``count`` among the tasks by weight; what rounding leaves goes to the largest remainders."""
    given, total = data.tasks.positive(), data.count or 0
    shares = {task: total * given[task] / sum(given.values()) for task in TASKS if task in given}
    counts = {task: int(share) for task, share in shares.items()}
    by_remainder = sorted(shares, key=lambda task: counts[task] - shares[task])
    for task in by_remainder[: total - sum(counts.values())]:
        counts[task] += 1
    return counts


def training_source(data: DataConfig, *, seed: int) -> Source:
    """Return an endless stream of records with a response to learn.

    ``scenes`` pairs are learnt as direct answers and ``drills`` as they are, both made on the fly.
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
    pool = without(_read(data), "no response", lambda item: NO_RESPONSE if item.response is None else None)
    pool = _checked(data, pool, "record with a response to learn")
    examples = [with_picking(item, data) for item in pool.examples[: data.count]]
    return Source(data.weight, shuffled_epochs(examples, seed=seed), data.template, pool.skipped)


def question_pool(data: DataConfig, *, seed: int) -> Pool:
    """Return the pairs of a bounded source with a better side, in the order they are written.

    Who asks draws the order of every showing anew; an order drawn once a record would add nothing to that.

    Raises:
        BadInputError: as ``labelled_pool``.
    """
    return labelled_pool(replace(data, swap=False), seed=seed, decided=True)


def question_source(data: DataConfig, *, seed: int) -> Source:
    """Return an endless stream of labelled questions, each shown in a random order where ``data.swap`` asks for it."""
    get: Callable[[int], Example]
    skipped = None
    if data.path == "scenes" and data.count is None:
        get = partial(drawn_scene, data)
    else:
        examples, skipped = question_pool(data, seed=seed)
        get = shuffled_epochs(examples, seed=seed)
    if not data.swap:
        return Source(data.weight, get, data.template, skipped)

    def in_some_order(place: int) -> Example:
        return in_random_order(get(place), seed=seed, place=place)

    return Source(data.weight, in_some_order, data.template, skipped)


class TrainedRecord(NamedTuple):
    """A record ready to be learnt: prompt, response ids with the end token, and what is read in their place."""

    chat: EncodedChat
    response: np.ndarray
    history: np.ndarray


class Encoder:
    """Encodes records for one checkpoint and keeps small ones, so that an epoch decodes each picture once.

    ``workers`` is the number of processes that decode and lay out the pictures. What ``begin_...`` returns gives the
    result, or raises the error, when it is called; until then they work on it, without any nobody does.
    """

    def __init__(self, processor: Processor, *, max_prompt_tokens: int, max_new_tokens: int, workers: int = 0):
        self.processor = processor
        self._max_new = max_new_tokens
        self._workers = encoding_workers(processor, max_tokens=max_prompt_tokens, count=workers)
        self._cache: dict[Any, EncodedChat] = {}
        self._cached_bytes = 0

    @property
    def workers(self) -> int:
        """Number of processes that encode."""
        return self._workers.count

    def close(self) -> None:
        """End the workers."""
        self._workers.close()

    def prompt(self, example: Example, *, template: str, think: bool = True) -> EncodedChat:
        """Encode the question of a record, asked in the wording of ``template`` (see ``prompts.render``).

        Raises:
            BadInputError: as ``encode_chat``.
        """
        return self.begin_prompt(example, template=template, think=think)()

    def prompts(self, examples: Iterable[Example], *, template: str, ahead: int = 0) -> Iterator[EncodedChat]:
        """Encode the questions of many records in their order, while workers do the next ``ahead``."""
        begun = (self.begin_prompt(example, template=template) for example in examples)
        return self._workers.in_order(begun, ahead=ahead)

    def begin_prompt(self, example: Example, *, template: str, think: bool = True) -> Pending[EncodedChat]:
        """Begin what ``prompt`` does."""
        # Two files may give one id to different records, so the pictures and words are part of the key.
        shown = tuple(_mark_of(item) for item in (*example.context, *example.candidates))
        key = (example.id, bool(example.meta.get("swapped")), think, template, example.prompt, example.text, shown)
        if key in self._cache:
            return partial(self._cache.__getitem__, key)
        chat = render(example, think=think, template=template)
        pending = self._workers.begin(NamedChat(chat, f"record {example.id}"))
        return lambda: self._kept(key, pending)

    def _kept(self, key: Any, pending: Pending[EncodedChat]) -> EncodedChat:
        if key in self._cache:
            return self._cache[key]
        encoded = pending()
        size = sum(frame.patches_PC.nbytes for frame in encoded.frames)
        if self._cached_bytes + size <= CACHED_BYTES:
            self._cache[key] = encoded
            self._cached_bytes += size
        return encoded

    def response(self, example: Example, *, opening: str = "") -> np.ndarray:
        """Tokenise the response to learn, with its end token and without what its prompt opened of it.

        Raises:
            BadInputError: there is none, it is longer than ``max_new_tokens``, or as ``encode_response``.
        """
        if example.response is None:
            raise BadInputError(f"record {example.id} has {NO_RESPONSE}")
        ids = encode_response(self.processor, example.response, name=f"record {example.id}", opening=opening)
        if len(ids) > self._max_new:
            raise BadInputError(
                f"record {example.id}: its response has {len(ids)} tokens, lengths.max_new_tokens is {self._max_new}; "
                "raise it or shorten the record"
            )
        return ids

    def trained(self, example: Example, *, template: str) -> TrainedRecord:
        """Encode a record with its response; a response without reasoning goes with the direct prompt.

        Raises:
            BadInputError: as ``prompt`` and ``response``, or a history of another length than the response.
        """
        return self.begin_trained(example, template=template)()

    def begin_trained(self, example: Example, *, template: str) -> Pending[TrainedRecord]:
        """Begin what ``trained`` does."""
        think = any(tag in (example.response or "") for tag in ("<think>", "</think>"))
        return partial(self._trained, example, self.begin_prompt(example, template=template, think=think))

    def _trained(self, example: Example, prompt: Pending[EncodedChat]) -> TrainedRecord:
        chat, name = prompt(), f"record {example.id}"
        response = history = self.response(example, opening=chat.opening)
        if example.history is not None:
            history = encode_response(self.processor, example.history, name=name, opening=chat.opening)
        if len(history) != len(response):
            raise BadInputError(
                f"{name}: its history has {len(history)} tokens, its response {len(response)}; the "
                "history is read in place of the response token by token, so give one of the same length"
            )
        return TrainedRecord(chat, response, history)


def _mark_of(item: Media | str) -> Any:
    """Return what tells a picture, clip or answer from another of the same record id: its path, or its content."""
    if not isinstance(item, Media):
        return item
    source = item.source
    if isinstance(source, np.ndarray):
        source = source.shape, hash(source.tobytes())
    elif isinstance(source, (list, tuple)):
        source = tuple(map(str, source))
    return source, item.fps, item.picking


def drawn_scene(data: DataConfig, index: int) -> Example:
    """Return the index-th pair of an endless mix of tasks; its task is drawn by weight from (seed, index)."""
    weights = data.tasks.positive()
    names, shares = [task for task in TASKS if task in weights], np.array([weights[t] for t in TASKS if t in weights])
    draw = int(np.random.default_rng([data.seed, 4, index]).choice(len(names), p=shares / shares.sum()))
    return scene(data, names[draw], index)

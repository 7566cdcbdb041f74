"""The scores of single candidates: as the judge writes them, and as expected values over the tokens of the numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from urt_jax.data.examples import Chat, Example, Query
from urt_jax.errors import BadInputError
from urt_jax.judge.responder import Responder
from urt_jax.tasks import TASKS, read_reply
from urt_jax.tasks.points import number_spans

_NUMBER = re.compile(r"\s?([0-9]{1,3}(?:\.[0-9]{1,4})?)")
_DIGITS = re.compile(r"[0-9]{1,4}")


@dataclass(frozen=True)
class Score:
    """The scores of one candidate; both are empty exactly if ``failure`` says why.

    ``scores`` are the numbers that the judge wrote, by axis. ``expected`` are the means of the numbers that it might
    have written (see ``expected_number``): written scores cluster on few values, expected ones tell apart candidates
    with the same.
    """

    scores: Mapping[str, float]
    expected: Mapping[str, float]
    reasoning: str
    text: str
    failure: str | None

    @property
    def mean(self) -> float:
        """Mean of the expected scores; NaN after a failure."""
        return sum(self.expected.values()) / len(self.expected) if self.expected else math.nan


class Number(NamedTuple):
    """A number in a reply: its axis, its tokens' places among the reply's tokens, and the texts of those tokens."""

    axis: str
    places: tuple[int, ...]
    texts: tuple[str, ...]


class Vocabulary:
    """The numbers that a tokenizer's tokens stand for."""

    def __init__(self, tokenizer: Any, size: int) -> None:
        self._tokenizer, self._size = tokenizer, size

    @cached_property
    def _texts(self) -> list[str]:
        known = min(self._size, len(self._tokenizer))
        return [*self._tokenizer.batch_decode([[n] for n in range(known)]), *[""] * (self._size - known)]

    @cached_property
    def whole_V(self) -> Float[np.ndarray, " V"]:
        """The number that a token is, perhaps after a space; NaN of other tokens."""
        found = [_NUMBER.fullmatch(text) for text in self._texts]
        return np.array([float(match[1]) if match else np.nan for match in found])

    @cached_property
    def decimal_V(self) -> Float[np.ndarray, " V"]:
        """The value of a token of digits after the decimal point, "25" = 0.25; NaN of other tokens."""
        return np.array([float(f"0.{text}") if _DIGITS.fullmatch(text) else np.nan for text in self._texts])


def expected_number(
    logits_KV: Float[np.ndarray, "K V"], texts: Sequence[str], scale: tuple[int, int], vocabulary: Vocabulary
) -> float:
    """Return the expected value of a written number of K tokens, each predicted by a row of logits.

    The first token gives the mean of the whole numbers in the scale, weighted by their probabilities among themselves.
    Digits after a decimal point add their mean given the tokens before them, so that the decimals are those of the
    whole number that was written. The sum is kept within the scale.
    """
    low, high = scale
    whole_V = vocabulary.whole_V
    total = _mean(logits_KV[0], np.where((whole_V >= math.floor(low)) & (whole_V <= high), whole_V, np.nan))
    after_point, worth = "." in texts[0], 1.0
    for logits_V, text in zip(logits_KV[1:], texts[1:]):
        if after_point and _DIGITS.fullmatch(text):
            total += worth * _mean(logits_V, vocabulary.decimal_V)
            worth *= 10.0 ** -len(text)
        after_point = after_point or "." in text
    return float(min(max(total, low), high))


def _mean(logits_V: Float[np.ndarray, " V"], value_V: Float[np.ndarray, " V"]) -> float:
    """Return the mean of the values that are numbers, weighted by the softmax of their logits alone."""
    known = ~np.isnan(value_V)
    logits = logits_V[: len(value_V)][known].astype(np.float64)
    weights = np.exp(logits - logits.max())
    return float(np.average(value_V[known], weights=weights))


def numbers_of(tokenizer: Any, reply: str, spans: Mapping[str, tuple[int, int]]) -> tuple[list[int], list[Number]]:
    """Return a reply's token ids, and the tokens that hold any part of each number at a span of characters."""
    encoded = tokenizer(reply, add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoded["offset_mapping"]
    found = []
    for axis, (start, end) in spans.items():
        places = tuple(n for n, (first, last) in enumerate(offsets) if first < end and last > start)
        texts = tuple(reply[slice(*offsets[n])].strip() for n in places)
        found.append(Number(axis, places, texts))
    return encoded["input_ids"], found


def score_examples(
    responder: Responder,
    examples: Sequence[Example],
    chats: Sequence[Chat],
    ask: Callable[[Sequence[Query]], Sequence[Sequence[str]]],
    *,
    think: bool,
    batch_size: int,
) -> list[Score]:
    """Ask for the score of each candidate, and read the numbers and their expected values.

    Raises:
        BadInputError: a record's task does not score one candidate.
    """
    for example in examples:
        if example.task is None or TASKS[example.task].candidates != 1:
            raise BadInputError(
                f"record {example.id}: task {example.task} does not score one candidate; give "
                + ", ".join(name for name, task in TASKS.items() if task.candidates == 1)
            )
    texts = [text for (text,) in ask([Query(e.id, chat) for e, chat in zip(examples, chats, strict=True)])]
    read = [read_reply(text, task=example.task, think=think) for text, example in zip(texts, examples, strict=True)]
    good = [n for n, verdict in enumerate(read) if verdict.failure is None]
    means = dict(zip(good, _expected(responder, [(examples[n], chats[n], texts[n]) for n in good], batch_size)))
    return [
        Score({name: score for name, (score,) in v.scores.items()}, means.get(n, {}), v.reasoning, v.text, v.failure)
        for n, v in enumerate(read)
    ]


def _expected(
    responder: Responder, replies: Sequence[tuple[Example, Chat, str]], batch_size: int
) -> list[dict[str, float]]:
    """Return the expected score of every axis of each reply, which parses."""
    tokenizer = responder.processor.tokenizer
    vocabulary = Vocabulary(tokenizer, responder.processor.config.decoder.vocab_size)
    means = []
    for start in range(0, len(replies), batch_size):
        group = replies[start : start + batch_size]
        encoded = [responder.encode(chat, name=f"record {example.id}") for example, chat, _ in group]
        found = []
        for (example, _, text), chat in zip(group, encoded):
            reply = text.removeprefix(chat.opening)  # the prompt holds it already
            found.append(numbers_of(tokenizer, reply, number_spans(reply, TASKS[str(example.task)])))
        places = [[place for number in numbers for place in number.places] for _, numbers in found]
        logits = responder.logits_at(encoded, [np.asarray(ids, np.int32) for ids, _ in found], places)
        for (example, _, _), (_, numbers), rows_KV in zip(group, found, logits):
            ends = np.cumsum([len(number.places) for number in numbers])[:-1]
            scale = TASKS[str(example.task)].scale
            means.append(
                {
                    number.axis: expected_number(own_KV, number.texts, scale, vocabulary)
                    for number, own_KV in zip(numbers, np.split(rows_KV, ends))
                }
            )
    return means

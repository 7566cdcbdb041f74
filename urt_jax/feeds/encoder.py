"""Encoding of records for one checkpoint, with a cache for the following epochs."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from urt_jax.data.examples import Example, Media
from urt_jax.data.prompts import render
from urt_jax.data.workers import Pending
from urt_jax.errors import BadInputError
from urt_jax.families.processor import NamedChat, Processor, encode_response, encoding_workers
from urt_jax.feeds.records import NO_RESPONSE
from urt_jax.types import EncodedChat

CACHED_BYTES = 3 << 30  # bytes of encoded pictures kept between epochs


class TrainedRecord(NamedTuple):
    """An encoded training record: prompt, response ids with the end token, and the ids read in place of them."""

    chat: EncodedChat
    response: np.ndarray
    input_response: np.ndarray


class Encoder:
    """Encodes records for one checkpoint and caches them up to ``CACHED_BYTES``, so that pictures are decoded once.

    ``workers`` is the number of processes that decode pictures and cut them into patches. The ``begin_...`` methods
    return a function that waits for the workers and returns the result or raises the error. Without workers, that
    function does the work itself.
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
        """Encode the prompt of a record, worded by ``template`` (see ``prompts.render``).

        Raises:
            BadInputError: as ``encode_chat``.
        """
        return self.begin_prompt(example, template=template, think=think)()

    def prompts(self, examples: Iterable[Example], *, template: str, ahead: int = 0) -> Iterator[EncodedChat]:
        """Encode the prompts of many records in their order, while workers encode the next ``ahead``."""
        begun = (self.begin_prompt(example, template=template) for example in examples)
        return self._workers.in_order(begun, ahead=ahead)

    def begin_prompt(self, example: Example, *, template: str, think: bool = True) -> Pending[EncodedChat]:
        """Start ``prompt``; see ``Encoder``."""
        # Two files may give different records the same id, so the pictures and texts are part of the key.
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
        """Tokenise the response to learn, with its end token and without the ``opening`` that its prompt wrote.

        Raises:
            BadInputError: the record has no response, it is longer than ``max_new_tokens``, or as ``encode_response``.
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
        """Encode a record with its response; a response without reasoning gets the prompt for direct answers.

        Raises:
            BadInputError: as ``prompt`` and ``response``, or an input_response of another length than the response.
        """
        return self.begin_trained(example, template=template)()

    def begin_trained(self, example: Example, *, template: str) -> Pending[TrainedRecord]:
        """Start ``trained``; see ``Encoder``."""
        think = any(tag in (example.response or "") for tag in ("<think>", "</think>"))
        return partial(self._trained, example, self.begin_prompt(example, template=template, think=think))

    def _trained(self, example: Example, prompt: Pending[EncodedChat]) -> TrainedRecord:
        chat, name = prompt(), f"record {example.id}"
        response = input_response = self.response(example, opening=chat.opening)
        if example.input_response is not None:
            input_response = encode_response(self.processor, example.input_response, name=name, opening=chat.opening)
        if len(input_response) != len(response):
            raise BadInputError(
                f"{name}: its input_response has {len(input_response)} tokens, its response {len(response)}; the "
                "input_response is read in place of the response token by token, so give one of the same length"
            )
        return TrainedRecord(chat, response, input_response)


def _mark_of(item: Media | str) -> Any:
    """Return a key for a picture, clip or answer among those of one record id: its path, or its content."""
    if not isinstance(item, Media):
        return item
    source = item.source
    if isinstance(source, np.ndarray):
        source = source.shape, hash(source.tobytes())
    elif isinstance(source, (list, tuple)):
        source = tuple(map(str, source))
    return source, item.fps, item.picking

"""Stop strings on the device: an automaton over the bytes of the tokens detects them, however a text is tokenised.

A stop string may begin and end inside tokens, so comparing ids would miss it. The automaton of Aho and Corasick (1975)
reads bytes; folded over the bytes of each token it becomes a table ``[states, V]``, with one lookup per token.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from urt_jax.types import Array


class StopTable(NamedTuple):
    """An automaton that starts in state 0: the state after each token, and the states that have read a stop string."""

    next_SV: Int[Array, "states V"]
    found_S: Bool[Array, " states"]


def no_stops(vocab_size: int) -> StopTable:
    """Return a table with a single state, which never ends a text."""
    return StopTable(np.zeros((1, vocab_size), np.int16), np.zeros(1, bool))


def stop_table(tokenizer: Any, stops: Sequence[str], *, vocab_size: int) -> StopTable:
    """Return the table for these stop strings. After a stop string is found, the state stays in its found state.

    Special tokens, which decoding to text drops, and ids without a token keep the state.

    Raises:
        ValueError: an empty stop string.
    """
    if not all(stops):
        raise ValueError(f"stop strings are {list(stops)}: an empty one would end every text at once")
    if not stops:
        return no_stops(vocab_size)
    step_SC, found_S = _byte_automaton([stop.encode() for stop in stops])
    states = len(found_S)
    next_SV = np.tile(np.arange(states, dtype=np.int16)[:, None], (1, vocab_size))
    texts = token_bytes(tokenizer)
    for length in sorted({len(text) for text in texts.values()} - {0}):
        ids = np.array([token for token, text in texts.items() if len(text) == length])
        data = np.frombuffer(b"".join(texts[token] for token in ids.tolist()), np.uint8).reshape(-1, length)
        for state in range(states):
            here = np.full(len(ids), state)
            for place in range(length):
                here = np.where(found_S[here], here, step_SC[here, data[:, place]])
            next_SV[state, ids] = here
    return StopTable(next_SV, found_S)


def join_tables(tables: Sequence[StopTable]) -> tuple[StopTable, list[int]]:
    """Return the disjoint union of several tables, and the first state of each."""
    first = np.cumsum([0, *(len(table.found_S) for table in tables)])[:-1].tolist()
    next_SV = np.concatenate([np.asarray(table.next_SV) + np.int16(start) for table, start in zip(tables, first)])
    return StopTable(next_SV, np.concatenate([np.asarray(table.found_S) for table in tables])), first


def token_bytes(tokenizer: Any) -> dict[int, bytes]:
    """Return the bytes that each token of a byte-level vocabulary adds to a decoded text.

    Added tokens add their content, special tokens nothing.
    """
    byte_of = {char: byte for byte, char in enumerate(byte_alphabet())}
    added = tokenizer.added_tokens_decoder
    texts = {}
    for text, token in tokenizer.get_vocab().items():
        if token in added:
            texts[token] = b"" if added[token].special else added[token].content.encode()
        else:
            texts[token] = bytes(byte_of[char] for char in text)
    return texts


def byte_alphabet() -> str:
    """Return the 256 characters by which byte-level vocabularies (GPT-2) encode bytes, in byte order.

    Printable bytes of Latin-1 keep their characters; the others take the characters from 256 on.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return "".join(chr(byte if byte in printable else next(spare)) for byte in range(256))


def _byte_automaton(stops: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Return the transitions, int [states, 256], and the mask of states that have read a stop string."""
    prefixes = sorted({stop[:end] for stop in stops for end in range(len(stop) + 1)}, key=len)
    number = {prefix: state for state, prefix in enumerate(prefixes)}
    step = np.zeros((len(prefixes), 256), np.int64)
    for state, prefix in enumerate(prefixes):
        for byte in range(256):
            read = prefix + bytes([byte])
            longest = next(read[start:] for start in range(len(read) + 1) if read[start:] in number)
            step[state, byte] = number[longest]
    return step, np.array([any(prefix.endswith(stop) for stop in stops) for prefix in prefixes])

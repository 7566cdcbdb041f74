"""Tokens of a checkpoint for the sampler: end ids, suppressed ids, stop strings, and decoding to text."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from urt_jax.families.processor import Processor
from urt_jax.generation.state import Vocabulary
from urt_jax.generation.stops import StopTable, join_tables, no_stops, stop_table


def make_vocabulary(processor: Processor) -> Vocabulary:
    """Return end ids, suppressed ids and padding of a checkpoint as arrays, without stop strings."""
    suppressed = np.zeros(processor.config.decoder.vocab_size, bool)
    suppressed[list(processor.suppressed_ids)] = True
    stops = StopTable(*map(jnp.asarray, no_stops(len(suppressed))))
    ends = jnp.array(processor.end_ids, jnp.int32)
    return Vocabulary(ends, jnp.array(suppressed), jnp.int32(processor.pad_id), stops)


class StopVocabularies:
    """The vocabulary of a checkpoint with the automata of stop strings; each is built and placed on devices once."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        self.plain = make_vocabulary(processor)
        self._made: dict[tuple[tuple[str, ...], ...], tuple[Vocabulary, dict[tuple[str, ...], int]]] = {
            ((),): (self.plain, {(): 0})
        }

    def of(self, stops: Sequence[tuple[str, ...]]) -> tuple[Vocabulary, dict[tuple[str, ...], int]]:
        """Return the vocabulary for rows with these stop strings, and the automaton's first state for each tuple.

        Raises:
            ValueError: an empty stop string.
        """
        distinct = tuple(sorted(set(stops)))
        if distinct not in self._made:
            size = self._processor.config.decoder.vocab_size
            tables = [stop_table(self._processor.tokenizer, some, vocab_size=size) for some in distinct]
            table, first = join_tables(tables)
            vocabulary = self.plain._replace(stops=StopTable(*map(jnp.asarray, table)))
            self._made[distinct] = vocabulary, dict(zip(distinct, first, strict=True))
        return self._made[distinct]


def decode_texts(
    processor: Processor, tokens_BU: np.ndarray, mask_BU: np.ndarray, openings: Sequence[str] = ()
) -> tuple[str, ...]:
    """Decode each row up to its end token, without special tokens, preceded by the opening that its prompt wrote."""
    rows = [row[mask].tolist() for row, mask in zip(tokens_BU, mask_BU)]
    decoded = processor.tokenizer.batch_decode(rows, skip_special_tokens=True)
    return tuple(opening + text for opening, text in zip(openings or [""] * len(rows), decoded, strict=True))

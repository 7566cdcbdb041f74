"""Run the command line with its sampler watched: write down what is sampled, or compare it with what was written down.

    python recorded.py record FOLDER ARGUMENTS     one process: every sampled row to FOLDER/rows.pickle
    python recorded.py replay FOLDER ARGUMENTS     compare each row with the one written down, and go on from that one
    python recorded.py free FOLDER ARGUMENTS       note each row's name only

Where a compared row differs, the first differing token is looked at: how far its uniform draw lay from a boundary of
the distribution it was drawn from. Every process writes ``FOLDER/<mode>-<number>.json``: the rows compared, and these
distances.
"""

import json
import pickle
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from urt_jax.data.collate import Need, collate, length_of
from urt_jax.families.processor import padding_of
from urt_jax.generation import sampler
from urt_jax.generation.loop import row_keys, token_draws
from urt_jax.generation.sampler import Sampler, question_number
from urt_jax.generation.vocabulary import decode_texts
from urt_jax.main import main
from urt_jax.models.vlm import VisionLanguageModel
from urt_jax.runs import processes
from urt_jax.types import EncodedChat, Rollout

BOUNDARY = 1e-5  # from which another process may draw another token, by rounding
Row = tuple[np.ndarray, np.ndarray, np.ndarray, bool]
Name = tuple[Any, ...]


class Watch:
    """What was sampled: by sampler (they are made in the same order), question, response, step and settings."""

    def __init__(self, mode: str, folder: Path) -> None:
        self.mode, self.folder = mode, folder
        self.rows: dict[Name, Row] = {}
        self.distances: list[float] = []
        self.compared = 0
        self.samplers: list[Sampler] = []
        if mode == "replay":
            self.rows = pickle.loads((folder / "rows.pickle").read_bytes())

    def sample(self, of: Sampler, params: Any, chats: list[EncodedChat], ids: list[str], **asked: Any) -> Rollout:
        samples = _sample(of, params, chats, ids, **asked)
        responses = asked.get("responses", 1)
        index = list(range(responses)) * len(ids)
        number = next(n for n, known in enumerate(self.samplers) if known is of)
        each_row = asked["sampling"]  # one for all rows, or one per row, all with the temperature of the call
        sampling = each_row[0] if isinstance(each_row, list) else each_row
        settings = (asked.get("step", 0), sampling.temperature, asked["slots"])
        arrays = [np.array(part) for part in (samples.tokens_BU, samples.mask_BU, samples.logp_BU, samples.ended_B)]
        for row in range(len(samples.texts)):
            name = (number, ids[row // responses], int(index[row]), *settings)
            found: Row = tuple(part[row] for part in arrays)  # type: ignore[assignment]
            if self.mode != "replay":
                self.rows[name] = found
                continue
            wanted = self.rows[name]
            self.compared += 1
            if not np.array_equal(found[0][found[1]], wanted[0][wanted[1]]):
                chat = chats[row // responses]
                seed = asked["seed"][row] if isinstance(asked["seed"], list) else asked["seed"]
                self.distances.append(distance(of, params, chat, found, wanted, name, seed))
            for part, value in zip(arrays, wanted):
                part[row] = value
        tokens, mask, logp, ended = arrays
        texts = decode_texts(of.processor, tokens, mask)
        return samples._replace(tokens_BU=tokens, mask_BU=mask, logp_BU=logp, ended_B=ended, texts=texts)

    def write(self) -> None:
        if self.mode == "record":
            (self.folder / "rows.pickle").write_bytes(pickle.dumps(self.rows))
        told = {"rows": len(self.rows), "compared": self.compared, "distances": self.distances}
        (self.folder / f"{self.mode}-{processes.number()}.json").write_text(json.dumps(told))


def distance(of: Sampler, params: Any, chat: EncodedChat, found: Row, wanted: Row, name: Name, seed: int) -> float:
    """Return how far the draw of the first differing token lay from a boundary between two tokens.

    A greedy token has no draw: of it, how much likelier the likeliest token is than the next.
    """
    _, question, response, step, temperature, slots = name
    first = int(np.argmax(np.where(found[1] | wanted[1], found[0] != wanted[0], False)))
    response_tokens = np.where(np.arange(slots) < first, wanted[0], 0).astype(np.int32)  # of one length, one program
    length = length_of(chat, len(response_tokens))
    batch = collate([chat], [response_tokens], bucket=Need(1, *length), **padding_of(of.processor))
    own = jax.tree.map(np.asarray, params)  # whole on every process: the mesh of these runs has a data axis only
    logits = np.asarray(_logits(of.model, own, batch))[0, len(chat.tokens_T) - 1 + first].astype(np.float64)
    logits[np.asarray(of.stops.plain.suppressed_V)] = -np.inf
    likely = np.exp((logits - logits.max()) / (temperature or 1.0))
    likely /= likely.sum()
    if not temperature:
        return float(np.diff(np.sort(likely)[-2:])[0])
    rows = (seed, question_number(question), response)
    seeds, questions, responses = (jnp.array([part], jnp.uint32) for part in rows)
    keys = row_keys(seeds, jnp.int32(step), questions, responses)
    draw = float(token_draws(keys, slots)[0, first])
    return float(np.abs(np.cumsum(likely) - draw).min())


@partial(jax.jit, static_argnums=0)
def _logits(model: VisionLanguageModel, params: Any, batch: Any) -> Any:
    return model.apply({"params": params}, batch)


_sample, _make = Sampler.sample, Sampler.__init__

if __name__ == "__main__":
    watch = Watch(sys.argv[1], Path(sys.argv[2]))

    def made(of: Sampler, *given: Any, **named: Any) -> None:
        _make(of, *given, **named)
        watch.samplers.append(of)

    leave = processes.disconnect

    def disconnect() -> None:
        watch.write()
        leave()

    sampler.Sampler.__init__ = made  # type: ignore[method-assign]
    sampler.Sampler.sample = lambda *given, **named: watch.sample(*given, **named)  # type: ignore[method-assign]
    processes.disconnect = disconnect
    sys.exit(main(sys.argv[3:]))

"""How tokens are drawn: the record that configs and code share. It imports no jax, since configs are read before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from urt_jax.settings import Problems, knob

T = TypeVar("T")


@dataclass(frozen=True)
class TemperedSampling:
    """How tokens are drawn without any filter, under which alone a sample's log-probability is that of its ratio."""

    temperature: float = knob(1.0, at_least=0)  # 0 = greedy
    stop: tuple[str, ...] = ()  # texts that end a response and stay in it, e.g. "</answer>"

    def problems(self) -> Problems:
        """Yield what is wrong between the knobs."""
        if "" in self.stop:
            yield "stop", "an empty text would end every response at once; leave it out"


@dataclass(frozen=True)
class Sampling(TemperedSampling):
    """How the tokens of a response are drawn; filters are off by default. A checkpoint's own settings are not read."""

    top_k: int = knob(0, at_least=0)  # likeliest tokens kept; 0 = off
    top_p: float = knob(1.0, above=0, at_most=1)  # probability that the likeliest tokens kept have together; 1 = off
    min_p: float = knob(0.0, at_least=0, at_most=1)  # least probability kept, as a share of the largest; 0 = off
    repetition_penalty: float = knob(1.0, above=0)  # arXiv 1909.05858; 1 = off


@dataclass(frozen=True)
class DecodeSettings:
    """How the device decodes, whatever is drawn."""

    at_once: int | None = knob(None, at_least=1)  # responses decoded at a time; None = 8 or 32 a CPU core, else all
    gather_weights: bool = True  # split by fsdp or sequence: once, a copy while sampling; else for each token


@dataclass(frozen=True)
class RolloutSampling(DecodeSettings, TemperedSampling):
    """How the rollouts of GRPO are sampled: without filters, which its importance ratios would not know of."""


@dataclass(frozen=True)
class PoolSampling(DecodeSettings, Sampling):
    """How a pool is sampled of which the good responses are learnt."""


def each_row(value: T | Sequence[T], kind: type[T], rows: int) -> Sequence[T]:
    """Return a setting for every row: the one value that all share, or the sequence of one a row.

    Raises:
        ValueError: a sequence of another length.
    """
    if isinstance(value, kind) or not isinstance(value, Sequence):
        return [value] * rows
    if len(value) != rows:
        raise ValueError(f"{len(value)} {kind.__name__} settings for {rows} responses; give one, or one a response")
    return value

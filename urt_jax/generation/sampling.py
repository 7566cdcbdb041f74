"""Sampling settings, shared by configs and code. The module imports no jax: configs are read before jax starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from urt_jax.settings import Problems, knob

T = TypeVar("T")


@dataclass(frozen=True)
class TemperedSampling:
    """Sampling without filters: only then is a token's log-probability the one in its importance ratio."""

    temperature: float = knob(1.0, at_least=0)  # 0 = greedy
    stop: tuple[str, ...] = ()  # texts that end a response and stay in it, e.g. "</answer>"

    def problems(self) -> Problems:
        """Yield the knobs that are invalid, each with its message."""
        if "" in self.stop:
            yield "stop", "an empty text would end every response at once; leave it out"


@dataclass(frozen=True)
class Sampling(TemperedSampling):
    """Sampling with filters, which are off by default. A checkpoint's own settings are ignored."""

    top_k: int = knob(0, at_least=0)  # number of likeliest tokens kept; 0 = off
    top_p: float = knob(1.0, above=0, at_most=1)  # total probability of the likeliest tokens kept; 1 = off
    min_p: float = knob(0.0, at_least=0, at_most=1)  # least probability kept, as a share of the largest; 0 = off
    repetition_penalty: float = knob(1.0, above=0)  # arXiv 1909.05858; 1 = off


@dataclass(frozen=True)
class DecodeSettings:
    """Settings of the device's work; they do not affect the sampled tokens."""

    at_once: int | None = knob(None, at_least=1)  # responses decoded at a time; None = 8 or 32 per CPU core, else all
    gather_weights: bool = True  # gather weights split by fsdp or sequence once per batch, as a copy; False = per token


@dataclass(frozen=True)
class RolloutSampling(DecodeSettings, TemperedSampling):
    """Sampling of GRPO's rollouts: without filters, which its importance ratios would not take into account."""


@dataclass(frozen=True)
class PoolSampling(DecodeSettings, Sampling):
    """Sampling of a pool for rejection sampling, which keeps the good responses for training."""


def each_row(value: T | Sequence[T], kind: type[T], rows: int) -> Sequence[T]:
    """Return one setting per row, from a single value for all rows or a sequence of one per row.

    Raises:
        ValueError: the sequence has another length.
    """
    if isinstance(value, kind) or not isinstance(value, Sequence):
        return [value] * rows
    if len(value) != rows:
        raise ValueError(f"{len(value)} {kind.__name__} settings for {rows} responses; give one, or one per response")
    return value

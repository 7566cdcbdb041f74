"""Groups of knobs of the stage ``plan``."""

from dataclasses import dataclass

from urt_jax.config.binding import knob


@dataclass(frozen=True)
class PlanRowsConfig:
    """The rows of a step; every prompt shows square pictures and every response runs to its limit."""

    questions: int | None = knob(None, at_least=1)  # of a GRPO step; None = one a chip
    responses: int = knob(8, at_least=2)  # to each of them
    prompt_tokens: int = knob(8192, at_least=16)  # pictures included
    new_tokens: int = knob(4096, at_least=1)  # of one response
    pictures: int = knob(2, at_least=1)  # in a prompt
    picture_side: int = knob(384, at_least=28)  # in pixels
    sft_rows: int | None = knob(None, at_least=1)  # of an SFT step, each a prompt and a response; None = one a chip


@dataclass(frozen=True)
class AttainedConfig:
    """Which fraction of a chip's published rates is counted on; an assumption."""

    flops: float = knob(0.7, above=0, at_most=1)  # of matrix products, as a share of the published rate
    bandwidth: float = knob(0.8, above=0, at_most=1)  # of memory, as a share of the published rate
    links: float = knob(0.8, above=0, at_most=1)  # between chips, as a share of the published rate

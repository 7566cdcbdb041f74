"""What all stages have, and groups of knobs that several of them share."""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from urt_jax.settings import Problems, knob


@dataclass(frozen=True)
class StageConfig:
    """What every stage has: a run folder and a seed."""

    stage: ClassVar[str]

    workdir: str = ""  # run folder; the command line's default is runs/<config file>
    seed: int = knob(0, at_least=0)  # of new weights, orders and samples; records have one of their own


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (arXiv 2106.09685) that are trained in place of the weights, which then all stay frozen."""

    rank: int = knob(0, at_least=0)  # inner width of an adapter; 0 = none: the weights themselves are trained
    alpha: float = knob(32.0, above=0)  # what an adapter adds is scaled by alpha / rank
    targets: tuple[str, ...] = knob(  # kernel paths that get one
        (r"^decoder/.*/(attention/[qkvo]|mlp/(gate|up|down))/kernel$",), nonempty=True
    )


@dataclass(frozen=True)
class ModelSettings:
    """The weights a stage starts from, and what of them it trains."""

    path: str = "urt-tiny"  # a shipped model, a run folder, a Hugging Face folder, or org/name[@revision] of the hub
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of the computation; auto: by device
    trainable: tuple[str, ...] = knob((r"^(decoder/|embedding$|head$)",), nonempty=True)  # parameter paths
    remat: Literal["none", "full", "dots"] = "none"  # what the backward pass recomputes to save memory
    # Of whole rows in the decoder. auto: "splash" on a TPU where mesh.sequence is 1, "xla" (any device) elsewhere;
    # "cudnn" is for GPUs and bfloat16.
    attention: Literal["auto", "xla", "splash", "cudnn"] = "auto"
    lora: LoraConfig = LoraConfig()

    def problems(self) -> Problems:
        """Yield what is wrong with the patterns, and between the knobs."""
        for key, patterns in (("trainable", self.trainable), ("lora.targets", self.lora.targets)):
            for pattern in patterns:
                try:
                    re.compile(pattern)
                except (re.error, RecursionError, OverflowError) as error:
                    yield key, f"{pattern[:80]!r} is no regular expression ({error})"
        if self.lora.rank and self.trainable != ModelSettings.trainable:
            message = f"is {self.trainable}, but with lora.rank {self.lora.rank} adapters alone are trained"
            yield "trainable", f"{message}; leave it at its default and choose lora.targets, or set lora.rank to 0"


@dataclass(frozen=True)
class LearnerSettings(ModelSettings):
    """A model that supervised training may also begin anew."""

    init: Literal["load", "random"] = "load"  # random: layout and tokenizer of `path`, fresh weights

    def problems(self) -> Problems:
        """Yield what is wrong between the knobs."""
        yield from super().problems()
        if self.lora.rank and self.init == "random":
            yield "init", "is 'random': an adapter is for weights that can be loaded again; set lora.rank to 0 or load"


@dataclass(frozen=True)
class PixelsConfig:
    """Bounds of one picture (or video frame) in pixels; None = the checkpoint's own."""

    min_pixels: int | None = knob(None, at_least=1)  # a smaller picture is enlarged; None = the checkpoint's
    max_pixels: int | None = knob(None, at_least=1)  # a larger picture is shrunk; None = the checkpoint's

    def problems(self) -> Problems:
        """Yield what is wrong between the knobs."""
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            yield "min_pixels", f"{self.min_pixels} is above max_pixels {self.max_pixels}"


@dataclass(frozen=True)
class LengthConfig:
    """Bounds in tokens."""

    max_prompt_tokens: int = knob(512, at_least=16)  # a longer prompt has its pictures shrunk first, then is an error
    max_new_tokens: int = knob(160, at_least=1)  # of a response, written or sampled


@dataclass(frozen=True)
class RowLengths(LengthConfig):
    """Bounds of training rows, which several records may share."""

    row_patches: int | None = knob(None, at_least=1)  # vision patches of the records of a row; None = any number


@dataclass(frozen=True)
class ShapeConfig:
    """Sizes of a base model made from nothing, in the Qwen2.5-VL layout."""

    vocab_size: int = knob(768, at_least=300)  # of the tokenizer built with it
    width: int = knob(128, at_least=8)  # of the decoder, in channels
    layers: int = knob(4, at_least=1)  # of the decoder
    heads: int = knob(4, at_least=1)  # of its attention, for queries
    kv_heads: int = knob(2, at_least=1)  # of its attention, for keys and values
    feed_forward: int = knob(352, at_least=8)  # inner channels of its MLPs
    vision_width: int = knob(96, at_least=8)  # of the vision tower, in channels
    vision_layers: int = knob(2, at_least=1)  # of the vision tower
    vision_heads: int = knob(4, at_least=1)  # of its attention
    vision_feed_forward: int = knob(256, at_least=8)  # inner channels of its MLPs

    def problems(self) -> Problems:
        """Yield what is wrong between the knobs."""
        if self.heads % self.kv_heads:
            yield "kv_heads", f"{self.kv_heads} does not divide heads {self.heads}"
        for width, heads in (("width", self.heads), ("vision_width", self.vision_heads)):
            if getattr(self, width) % (4 * heads):
                yield width, f"{getattr(self, width)} is no multiple of 4 x {heads} heads, which rotary positions need"
